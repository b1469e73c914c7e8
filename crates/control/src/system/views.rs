//! The look-ups: what the system knows, for reports and operators.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::replicas::restart_pause;
use super::{End, Function, FunctionKey, ReplicaKey, ReplicaState, System};
use crate::Deployment;
use crate::cluster::{ImageId, NodeId};
use crate::health::Condition;

/// A function as it stands.
#[derive(Clone, Copy, Debug)]
pub struct FunctionView<'a> {
    /// Its key.
    pub key: FunctionKey,
    /// What was deployed.
    pub deployment: &'a Deployment,
    /// Replicas wanted.
    pub desired: u32,
    /// Replicas conceived or starting.
    pub starting: u32,
    /// Replicas that take requests, those that joined by themselves included.
    pub running: u32,
    /// How many of those joined by themselves.
    pub joined: u32,
    /// Requests that wait.
    pub queued: usize,
    /// Requests in service at running replicas, abandoned ones included.
    pub in_flight: u32,
    /// Running replicas that go when one is ready in their place.
    pub outdated: u32,
    /// How long a request that came now would wait for its turn, from the length of the queue and the average
    /// time of the last attempts; with the pause before the next start where replicas fail to start.
    pub expected_wait: Duration,
    /// Running replicas that are not healthy.
    pub unfit: u32,
    /// Replicas lost in a row before any good came of them.
    pub failures: u32,
    /// Replicas that wait for a node.
    pub unplaced: u32,
    /// Why they do.
    pub unplaced_because: Option<&'a str>,
    /// Counts since it was deployed.
    pub totals: Totals,
}

/// A replica as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its key.
    pub key: ReplicaKey,
    /// Its number in the run, from 0.
    pub number: u64,
    /// Its function.
    pub function: FunctionKey,
    /// Which of its function's endpoints it stands for; 0 if there are none.
    pub endpoint: usize,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Requests it works on, abandoned ones included.
    pub in_flight: usize,
    /// Whether it joined by itself.
    pub joined: bool,
    /// Whether it is given requests while it runs.
    pub condition: Condition,
    /// Requests at a time that it is given, if that is learned.
    pub limit: Option<u32>,
    /// The node it is on, if there are nodes and one had room.
    pub node: Option<NodeId>,
    /// The image it runs, if it is on a node and its function names images.
    pub image: Option<ImageId>,
}

/// Counts of a function since it was deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests that ended [`End::Ok`].
    pub ok: u64,
    /// Requests that ended [`End::Error`].
    pub error: u64,
    /// Requests that ended [`End::TimedOut`].
    pub timed_out: u64,
    /// Requests that ended [`End::Cancelled`].
    pub cancelled: u64,
    /// Requests that ended [`End::Shed`].
    pub shed: u64,
    /// Requests that ended [`End::Lost`].
    pub lost: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Replicas told to start.
    pub replicas_started: u64,
    /// Replicas that went without being told to.
    pub replicas_lost: u64,
}

impl Totals {
    /// Requests that have ended, however.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ok + self.error + self.timed_out + self.cancelled + self.shed + self.lost
    }

    pub(super) const fn count(&mut self, end: End) {
        let counter = match end {
            End::Ok => &mut self.ok,
            End::Error => &mut self.error,
            End::TimedOut => &mut self.timed_out,
            End::Cancelled => &mut self.cancelled,
            End::Shed(_) => &mut self.shed,
            End::Lost => &mut self.lost,
        };
        *counter += 1;
    }
}

impl Function {
    fn expected_wait(&self) -> Duration {
        // Nobody is served before a replica is started again.
        let start = if self.running == 0 && self.failures > 0 {
            restart_pause(self.failures)
        } else {
            Duration::ZERO
        };
        let slots = match (self.deployment.batch, self.deployment.concurrency) {
            (Some(batch), _) => batch.max_size,
            (None, Some(concurrency)) => concurrency,
            (None, None) => return start,
        };
        let slots = f64::from(slots) * f64::from(self.running.max(1));
        let turns = (self.queue.len() as f64 + 1.0) / slots;
        start + Duration::from_nanos((turns * self.service) as u64)
    }
}

impl System {
    /// The functions by name, in the order of their names.
    pub fn function_index(&self) -> impl Iterator<Item = (&str, FunctionKey)> {
        self.names.iter().map(|(name, &key)| (name.as_str(), key))
    }

    /// What is deployed, in the order of the names.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.names.values().map(|&key| &self.functions[key].deployment)
    }

    /// The function of this name.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<FunctionKey> {
        self.names.get(name).copied()
    }

    /// A function as it stands.
    #[must_use]
    pub fn function(&self, key: FunctionKey) -> Option<FunctionView<'_>> {
        let function = self.functions.get(key)?;
        Some(FunctionView {
            key,
            deployment: &function.deployment,
            desired: function.desired,
            starting: function.starting,
            running: function.running,
            joined: function.joined,
            queued: function.queue.len(),
            in_flight: function.in_service,
            outdated: function.outdated,
            expected_wait: self.back_in(function).unwrap_or_else(|| function.expected_wait()),
            unfit: function.unfit,
            failures: function.failures,
            unplaced: function.unplaced.len(),
            unplaced_because: function.unplaced.reason(),
            totals: function.totals,
        })
    }

    /// The replicas of a function, oldest first; of one state, if one is named.
    pub fn replicas(
        &self,
        function: FunctionKey,
        state: Option<ReplicaState>,
    ) -> impl Iterator<Item = ReplicaView> {
        let keys = self.functions.get(function).map_or(&[][..], |f| &f.replicas);
        let views = keys.iter().filter_map(|&key| self.replica(key));
        views.filter(move |view| state.is_none_or(|state| view.state == state))
    }

    /// The replicas of a function that can answer now.
    pub fn discover(&self, function: FunctionKey) -> impl Iterator<Item = ReplicaView> {
        self.replicas(function, Some(ReplicaState::Running))
    }

    /// Whether a function has a replica that can answer now; who waits for one asks again after each event.
    #[must_use]
    pub fn available(&self, function: FunctionKey) -> bool {
        self.functions.get(function).is_some_and(|function| function.running > 0)
    }

    /// A replica as it stands.
    #[must_use]
    pub fn replica(&self, key: ReplicaKey) -> Option<ReplicaView> {
        let replica = self.replicas.get(key)?;
        Some(ReplicaView {
            key,
            number: replica.number,
            function: replica.function,
            endpoint: replica.endpoint,
            state: replica.state,
            in_flight: replica.work.len(),
            joined: replica.joined,
            condition: replica.condition,
            limit: replica.limiter.as_ref().map(|limiter| limiter.limit()),
            node: replica.seat.as_ref().map(|seat| seat.node),
            image: replica.seat.as_ref().and_then(|seat| seat.image),
        })
    }

    /// Requests that have not ended, or whose slot is not free yet.
    #[must_use]
    pub fn active_requests(&self) -> usize {
        self.requests.len()
    }
}
