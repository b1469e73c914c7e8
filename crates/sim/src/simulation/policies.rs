use std::collections::BTreeMap;
use std::fmt;

use gatewright_control::autoscale::Autoscaler;
use gatewright_control::balance::Balancer;
use gatewright_control::cluster::Node;
use gatewright_control::keep_alive::KeepAliveRule;
use gatewright_control::placement::Priority;
use gatewright_control::{ReplicaKey, System};
use gatewright_determinism::{Stream, Time};

use super::engine::Engine;
use super::{Progress, RecordSink, Simulation, SimulationError, SimulationReport};

/// Policies of one run that have no name in a system file, by function: those of an experiment. They take the place of
/// what the system file names.
///
/// ```
/// # use std::time::Duration;
/// # use gatewright_control::autoscale::{Autoscaler, Sample};
/// # use gatewright_determinism::Time;
/// /// A replica for every second request.
/// #[derive(Debug)]
/// struct Pairs;
///
/// impl Autoscaler for Pairs {
///     fn interval(&self) -> Duration {
///         Duration::from_secs(2)
///     }
///
///     fn decide(&mut self, _: Time, sample: &Sample) -> Option<u32> {
///         Some((sample.concurrency / 2.0).ceil() as u32)
///     }
/// }
///
/// let mut policies = gatewright_sim::Policies::default();
/// policies.autoscaler.insert("square".to_owned(), Box::new(Pairs));
/// ```
#[derive(Debug, Default)]
pub struct Policies {
    /// Choose how many replicas there are.
    pub autoscaler: BTreeMap<String, Box<dyn Autoscaler>>,
    /// Choose the replica for a request.
    pub balancer: BTreeMap<String, Box<dyn Balancer>>,
    /// Say how long a replica with nothing to do stays.
    pub keep_alive: BTreeMap<String, Box<dyn KeepAliveRule>>,
    /// Say how long a request is served, in place of the law `service` of the function's model.
    pub service: BTreeMap<String, Box<dyn ServiceModel>>,
    /// Chooses the nodes for replicas of all functions, in place of the placement that the system file names.
    pub priority: Option<Box<dyn Priority>>,
}

/// Says how long a request is served: a function's model that is more than a law.
pub trait ServiceModel: fmt::Debug + Send {
    /// Nanoseconds of service. `luck` is the attempt's own. Of a batch, the first request is asked for alone.
    fn service(&mut self, call: &Call<'_>, luck: &mut Stream) -> u64;
}

/// An attempt that begins to be served.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Now.
    pub now: Time,
    /// Number of the request in the run.
    pub request: u64,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Number of the replica in the run.
    pub replica: u64,
    /// Requests that the replica now works on, this one included.
    pub in_flight: u32,
    /// Whether the request found no running replica when it came.
    pub cold: bool,
    /// The replica's node, if there are nodes.
    pub node: Option<&'a Node>,
}

impl Simulation {
    /// As [`Simulation::run`], with policies of its own.
    ///
    /// # Errors
    /// As there; or a policy is for a function that is not simulated.
    pub fn run_with<'a>(
        &'a self,
        seed: u64,
        policies: Policies,
        sink: Option<&'a mut dyn RecordSink>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SimulationReport, SimulationError> {
        let mut engine = Engine::new(self, seed, sink);
        engine.deploy(policies)?;
        engine.open_demands();
        engine.plan();
        engine.plan_outages();
        engine.plan_sample();
        engine.run(progress);
        engine.finish()
    }
}

/// A replica's number and node.
pub(super) fn place_of(system: &System, replica: ReplicaKey) -> (u64, Option<&Node>) {
    let view = system.replica(replica);
    let node = view.and_then(|view| Some(system.cluster()?.node(view.node?)));
    (view.map_or(0, |view| view.number), node)
}

impl Engine<'_> {
    /// Puts the run's own policies in the place of those that the deployments name.
    pub(super) fn set_policies(&mut self, policies: Policies) -> Result<(), SimulationError> {
        for (function, rule) in policies.keep_alive {
            let set = self.system.set_keep_alive(&function, rule);
            set.map_err(|_| SimulationError::UnknownFunction(function))?;
        }
        for (function, model) in policies.service {
            let key = self.system.lookup(&function);
            let key = key.ok_or(SimulationError::UnknownFunction(function))?;
            let run = &mut self.functions[self.by_function[key]];
            (run.model, run.plain) = (Some(model), false);
        }
        for (function, autoscaler) in policies.autoscaler {
            let set = self.system.set_autoscaler(Time::ZERO, &function, autoscaler);
            set.map_err(|_| SimulationError::UnknownFunction(function))?;
        }
        for (function, balancer) in policies.balancer {
            let set = self.system.set_balancer(Time::ZERO, &function, balancer);
            set.map_err(|_| SimulationError::UnknownFunction(function))?;
        }
        Ok(())
    }
}
