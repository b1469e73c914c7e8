//! How much there is to do, over time: what a metrics server would have seen.

use std::sync::Arc;

use gatewright_control::ReplicaKey;
use gatewright_determinism::Time;
use serde::Serialize;
use slotmap::SecondaryMap;

use super::engine::Engine;
use super::event::Event;
use super::level::Level;

/// The state of the system at a moment, and averages since the sample before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// When.
    #[serde(rename = "at_ns")]
    pub at: Time,
    /// The functions, in the order of their names.
    pub functions: Vec<FunctionSample>,
    /// The replicas that are ready or still at work, in the order of their numbers.
    pub replicas: Vec<ReplicaSample>,
    /// The nodes, in the order of the system file.
    pub nodes: Vec<NodeSample>,
}

/// A function in a [`Sample`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionSample {
    /// Its name.
    pub function: Arc<str>,
    /// Replicas that take requests, at the moment.
    pub running: u64,
    /// Requests that wait for a replica, at the moment.
    pub queued: u64,
    /// The same, on average since the last sample.
    pub queued_mean: f64,
    /// Requests in service, on average since the last sample.
    pub in_service_mean: f64,
}

/// A replica in a [`Sample`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicaSample {
    /// Its number in the run.
    pub replica: u64,
    /// Name of its function.
    pub function: Arc<str>,
    /// Name of its node, if there are nodes.
    pub node: Option<Arc<str>>,
    /// Requests that it was handed and is not done with, at the moment.
    pub in_service: u64,
    /// The same, on average since the last sample.
    pub in_service_mean: f64,
    /// Share of the time since the last sample in which it had any.
    pub utilisation: f64,
}

/// A node in a [`Sample`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeSample {
    /// Its name.
    pub node: Arc<str>,
    /// Replicas on it, at the moment.
    pub replicas: u64,
    /// Share of its cores that its replicas asked for, on average since the last sample.
    pub requested: f64,
    /// Share of its cores at work, on average since the last sample.
    pub busy: f64,
}

/// What is kept between two samples; only where any are taken.
#[derive(Default)]
pub(super) struct Sampling {
    /// Nanoseconds between two samples.
    every: u64,
    last: Time,
    replicas: SecondaryMap<ReplicaKey, ReplicaLoad>,
    /// Integrals at the last sample, in the order in which they are asked for.
    before: Vec<u128>,
}

#[derive(Default)]
struct ReplicaLoad {
    in_service: Level,
    busy: Level,
    before: [u128; 2],
}

impl Sampling {
    pub(super) fn new(every: u64) -> Self {
        Self { every, ..Self::default() }
    }

    /// A replica takes requests.
    pub(super) fn join(&mut self, replica: ReplicaKey) {
        self.replicas.insert(replica, ReplicaLoad::default());
    }

    /// A replica has been handed a request, or is done with one.
    pub(super) fn load(&mut self, now: Time, replica: ReplicaKey, begins: bool) {
        let Some(load) = self.replicas.get_mut(replica) else { return };
        if begins {
            load.in_service.up(now)
        } else {
            load.in_service.down(now)
        }
        let busy = u64::from(load.in_service.value() > 0);
        load.busy.set(now, busy);
    }
}

impl Engine<'_> {
    /// Enters the next sample.
    pub(super) fn plan_sample(&mut self) {
        if let Some(sampling) = &self.sampling {
            self.calendar.push(self.now.plus_nanos(sampling.every), Event::Sample);
        }
    }

    /// Takes a sample.
    pub(super) fn sample(&mut self) {
        let Some(mut sampling) = self.sampling.take() else { return };
        let (now, span) = (self.now, self.now.nanos_since(sampling.last).max(1) as f64);
        let mut before = std::mem::take(&mut sampling.before).into_iter();
        let mut after = Vec::new();
        let mut mean = |level: &Level| {
            let area = level.area(now);
            after.push(area);
            (area - before.next().unwrap_or(0)) as f64 / span
        };
        let functions = self.functions.iter().zip(&self.setup.functions);
        let functions = functions.map(|(run, setup)| FunctionSample {
            function: Arc::clone(&setup.name),
            running: run.running.value(),
            queued: run.queued.value(),
            queued_mean: mean(&run.queued),
            in_service_mean: mean(&run.in_service),
        });
        let functions = functions.collect();
        let nodes = self
            .setup
            .fleet
            .iter()
            .flat_map(|fleet| self.nodes.iter().zip(fleet.cluster.nodes()).zip(&fleet.nodes));
        let nodes = nodes.map(|((run, node), name)| {
            let cpu = (node.capacity.cpu as f64).max(1.0);
            NodeSample {
                node: Arc::clone(name),
                replicas: run.replicas.value(),
                requested: mean(&run.requested) / cpu,
                busy: (mean(&run.busy) / cpu).min(1.0),
            }
        });
        let nodes = nodes.collect();
        let replicas = self.replica_samples(&mut sampling, span);
        sampling.before = after;
        sampling.last = now;
        self.sampling = Some(sampling);
        let sample = Sample { at: now, functions, replicas, nodes };
        if let Some(Err(error)) = self.sink.as_mut().map(|sink| sink.sampled(&sample)) {
            self.failure = Some(error.into());
        }
        self.plan_sample();
    }

    fn replica_samples(&self, sampling: &mut Sampling, span: f64) -> Vec<ReplicaSample> {
        sampling.replicas.retain(|replica, _| self.system.replica(replica).is_some());
        let mut samples = Vec::new();
        for (key, load) in &mut sampling.replicas {
            let Some(view) = self.system.replica(key) else { continue };
            let areas = [load.in_service.area(self.now), load.busy.area(self.now)];
            let [in_service, busy] =
                [0, 1].map(|nth| (areas[nth] - load.before[nth]) as f64 / span);
            load.before = areas;
            let fleet = self.setup.fleet.as_ref().zip(view.node);
            samples.push(ReplicaSample {
                replica: view.number,
                function: Arc::clone(&self.setup.functions[self.by_function[view.function]].name),
                node: fleet.map(|(fleet, node)| Arc::clone(&fleet.nodes[node.index()])),
                in_service: load.in_service.value(),
                in_service_mean: in_service,
                utilisation: busy,
            });
        }
        samples.sort_by_key(|sample| sample.replica);
        samples
    }
}
