//! Places of replicas on nodes: what is pulled to them, and how much of them is taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gatewright_control::cluster::NodeId;
use gatewright_control::{ReplicaKey, System};
use gatewright_determinism::Time;

use super::engine::Engine;
use super::flights::WorkId;
use super::level::Level;
use super::transfers::{Cargo, Moves};
use super::{NodeReport, Phase, ReplicaStep, Simulation};
use crate::llm::Batcher;
use crate::sharing::Shared;

/// A replica, where it is and what goes on in it.
pub(super) struct Site {
    pub(super) node: Option<NodeId>,
    /// Thousandths of cores that it asked for.
    cpu: u64,
    /// Which of its function's laws hold.
    pub(super) laws: usize,
    /// Layers of its image that are still to come.
    missing: u32,
    /// Items that it has read, or begun to, before it takes requests.
    pub(super) read: usize,
    /// Requests in service.
    pub(super) busy: u32,
    /// Requests that wait for one of its workers.
    pub(super) inner: VecDeque<WorkId>,
    pub(super) shared: Shared<WorkId>,
    /// The batch of a language model.
    pub(super) batch: Option<Box<Batcher<WorkId>>>,
}

/// A node during a run.
pub(super) struct NodeRun {
    /// Layers that are there, or on their way with the replicas that wait for them.
    layers: BTreeMap<u32, Option<Vec<ReplicaKey>>>,
    pub(super) replicas: Level,
    /// Thousandths of cores that its replicas asked for.
    pub(super) requested: Level,
    /// The same, of replicas for each request in service.
    pub(super) busy: Level,
    pulled: u64,
    /// How often it was lost: layers that were on their way to it then are not there when they come.
    losses: u32,
    /// Requests in service on it, where these slow one another down.
    pub(super) shared: Shared<WorkId>,
}

impl NodeRun {
    /// With so many cores.
    fn new(cores: f64) -> Self {
        Self {
            layers: BTreeMap::new(),
            replicas: Level::default(),
            requested: Level::default(),
            busy: Level::default(),
            pulled: 0,
            losses: 0,
            shared: Shared::new(Time::ZERO, cores),
        }
    }

    /// The warm-up has ended.
    pub(super) fn begin(&mut self, now: Time) {
        for level in [&mut self.replicas, &mut self.requested, &mut self.busy] {
            level.begin(now);
        }
    }
}

impl Simulation {
    pub(super) fn system(&self, seed: u64) -> System {
        match &self.fleet {
            Some(fleet) => System::with_cluster(seed, fleet.cluster.clone(), &fleet.placement),
            None => System::new(seed),
        }
    }

    pub(super) fn node_runs(&self) -> Vec<NodeRun> {
        let nodes = self.fleet.as_ref().map_or(&[][..], |fleet| fleet.cluster.nodes());
        nodes.iter().map(|node| NodeRun::new(node.capacity.cpu as f64 / 1_000.0)).collect()
    }

    pub(super) fn moves(&self) -> Moves {
        Moves::new(self.fleet.as_ref().map(|fleet| fleet.cluster.topology()))
    }
}

impl Engine<'_> {
    /// A replica has its node, if there are nodes.
    pub(super) fn settle(&mut self, replica: ReplicaKey, function: usize, node: Option<NodeId>) {
        let setup = &self.setup.functions[function];
        if node.is_none() && !setup.deep {
            return;
        }
        let (mut laws, mut cpu) = (0, 0);
        if let (Some(fleet), Some(node)) = (&self.setup.fleet, node) {
            let device = fleet.cluster.node(node).device.clone().unwrap_or_default();
            let image = self.system.replica(replica).and_then(|view| view.image);
            laws = setup.variants.get(&(device, image)).copied().unwrap_or(0);
            cpu = self.requests_of(replica);
            let run = &mut self.nodes[node.index()];
            run.replicas.up(self.now);
            run.requested.set(self.now, run.requested.value() + cpu);
        }
        let site = Site {
            node,
            cpu,
            laws,
            missing: 0,
            read: 0,
            busy: 0,
            inner: VecDeque::new(),
            shared: Shared::new(self.now, 1.0),
            batch: setup.llm.as_ref().map(|llm| Box::new(Batcher::new(&llm.model))),
        };
        self.sites.insert(replica, site);
        if !self.begun && !self.setup.cold_start {
            self.hold_image(replica);
        }
    }

    /// Thousandths of cores that a replica asked for.
    fn requests_of(&self, replica: ReplicaKey) -> u64 {
        let Some(view) = self.system.replica(replica) else { return 0 };
        let deployment = &self.setup.functions[self.by_function[view.function]].deployment;
        let chosen = view.image.zip(self.setup.fleet.as_ref()).and_then(|(image, fleet)| {
            let name = &fleet.images[image.index()];
            deployment.images.iter().find(|choice| *choice.image == **name)
        });
        chosen.map_or(deployment.requests.cpu, |choice| choice.requests.cpu)
    }

    pub(super) fn laws_of(&self, replica: ReplicaKey) -> usize {
        self.sites.get(replica).map_or(0, |site| site.laws)
    }

    /// The layers that a replica needs on its node.
    fn layers(&self, replica: ReplicaKey) -> Option<(NodeId, Vec<(u32, u64)>)> {
        let fleet = self.setup.fleet.as_ref()?;
        let view = self.system.replica(replica)?;
        let (node, image) = (view.node?, view.image?);
        let arch = fleet.cluster.node(node).arch.clone();
        Some((node, fleet.layers.get(&(image, arch))?.clone()))
    }

    /// The replica's image is on its node from the start.
    fn hold_image(&mut self, replica: ReplicaKey) {
        let Some((node, layers)) = self.layers(replica) else { return };
        self.nodes[node.index()].layers.extend(layers.into_iter().map(|(layer, _)| (layer, None)));
    }

    /// Pulls what is missing of a replica's image, all layers at once; what another replica is pulling is waited for.
    pub(super) fn pull(&mut self, replica: ReplicaKey) {
        self.note_phase(replica, Phase::Deploy);
        let Some((node, layers)) = self.layers(replica) else { return self.boot(replica) };
        let mut missing = 0;
        for (layer, bytes) in layers {
            let known = &mut self.nodes[node.index()].layers;
            match known.get_mut(&layer) {
                Some(None) => continue,
                Some(Some(waiting)) => waiting.push(replica),
                None => {
                    known.insert(layer, Some(vec![replica]));
                    self.nodes[node.index()].pulled += bytes;
                    self.send_layer(node, layer, bytes);
                }
            }
            missing += 1;
        }
        if missing == 0 {
            return self.boot(replica);
        }
        if let Some(site) = self.sites.get_mut(replica) {
            site.missing = missing;
        }
    }

    fn send_layer(&mut self, node: NodeId, layer: u32, bytes: u64) {
        let Some(fleet) = &self.setup.fleet else { return };
        let route = fleet.pulls[node.index()].clone().unwrap_or_default();
        let (source, sink) = (&fleet.registry, &fleet.nodes[node.index()]);
        let cargo = Cargo::Layer { node, layer, losses: self.nodes[node.index()].losses };
        self.send(bytes, route, Arc::clone(source), Arc::clone(sink), cargo);
    }

    /// A layer is on a node, unless the node was lost meanwhile.
    pub(super) fn pulled(&mut self, node: NodeId, layer: u32, losses: u32) {
        let run = &mut self.nodes[node.index()];
        let place = run.layers.get_mut(&layer).filter(|_| run.losses == losses);
        let Some(place) = place else { return };
        for replica in place.take().unwrap_or_default() {
            let Some(site) = self.sites.get_mut(replica) else { continue };
            site.missing -= 1;
            if site.missing == 0 {
                self.boot(replica);
            }
        }
    }

    /// A replica is gone from its node.
    pub(super) fn leave(&mut self, replica: ReplicaKey) {
        let Some(site) = self.sites.remove(replica) else { return };
        if let Some(node) = site.node {
            let run = &mut self.nodes[node.index()];
            run.replicas.down(self.now);
            run.requested.set(self.now, run.requested.value().saturating_sub(site.cpu));
        }
    }

    /// A node is gone with all it held.
    pub(super) fn clear_node(&mut self, node: NodeId) {
        let run = &mut self.nodes[node.index()];
        run.layers.clear();
        run.losses += 1;
    }

    /// A request begins or ends to keep its replica's node busy.
    #[inline]
    pub(super) fn occupy(&mut self, replica: ReplicaKey, begins: bool) {
        if !self.nodes.is_empty() {
            self.occupy_node(replica, begins);
        }
    }

    #[inline(never)]
    fn occupy_node(&mut self, replica: ReplicaKey, begins: bool) {
        let Some(&Site { node: Some(node), cpu, .. }) = self.sites.get(replica) else { return };
        if cpu == 0 {
            return;
        }
        let run = &mut self.nodes[node.index()];
        let busy = run.busy.value();
        let busy = if begins { busy + cpu } else { busy.saturating_sub(cpu) };
        run.busy.set(self.now, busy);
    }

    pub(super) fn note_phase(&mut self, replica: ReplicaKey, phase: Phase) {
        let (Some(sink), Some(view)) = (&mut self.sink, self.system.replica(replica)) else {
            return;
        };
        let fleet = self.setup.fleet.as_ref();
        let step = ReplicaStep {
            at: self.now,
            function: Arc::clone(&self.setup.functions[self.by_function[view.function]].name),
            replica: view.number,
            node: fleet.zip(view.node).map(|(fleet, node)| Arc::clone(&fleet.nodes[node.index()])),
            image: fleet
                .zip(view.image)
                .map(|(fleet, image)| Arc::clone(&fleet.images[image.index()])),
            phase,
        };
        if let Err(error) = sink.replica(&step) {
            self.failure = Some(error.into());
        }
    }

    pub(super) fn node_reports(&self, end: Time) -> Vec<NodeReport> {
        let Some(fleet) = &self.setup.fleet else { return Vec::new() };
        let seconds = end.nanos_since(self.setup.warm_up) as f64 / 1e9;
        let nodes = self.nodes.iter().zip(fleet.cluster.nodes()).zip(&fleet.nodes);
        let report = nodes.map(|((run, node), name)| {
            let share = |level: &Level| match node.capacity.cpu {
                0 => 0.0,
                cpu => level.mean(end) / cpu as f64,
            };
            let busy = share(&run.busy).min(1.0);
            let model = node.device.as_ref().and_then(|device| fleet.devices.get(device));
            NodeReport {
                node: Arc::clone(name),
                device: node.device.clone(),
                replicas_mean: run.replicas.mean(end),
                replicas_max: run.replicas.max(),
                requested_mean: share(&run.requested),
                busy_mean: busy,
                pulled: run.pulled,
                joules: model.map(|model| {
                    seconds * (model.idle_watts + (model.busy_watts - model.idle_watts) * busy)
                }),
                cost: model.map(|model| seconds / 3_600.0 * model.price_per_hour),
            }
        });
        report.collect()
    }
}
