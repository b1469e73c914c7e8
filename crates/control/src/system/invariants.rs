//! What must hold after every event, in production, in simulation and in tests.

use crate::health::Condition;

use super::{FunctionKey, Phase, ReplicaState, RequestState, System};

/// A rule that did not hold: a fault in this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("function `{function}`: {rule}")]
pub struct InvariantViolation {
    /// Name of the function.
    pub function: String,
    /// The rule.
    pub rule: &'static str,
}

impl System {
    /// Checks everything, by looking at every request and replica.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check_invariants(&self) -> Result<(), InvariantViolation> {
        for key in self.functions.keys() {
            self.check_function(key)?;
            self.check_replicas(key)?;
        }
        if !self.nodes_add_up() {
            let rule = "what is taken of a node is not what its replicas take";
            return Err(InvariantViolation { function: String::new(), rule });
        }
        Ok(())
    }

    /// Checks what can be seen from counters alone, for debug builds.
    #[cfg(debug_assertions)]
    pub(super) fn assert_invariants(&self) {
        for key in self.functions.keys() {
            if let Err(violation) = self.check_function(key) {
                panic!("{violation}");
            }
        }
    }

    fn check_function(&self, key: FunctionKey) -> Result<(), InvariantViolation> {
        let function = &self.functions[key];
        let scale = function.deployment.scale;
        let alive = function.starting + function.running - function.joined;
        let slots_free = !function.pool.available().is_empty();
        let gathers = function.deployment.batch.is_some();
        let rules = [
            (function.desired <= scale.max, "more replicas are wanted than the maximum"),
            (
                function.phase != Phase::Serving || function.desired >= scale.min,
                "fewer replicas are wanted than the minimum",
            ),
            (alive == function.target(), "there are not as many replicas as wanted"),
            (
                function.queue.len() == 0 || !slots_free || gathers,
                "a request waits beside a free slot",
            ),
            (
                function.queue.len() == 0
                    || function.desired > 0
                    || scale.max == 0
                    || (gathers && slots_free),
                "a request waits and no replica is to come",
            ),
            (
                function.totals.ended() <= function.totals.arrived,
                "more requests ended than arrived",
            ),
        ];
        self.first_broken(key, &rules)
    }

    fn check_replicas(&self, key: FunctionKey) -> Result<(), InvariantViolation> {
        let function = &self.functions[key];
        let deployment = &function.deployment;
        let limit = deployment.batch.map(|batch| batch.max_size).or(deployment.concurrency);
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let replicas = || function.replicas.iter().map(|&key| &self.replicas[key]);
        let count = |state| replicas().filter(|replica| replica.state == state).count() as u32;
        let requests = || self.requests.values().filter(|request| request.function == key);
        let open = requests().filter(|r| !matches!(r.state, RequestState::Abandoned(_))).count();
        let queued = requests().filter(|request| request.state == RequestState::Queued).count();
        let pausing = requests().filter(|request| request.state == RequestState::Pausing).count();
        let outdated = replicas()
            .filter(|replica| replica.outdated && replica.state == ReplicaState::Running)
            .count();
        let held: usize = replicas().map(|replica| replica.work.len()).sum();
        let running: u64 = replicas()
            .filter(|replica| replica.state == ReplicaState::Running)
            .map(|replica| replica.work.len() as u64)
            .sum();
        let rules = [
            (
                replicas().all(|replica| replica.work.len() <= limit),
                "a replica holds more than its concurrency",
            ),
            (
                count(ReplicaState::Conceived) + count(ReplicaState::Starting) == function.starting,
                "starting replicas are miscounted",
            ),
            (count(ReplicaState::Running) == function.running, "running replicas are miscounted"),
            (
                function.totals.arrived == function.totals.ended() + open as u64,
                "arrived is not ended plus open",
            ),
            (queued == function.queue.len(), "queued requests are miscounted"),
            (
                held + queued + pausing == requests().count(),
                "a request neither waits nor is in service",
            ),
            (
                replicas().filter(|r| r.joined && r.state == ReplicaState::Running).count() as u32
                    == function.joined,
                "replicas that joined are miscounted",
            ),
            (running == u64::from(function.in_service), "requests in service are miscounted"),
            (
                replicas()
                    .filter(|r| {
                        r.state == ReplicaState::Running && r.condition != Condition::Healthy
                    })
                    .count() as u32
                    == function.unfit,
                "unhealthy replicas are miscounted",
            ),
            (
                !function.is_down() || function.queue.len() == 0,
                "a request waits though no replica is well",
            ),
            (outdated as u32 == function.outdated, "outdated replicas are miscounted"),
            (
                function.unplaced.len() <= count(ReplicaState::Conceived),
                "a replica waits for a node and is not conceived",
            ),
            (
                replicas().all(|r| r.work.len() == 0 || r.state >= ReplicaState::Running),
                "a replica works before it runs",
            ),
        ];
        self.first_broken(key, &rules)
    }

    fn first_broken(
        &self,
        key: FunctionKey,
        rules: &[(bool, &'static str)],
    ) -> Result<(), InvariantViolation> {
        let function = || self.functions[key].deployment.name.clone();
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(InvariantViolation { function: function(), rule }),
            None => Ok(()),
        }
    }
}
