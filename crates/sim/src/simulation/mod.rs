//! A scenario run in virtual time.
//!
//! This file has what goes in and comes out; `setup` turns files into it, with `checks` of what they say together,
//! `engine` is the loop over the `agenda` of `event`s, `effects` does what the system says, and `outcome` is the end;
//! `requests` what happens to a request, `played` where it is of a trace, `caching` before that, `work` at its replica,
//! `language` if that is a language model, `faults` how it fails; `replicas` the life of replicas and `sites` their
//! places on nodes, `transfers` what moves over the network, `store` the cache of a route, `level`
//! quantities over time, `samples` what is seen of them now and then, `streams` what a run leaves behind, `policies`
//! those of an experiment.

mod agenda;
mod caching;
mod checks;
mod effects;
mod engine;
mod event;
mod faults;
mod flights;
mod language;
mod level;
mod outcome;
mod played;
mod policies;
mod replicas;
mod requests;
mod samples;
mod setup;
mod sites;
mod store;
mod streams;
mod transfers;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_control::cache::CachePolicy;
use gatewright_control::cluster::{Cluster, ImageId, Route};
use gatewright_control::placement::Placement;
use gatewright_control::{Act, Deployment, InvariantViolation, Totals};
use gatewright_determinism::Time;
use gatewright_record::{Invocation, RecordWriter, RunSummary, TokenSummary, WriteError};
use gatewright_workload::trace::TraceError;
use gatewright_workload::{Limits, Strategy};
use serde::Serialize;

pub use policies::{Call, Policies, ServiceModel};
pub use samples::{FunctionSample, NodeSample, ReplicaSample, Sample};
pub use streams::{NodeReport, Phase, ReplicaStep, Transfer, TransferKind};

use crate::keys::KeySampler;
use crate::llm::LlmModel;
use crate::model::DeviceModel;
use crate::{Contention, Faults, Outage, Sampler};

/// A system, its model and a scenario, ready to be run with any number of seeds.
#[derive(Clone, Debug)]
pub struct Simulation {
    cold_start: bool,
    /// Averages and summaries leave out what was before.
    warm_up: Time,
    functions: Vec<FunctionSetup>,
    caches: Vec<CacheSetup>,
    demands: Vec<DemandSetup>,
    fleet: Option<FleetSetup>,
    /// How requests on one node slow one another down.
    node_contention: Option<Contention>,
    /// In the order of their moments.
    steps: Vec<(Time, Act)>,
}

#[derive(Clone, Debug)]
struct FunctionSetup {
    name: Arc<str>,
    deployment: Deployment,
    /// Nanoseconds that a replica may take to start.
    start_timeout: u64,
    /// The first holds where no other does.
    laws: Vec<Laws>,
    /// Which of them holds on a device with an image.
    variants: BTreeMap<(String, Option<ImageId>), usize>,
    stop: Sampler,
    overhead: Sampler,
    gateway: Sampler,
    lifetime: Option<Sampler>,
    errors: f64,
    faults: Option<Faults>,
    outages: Vec<Outage>,
    fork: Sampler,
    workers: u32,
    contention: Option<Contention>,
    /// Thousandths of cores that a request would keep busy.
    busy: u32,
    llm: Option<LlmSetup>,
    /// The function that is called with the answer.
    then: Option<usize>,
    /// Whether what happens inside its replicas is more than one service time after another.
    deep: bool,
    /// Whether that is all, alone and without faults.
    plain: bool,
}

/// A language model.
#[derive(Clone, Debug)]
struct LlmSetup {
    model: LlmModel,
    prompt: Sampler,
    output: Sampler,
}

/// How long things take in a replica.
#[derive(Clone, Debug)]
struct Laws {
    service: Sampler,
    /// Absent where no replica is started during the run.
    start: Option<Sampler>,
    setup: Sampler,
}

/// The nodes and what they pull.
#[derive(Clone, Debug)]
struct FleetSetup {
    cluster: Cluster,
    placement: Placement,
    nodes: Vec<Arc<str>>,
    images: Vec<Arc<str>>,
    registry: Arc<str>,
    /// Layers of each image by architecture: number and bytes.
    layers: BTreeMap<(ImageId, String), Vec<(u32, u64)>>,
    /// Ways from the registry to each node, where any function has images.
    pulls: Vec<Option<Route>>,
    devices: BTreeMap<String, DeviceModel>,
}

/// A cached route.
#[derive(Clone, Debug)]
struct CacheSetup {
    keys: u32,
    policy: Arc<CachePolicy>,
    /// How long its responses say that they are fresh, in whole seconds as HTTP has them.
    lifetime: Option<Duration>,
    hit: Sampler,
}

#[derive(Clone, Debug)]
struct DemandSetup {
    function: usize,
    route: Option<Arc<str>>,
    /// The route's cache, and which keys of it are asked for.
    cache: Option<(usize, KeySampler)>,
    arrival: Strategy,
    limits: Limits,
    /// Whether requests are served for as long as their trace says.
    as_recorded: bool,
}

/// Takes what a run leaves behind, while it goes on.
pub trait RecordSink {
    /// A replica has come to another phase of its life.
    ///
    /// # Errors
    /// When it cannot be written; the run ends.
    fn replica(&mut self, _step: &ReplicaStep) -> Result<(), WriteError> {
        Ok(())
    }

    /// Something was moved over the network.
    ///
    /// # Errors
    /// When it cannot be written; the run ends.
    fn transfer(&mut self, _transfer: &Transfer) -> Result<(), WriteError> {
        Ok(())
    }

    /// A request has ended. The record is the sink's to copy; it is used again for the next one.
    ///
    /// # Errors
    /// When it cannot be written; the run ends.
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError>;

    /// The number of replicas wanted has changed.
    ///
    /// # Errors
    /// When it cannot be written; the run ends.
    fn scaled(&mut self, _scaling: &Scaling) -> Result<(), WriteError> {
        Ok(())
    }

    /// How often [`RecordSink::sampled`] is called, in virtual time; never unless overridden.
    fn sample_every(&self) -> Option<Duration> {
        None
    }

    /// The load of functions, replicas and nodes, at the moment and since the last time.
    ///
    /// # Errors
    /// When it cannot be written; the run ends.
    fn sampled(&mut self, _sample: &Sample) -> Result<(), WriteError> {
        Ok(())
    }
}

/// A decision about the number of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scaling {
    /// When it was made.
    pub at: Time,
    /// Name of the function.
    pub function: Arc<str>,
    /// Replicas wanted before.
    pub from: u32,
    /// Replicas wanted from then on.
    pub to: u32,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The virtual time.
    pub now: Time,
    /// Events dealt with so far.
    pub events: u64,
    /// Requests that have ended.
    pub ended: u64,
    /// How much of the demand was offered, 0 to 1.
    pub fraction: f64,
}

/// What a run comes to.
#[derive(Clone, Debug)]
pub struct SimulationReport {
    /// The seed.
    pub seed: u64,
    /// What became of each demand's requests, in the order of the scenario.
    pub demands: Vec<DemandReport>,
    /// What each function did, in the order of their names.
    pub functions: Vec<FunctionReport>,
    /// What each node did, in the order of the system file.
    pub nodes: Vec<NodeReport>,
    /// Events dealt with: arrivals, ends of service, starts and stops of replicas, deadlines, autoscaling.
    pub events: u64,
    /// When the last request had ended.
    pub end: Time,
}

/// What became of a demand's requests, those of the warm-up left out.
#[derive(Clone, Debug)]
pub struct DemandReport {
    /// Name of the function.
    pub function: Arc<str>,
    /// Path of the route, if one was asked for.
    pub route: Option<Arc<str>>,
    /// How requests were offered.
    pub arrival: Strategy,
    /// The requests.
    pub summary: RunSummary,
    /// Tokens and their times, where a language model was asked.
    pub tokens: Option<Box<TokenSummary>>,
}

/// What a function did during a run: its averages after the warm-up, its counts over the whole run. Times in seconds of
/// virtual time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub function: Arc<str>,
    /// Its counts.
    pub totals: Totals,
    /// Replicas running, on average over time.
    pub replicas_mean: f64,
    /// Replicas running at most.
    pub replicas_max: u64,
    /// Time from start to stop, over all replicas: what they cost.
    pub replica_seconds: f64,
    /// Requests in service, on average over time.
    pub in_service_mean: f64,
    /// Requests that waited for a replica, on average over time.
    pub queued_mean: f64,
    /// Decisions that changed the number of replicas.
    pub scalings: u64,
    /// Replicas that waited for a node when the run ended.
    pub unplaced: u32,
}

/// Why a run came to no result.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A policy of the run is for a function that no demand leads to.
    #[error("a policy is given for function `{0}`, and no demand leads to a function of that name")]
    UnknownFunction(String),
    /// A policy of the run chooses nodes, and there are none.
    #[error(
        "a policy is given that chooses nodes, and the system has none: add [cluster] with nodes or a topology"
    )]
    NoNodes,
    /// A trace that was well when it was checked cannot be read any more.
    #[error("a trace has changed since it was checked: {0}")]
    Trace(TraceError),
    /// The records could not be written.
    #[error(transparent)]
    Records(#[from] WriteError),
    /// A replica had to be started, and the model does not say how long that takes.
    #[error(
        "function `{0}` started a replica during the run, and its model has no `start` law: add start = {{ fixed = 0.5 }}, in seconds"
    )]
    NoStartLaw(Arc<str>),
    /// The decisions broke a rule of their own: a fault in this program.
    #[error("a rule of the system was broken; please report this: {0}")]
    Invariant(#[from] InvariantViolation),
    /// The run does not add up: a fault in this program.
    #[error("the run does not add up; please report this: {0}")]
    Identity(String),
}

impl Simulation {
    /// The functions that are simulated, in the order of their names: those that a demand leads to.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|function| &*function.name)
    }
}

impl SimulationReport {
    /// All requests of the run together.
    #[must_use]
    pub fn summary(&self) -> RunSummary {
        let mut all = RunSummary::new();
        self.demands.iter().for_each(|demand| all.merge(&demand.summary));
        all
    }
}

impl<W: std::io::Write + Send> RecordSink for RecordWriter<W> {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        self.write(invocation)
    }
}

/// Keeps everything in memory: for tests and for calibration from simulated records.
impl RecordSink for Vec<Invocation> {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        self.push(invocation.clone());
        Ok(())
    }
}
