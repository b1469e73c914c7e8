//! Which replicas are fit for requests, from how their requests end and what their checks say.

use std::time::Duration;

use gatewright_determinism::{Purpose, Stream, Time};

use super::{Effect, End, Function, FunctionKey, Outcome, Replica, ReplicaKey, Shed, System};
use crate::adapt::Sample;
use crate::health::{Breaker, Condition, Health, Outlier, Verdict, success_rate_threshold};

impl Outcome {
    /// What it says of the replica; nothing if the replica had no part in it.
    const fn verdict(self) -> Verdict {
        match self {
            Self::Ok | Self::Busy | Self::Returned | Self::Again { busy: true, .. } => {
                Verdict::Good
            }
            Self::Error => Verdict::Error,
            Self::Unavailable | Self::NotStarted | Self::Again { busy: false, .. } => Verdict::Gone,
        }
    }

    /// Whether it may come of too many requests.
    const fn is_dropped(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable | Self::Again { .. })
    }
}

impl Function {
    /// Whether it has replicas and none of them may be given a request.
    pub(super) fn is_down(&self) -> bool {
        self.unfit > 0 && self.unfit == self.running && self.pool.available().is_empty()
    }

    /// An attempt that began at `started` has ended at a replica. Whether more than the balancer is to learn of it.
    pub(super) fn learn(
        &mut self,
        replica: &mut Replica,
        now: Time,
        started: Time,
        outcome: Outcome,
    ) -> bool {
        let Some(position) = replica.position else { return false };
        self.balancer.ended(position, started, now);
        if let Some(limiter) = &mut replica.limiter {
            let took = now - started;
            let in_flight = self.pool.load(position) + 1;
            limiter.ended(&Sample { took, in_flight, dropped: outcome.is_dropped() });
        }
        replica.health.is_some() || replica.limiter.is_some()
    }

    /// A request that was given to a replica at `started` has left it: one that was there before its breaker was half
    /// open leaves no room for another try.
    pub(super) fn leave_room(&mut self, replica: &Replica, started: Time) {
        let breaker = replica.health.as_ref().and_then(|health| health.breaker.as_ref());
        let since = breaker.and_then(Breaker::half_open_since);
        if let (Some(since), Some(position)) = (since, replica.position)
            && replica.condition == Condition::HalfOpen
            && started < since
        {
            let limit = self.pool.limit_of(position).saturating_sub(1);
            self.pool.set_limit(position, limit);
        }
    }
}

impl System {
    /// A replica begins to run: what is known of it begins anew.
    pub(super) fn begin_health(&mut self, now: Time, key: ReplicaKey) {
        let replica = &mut self.replicas[key];
        let deployment = &self.functions[replica.function].deployment;
        replica.health = Health::new(&deployment.health, now).map(Box::new);
        replica.limiter = deployment.adapt.as_ref().map(crate::adapt::Adapt::build);
        if let Some(health) = &replica.health {
            self.health.set(key, health.next());
        }
        self.regulate(key);
    }

    /// An attempt that began at `started` has ended at a replica of whose health something is known.
    pub(super) fn judge(
        &mut self,
        now: Time,
        key: ReplicaKey,
        started: Time,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let verdict = outcome.verdict();
        if let Some(health) = self.replicas.get_mut(key).and_then(|it| it.health.as_mut()) {
            if let Some(breaker) = &mut health.breaker {
                breaker.record(now, started, verdict);
            }
            if health.outlier.as_mut().is_some_and(|outlier| outlier.record(verdict)) {
                self.eject(now, key);
            }
        }
        self.reconsider(now, key, effects);
    }

    /// An active check of a replica has ended.
    pub(super) fn probed(
        &mut self,
        now: Time,
        key: ReplicaKey,
        well: bool,
        effects: &mut Vec<Effect>,
    ) {
        let prober = self.replicas.get_mut(key).and_then(|replica| replica.health.as_mut());
        if let Some(prober) = prober.and_then(|health| health.prober.as_mut()) {
            prober.record(well);
            self.reconsider(now, key, effects);
            self.pump(now, self.replicas[key].function, effects);
        }
    }

    /// The timer of a replica's health has fired.
    pub(super) fn wake_health(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(key) else { return };
        let (Some(health), Some(_)) = (&mut replica.health, replica.position) else { return };
        let id = replica.number ^ now.as_nanos().rotate_left(20);
        let jitter = Stream::new(self.seed, Purpose::Jitter, id).unit();
        let function = replica.function;
        if health.wake(now, jitter) {
            effects.push(Effect::Probe { replica: key, function });
        }
        self.reconsider(now, key, effects);
        self.pump(now, function, effects);
    }

    /// Compares the replicas of a function with one another.
    pub(super) fn compare(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        let Some(function) = self.functions.get(key) else { return };
        let Some(rules) = function.deployment.health.eject else { return };
        self.comparisons.set(key, now + rules.interval.get());
        let replicas = function.replicas.clone();
        let mut shares = Vec::new();
        for replica in replicas {
            if let Some(share) = self.outlier(replica).and_then(Outlier::compare) {
                shares.push((replica, share));
            }
        }
        let all: Vec<_> = shares.iter().map(|(_, share)| *share).collect();
        let Some(threshold) = success_rate_threshold(&rules, &all) else { return };
        for (replica, share) in shares {
            if share < threshold {
                self.eject(now, replica);
                self.reconsider(now, replica, effects);
            }
        }
        self.pump(now, key, effects);
    }

    fn outlier(&mut self, key: ReplicaKey) -> Option<&mut Outlier> {
        self.replicas.get_mut(key)?.health.as_mut()?.outlier.as_mut()
    }

    /// Leaves a replica out, unless too many are.
    fn eject(&mut self, now: Time, key: ReplicaKey) {
        let function = &self.functions[self.replicas[key].function];
        let condition = |key: &ReplicaKey| self.replicas[*key].condition;
        let out = function.replicas.iter().filter(|key| condition(key) == Condition::Ejected);
        let (out, all) = (out.count() as u32, function.running);
        let rules = function.deployment.health.eject;
        if rules.is_some_and(|rules| rules.allows(out, all))
            && let Some(outlier) = self.outlier(key)
        {
            outlier.eject(now);
        }
    }

    /// Sees whether a replica's condition has changed, and what follows.
    fn reconsider(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let replica = &mut self.replicas[key];
        // One that goes is given nothing any more, however it is.
        if replica.position.is_none() {
            return;
        }
        let Some(health) = &replica.health else { return self.regulate(key) };
        self.health.set(key, health.next());
        let to = health.condition();
        let from = std::mem::replace(&mut replica.condition, to);
        let owner = replica.function;
        if from == to {
            return self.regulate(key);
        }
        let function = &mut self.functions[owner];
        function.unfit += u32::from(to != Condition::Healthy);
        function.unfit -= u32::from(from != Condition::Healthy);
        effects.push(Effect::HealthChanged { replica: key, function: owner, from, to });
        if let Some(position) = replica.position {
            let load = function.pool.load(position);
            // Where there is no room for another, what ends makes none.
            let limit = match health.allowance() {
                0 => 0,
                more => load.saturating_add(more),
            };
            function.pool.set_limit(position, limit);
        }
        self.regulate(key);
        self.end_waiting_if_down(now, owner, effects);
    }

    /// Holds a healthy replica to what its limiter has learned.
    fn regulate(&mut self, key: ReplicaKey) {
        let replica = &self.replicas[key];
        if let (Some(limiter), Some(position)) = (&replica.limiter, replica.position)
            && replica.condition == Condition::Healthy
        {
            self.functions[replica.function].pool.set_limit(position, limiter.limit());
        }
    }

    /// Refuses what waits for replicas none of which may be given a request.
    pub(super) fn end_waiting_if_down(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        if self.functions.get(key).is_some_and(Function::is_down) {
            self.end_waiting(now, key, End::Shed(Shed::Unavailable), effects);
        }
    }

    /// How long until one of a function's replicas may be given requests again, if none may now.
    pub(super) fn back_in(&self, function: &Function) -> Option<Duration> {
        if !function.is_down() {
            return None;
        }
        let now = self.now;
        let replicas = function.replicas.iter().filter_map(|key| self.replicas.get(*key));
        let spans = replicas.filter_map(|replica| replica.health.as_ref()?.back_in(now));
        spans.min()
    }
}
