//! What moves over the network: layers of images, and data.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_control::ReplicaKey;
use gatewright_control::cluster::{Cluster, NodeId, Route, Routes, Topology, VertexId};
use gatewright_determinism::Time;

use super::engine::Engine;
use super::event::Event;
use super::flights::WorkId;
use super::{Transfer, TransferKind};
use crate::{FlowEnd, Flows};

/// Transfers under way, and the ways between nodes and data.
pub(super) struct Moves {
    flows: Option<Flows<u32>>,
    under_way: Vec<Option<Moving>>,
    free: Vec<u32>,
    from: BTreeMap<VertexId, Routes>,
    to: BTreeMap<VertexId, Routes>,
}

struct Moving {
    at: Time,
    bytes: u64,
    route: Route,
    source: Arc<str>,
    sink: Arc<str>,
    cargo: Cargo,
}

/// What a transfer is for.
#[derive(Clone, Copy)]
pub(super) enum Cargo {
    /// For a node that was lost so often when it was asked for.
    Layer {
        node: NodeId,
        layer: u32,
        losses: u32,
    },
    Setup {
        replica: ReplicaKey,
    },
    Read {
        work: WorkId,
    },
    Write {
        work: WorkId,
    },
}

/// Bytes per second within a node, as in faas-sim.
const WITHIN_A_NODE: f64 = 1.25e8;
/// Round trips until a connection stands and data come: ether's estimate for TCP, 1.5.
const ONE_WAYS_TO_CONNECT: u64 = 3;

impl Moves {
    pub(super) fn new(topology: Option<&Topology>) -> Self {
        Self {
            flows: topology.map(Flows::new),
            under_way: Vec::new(),
            free: Vec::new(),
            from: BTreeMap::new(),
            to: BTreeMap::new(),
        }
    }

    /// The way between a node and the place among `places` that has the widest narrowest link to it, the first of
    /// several; with that place.
    fn way(
        &mut self,
        cluster: &Cluster,
        places: &[VertexId],
        node: VertexId,
        reads: bool,
    ) -> Option<(VertexId, Route)> {
        let topology = cluster.topology();
        let known = if reads { &mut self.from } else { &mut self.to };
        let mut best: Option<(u64, VertexId)> = None;
        for &place in places {
            let routes = known.entry(place).or_insert_with(|| {
                if reads { topology.routes_from(place) } else { topology.routes_to(place) }
            });
            let width = topology.narrowest(routes, node)?;
            if best.is_none_or(|(widest, _)| width > widest) {
                best = Some((width, place));
            }
        }
        let (_, place) = best?;
        Some((place, topology.route(known.get(&place)?, node)?))
    }
}

impl Engine<'_> {
    /// A node reads an item.
    pub(super) fn fetch(&mut self, item: &str, node: NodeId, cargo: Cargo) {
        self.exchange(item, node, cargo, true);
    }

    /// A node writes an item.
    pub(super) fn store(&mut self, item: &str, node: NodeId, cargo: Cargo) {
        self.exchange(item, node, cargo, false);
    }

    fn exchange(&mut self, item: &str, node: NodeId, cargo: Cargo, reads: bool) {
        let Some(fleet) = &self.setup.fleet else { return };
        let cluster = &fleet.cluster;
        let vertex = cluster.node(node).vertex;
        let found = cluster.item(item).and_then(|(bytes, places)| {
            Some((bytes, self.moves.way(cluster, places, vertex, reads)?))
        });
        let Some((bytes, (place, route))) = found else { return self.delivered(cargo) };
        let here = Arc::clone(&fleet.nodes[node.index()]);
        let there: Arc<str> = Arc::from(cluster.topology().name(place));
        let (source, sink) = if reads { (there, here) } else { (here, there) };
        self.send(bytes, route, source, sink, cargo);
    }

    pub(super) fn send(
        &mut self,
        bytes: u64,
        route: Route,
        source: Arc<str>,
        sink: Arc<str>,
        cargo: Cargo,
    ) {
        let (local, latency) = (route.links.is_empty(), route.latency);
        let moving = Moving { at: self.now, bytes, route, source, sink, cargo };
        let transfer = match self.moves.free.pop() {
            Some(place) => {
                self.moves.under_way[place as usize] = Some(moving);
                place
            }
            None => {
                self.moves.under_way.push(Some(moving));
                self.moves.under_way.len() as u32 - 1
            }
        };
        if local {
            let span = Time::from_secs_f64(bytes as f64 / WITHIN_A_NODE).as_nanos();
            self.calendar.push(self.now.plus_nanos(span), Event::Moved { transfer });
        } else {
            let span = latency.saturating_mul(ONE_WAYS_TO_CONNECT);
            self.calendar.push(self.now.plus_nanos(span), Event::Connected { transfer });
        }
    }

    pub(super) fn connected(&mut self, transfer: u32) {
        let Some(moving) = &self.moves.under_way[transfer as usize] else { return };
        let Some(flows) = &mut self.moves.flows else { return };
        let calendar = &mut self.calendar;
        let foresee = |at, end| calendar.push(at, Event::Flow(end));
        flows.start(self.now, moving.bytes, &moving.route.links, transfer, foresee);
    }

    pub(super) fn flow_ended(&mut self, end: FlowEnd) {
        let Some(flows) = &mut self.moves.flows else { return };
        let calendar = &mut self.calendar;
        let foresee = |at, end| calendar.push(at, Event::Flow(end));
        if let Some(transfer) = flows.end(self.now, end, foresee) {
            self.moved(transfer);
        }
    }

    pub(super) fn moved(&mut self, transfer: u32) {
        let Some(moving) = self.moves.under_way[transfer as usize].take() else { return };
        self.moves.free.push(transfer);
        if let Some(sink) = &mut self.sink {
            let kind = match moving.cargo {
                Cargo::Layer { .. } => TransferKind::ImagePull,
                Cargo::Setup { .. } => TransferKind::SetupRead,
                Cargo::Read { .. } => TransferKind::DataDownload,
                Cargo::Write { .. } => TransferKind::DataUpload,
            };
            let record = Transfer {
                at: moving.at,
                end: self.now,
                bytes: moving.bytes,
                source: moving.source,
                sink: moving.sink,
                kind,
            };
            if let Err(error) = sink.transfer(&record) {
                self.failure = Some(error.into());
            }
        }
        self.delivered(moving.cargo);
    }

    fn delivered(&mut self, cargo: Cargo) {
        match cargo {
            Cargo::Layer { node, layer, losses } => self.pulled(node, layer, losses),
            Cargo::Setup { replica } => self.set_up(replica),
            Cargo::Read { work } | Cargo::Write { work } => self.step(work),
        }
    }
}
