//! Where replicas are: on nodes that have room for them, or waiting for one that has.

use std::collections::BTreeMap;

use gatewright_determinism::{Purpose, Stream, Time};

use super::{Effect, FunctionKey, Loss, OperationError, Replica, ReplicaKey, System};
use crate::cluster::{Cluster, ImageId, NodeId, Resources};
use crate::placement::{self, Placement, Priority, Scheduler, Unschedulable};

/// The nodes, and who chooses among them.
#[derive(Debug)]
pub(super) struct Fleet {
    cluster: Cluster,
    scheduler: Scheduler,
    /// Replicas of all functions that wait for a node.
    unplaced: u32,
    pressure: f64,
}

/// A replica's place on a node.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) image: Option<ImageId>,
    /// Which of its function's images that is.
    choice: usize,
    pub(super) requests: Resources,
}

/// Replicas of a function that wait for a node, and how many run each of its images.
#[derive(Debug, Default)]
pub(super) struct Unplaced {
    waiting: BTreeMap<u64, ReplicaKey>,
    reason: Option<String>,
    /// What the cluster had gained when the last one was refused: until it has gained more, all are.
    refused_at: Option<u64>,
    by_choice: Vec<u32>,
}

impl Unplaced {
    pub(super) fn len(&self) -> u32 {
        self.waiting.len() as u32
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.waiting.remove(&number);
        if self.waiting.is_empty() {
            self.reason = None;
        }
    }
}

impl System {
    /// An empty system whose replicas are placed on the nodes of `cluster`.
    #[must_use]
    pub fn with_cluster(seed: u64, cluster: Cluster, placement: &Placement) -> Self {
        let fleet =
            Fleet { cluster, scheduler: Scheduler::new(placement), unplaced: 0, pressure: 0.0 };
        Self { fleet: Some(Box::new(fleet)), ..Self::new(seed) }
    }

    /// The nodes, if replicas are placed on any.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.fleet.as_ref().map(|fleet| &fleet.cluster)
    }

    /// Has one priority alone choose the nodes from now on, in place of those of the placement: for a policy that has
    /// no name. It is asked about every node that can hold the replica. Nothing happens where there are no nodes.
    pub fn set_priority(&mut self, priority: Box<dyn Priority>) {
        if let Some(fleet) = &mut self.fleet {
            fleet.scheduler.go_by(priority);
        }
    }

    /// Finds a node for a replica; it waits if there is none now. Only called where there are nodes.
    pub(super) fn seat(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) -> bool {
        let Some(fleet) = &mut self.fleet else { return false };
        let replica = &mut self.replicas[key];
        let function = &mut self.functions[replica.function];
        let unplaced = &mut function.unplaced;
        if unplaced.refused_at != Some(fleet.cluster.gains()) {
            let mut luck = Stream::new(self.seed, Purpose::Placement, replica.number);
            match fleet.choose(&function.deployment, &mut unplaced.by_choice, &mut luck) {
                Ok(seat) => {
                    fleet.cluster.occupy(seat.node, key, &seat.requests, seat.image);
                    replica.seat = Some(seat);
                    fleet.unplaced -= u32::from(unplaced.waiting.contains_key(&replica.number));
                    unplaced.remove(replica.number);
                    return true;
                }
                Err(reason) => {
                    unplaced.refused_at = Some(fleet.cluster.gains());
                    unplaced.reason = Some(reason);
                }
            }
        }
        if unplaced.waiting.insert(replica.number, key).is_none() {
            fleet.unplaced += 1;
            self.make_room(now, key, effects);
        }
        false
    }

    /// Has idle replicas go that are worth least, until a replica that waits could have their place.
    fn make_room(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let Some(fleet) = &self.fleet else { return };
        let deployment = &self.functions[self.replicas[key].function].deployment;
        let wants: Vec<_> = placement::wants(&fleet.cluster, deployment).collect();
        let mut freed: BTreeMap<NodeId, (Resources, Vec<ReplicaKey>)> = BTreeMap::new();
        let mut chosen = None;
        for (worth, victim) in self.expendable() {
            let Some(seat) = &self.replicas[victim].seat else { continue };
            let node = fleet.cluster.node(seat.node);
            let entry = || (node.free().clone(), Vec::new());
            let (free, victims) = freed.entry(seat.node).or_insert_with(entry);
            free.give_back(&seat.requests);
            victims.push(victim);
            if wants.iter().any(|want| fleet.scheduler.could(&fleet.cluster, want, node, free)) {
                chosen = Some((worth, std::mem::take(victims)));
                break;
            }
        }
        let Some((worth, victims)) = chosen else { return };
        if let Some(fleet) = &mut self.fleet {
            fleet.pressure = fleet.pressure.max(worth);
        }
        for victim in victims {
            self.expire(now, victim, effects);
        }
    }

    /// What the last replica was worth that had to make room.
    pub(super) fn pressure(&self) -> f64 {
        self.fleet.as_ref().map_or(0.0, |fleet| fleet.pressure)
    }

    /// A replica that is gone leaves its node, and those that wait are tried, the oldest first.
    pub(super) fn vacate(
        &mut self,
        now: Time,
        key: ReplicaKey,
        replica: Replica,
        effects: &mut Vec<Effect>,
    ) {
        let Some(fleet) = &mut self.fleet else { return };
        let Some(seat) = replica.seat else {
            fleet.unplaced = self.functions.values().map(|function| function.unplaced.len()).sum();
            return;
        };
        fleet.cluster.vacate(seat.node, key, &seat.requests);
        self.functions[replica.function].unplaced.by_choice[seat.choice] -= 1;
        self.place_waiting(now, effects);
    }

    fn place_waiting(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some(fleet) = &self.fleet
            && fleet.unplaced > 0
        {
            let gains = Some(fleet.cluster.gains());
            let waiting = self.functions.values().map(|function| &function.unplaced);
            let hopeful = waiting.filter(|unplaced| unplaced.refused_at != gains);
            let oldest = hopeful.filter_map(|unplaced| unplaced.waiting.first_key_value()).min();
            let Some((_, &replica)) = oldest else { return };
            self.start(now, replica, effects);
        }
    }

    /// A node is gone, with the replicas on it. One that was gone already stays so.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node_lost(
        &mut self,
        now: Time,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), OperationError> {
        let (cluster, node) = self.node_named(name)?;
        if cluster.node(node).is_up() {
            cluster.lose(node);
            let replicas = cluster.node(node).replicas().to_vec();
            // All of them, before any work is handed on: it would go to another that is lost as well.
            let withdraw =
                |&key: &ReplicaKey| Some((key, self.withdraw_lost(now, key, Loss::Died)?));
            let lost: Vec<_> = replicas.iter().filter_map(withdraw).collect();
            for (replica, owner) in lost {
                self.give_up_lost(now, replica, owner, effects);
            }
        }
        Ok(())
    }

    /// A node that was gone is there again, empty.
    ///
    /// # Errors
    /// There is no such node.
    pub fn node_back(
        &mut self,
        now: Time,
        name: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<(), OperationError> {
        let (cluster, node) = self.node_named(name)?;
        if !cluster.node(node).is_up() {
            cluster.regain(node);
            self.place_waiting(now, effects);
        }
        Ok(())
    }

    fn node_named(&mut self, name: &str) -> Result<(&mut Cluster, NodeId), OperationError> {
        let cluster = self.fleet.as_mut().map(|fleet| &mut fleet.cluster);
        let node = cluster.and_then(|cluster| cluster.node_named(name).map(|node| (cluster, node)));
        node.ok_or_else(|| OperationError::UnknownNode(name.to_owned()))
    }

    /// Whether what is taken of every node is what its replicas take.
    pub(super) fn nodes_add_up(&self) -> bool {
        let Some(cluster) = self.cluster() else { return true };
        cluster.nodes().iter().all(|node| {
            let mut taken = Resources::none();
            for replica in node.replicas() {
                let Some(seat) = self.replicas.get(*replica).and_then(|r| r.seat.as_ref()) else {
                    return false;
                };
                taken.cpu += seat.requests.cpu;
                taken.memory += seat.requests.memory;
            }
            let (capacity, free) = (&node.capacity, node.free());
            (capacity.cpu, capacity.memory) == (free.cpu + taken.cpu, free.memory + taken.memory)
        })
    }

    /// How many replicas of a function run each of its images, in the order of its deployment.
    #[must_use]
    pub fn replicas_by_image(&self, function: FunctionKey) -> &[u32] {
        self.functions.get(function).map_or(&[], |function| &function.unplaced.by_choice)
    }
}

impl Fleet {
    /// The first of the deployment's images that may have one more replica and for which there is a node.
    fn choose(
        &mut self,
        deployment: &crate::Deployment,
        by_choice: &mut Vec<u32>,
        luck: &mut Stream,
    ) -> Result<Seat, String> {
        by_choice.resize(deployment.images.len().max(1), 0);
        let mut reason = "every image has its share of replicas".to_owned();
        for (choice, want) in placement::wants(&self.cluster, deployment).enumerate() {
            let limited = deployment.images.get(choice).filter(|image| image.share < 1.0);
            if limited.is_some_and(|image| by_choice[choice] >= image.at_most(deployment.scale.max))
            {
                continue;
            }
            match self.scheduler.place(&self.cluster, &want, luck) {
                Ok(node) => {
                    by_choice[choice] += 1;
                    let requests = want.requests.clone();
                    return Ok(Seat { node, image: want.image, choice, requests });
                }
                Err(refused @ Unschedulable { .. }) => reason = refused.to_string(),
            }
        }
        Err(reason)
    }
}
