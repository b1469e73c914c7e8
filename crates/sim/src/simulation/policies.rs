use std::collections::BTreeMap;

use gatewright_control::autoscale::Autoscaler;
use gatewright_control::balance::Balancer;
use gatewright_determinism::Time;

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

impl Engine<'_> {
    /// Puts the run's own policies in the place of those that the deployments name.
    pub(super) fn set_policies(&mut self, policies: Policies) -> Result<(), SimulationError> {
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
