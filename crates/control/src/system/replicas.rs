//! The life of a replica: conceived, starting, running, draining, suspended.

use std::time::Duration;

use gatewright_determinism::Time;

use super::{
    Effect, End, Function, FunctionKey, Loss, Phase, Replica, ReplicaKey, ReplicaState,
    RequestState, System, Use,
};
use crate::autoscale::Sample;
use crate::balance::{Member, hash};
use crate::health::Condition;
use crate::queue::List;

/// Pause before a replica is started again after a failure; doubled by every further one.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A replica that ran this long, or answered anything, did not fail to start: it is replaced at once.
const PROVEN_AFTER: Duration = Duration::from_secs(1);

impl System {
    /// Sets how many replicas are wanted, within the function's bounds, and sees to it. Returns the number.
    pub(super) fn scale(
        &mut self,
        now: Time,
        key: FunctionKey,
        wanted: u32,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        let function = &mut self.functions[key];
        let scale = function.deployment.scale;
        let waits = function.queue.len() > 0;
        if waits && function.phase == Phase::Suspended {
            function.phase = Phase::Serving;
        }
        let least = if function.phase == Phase::Serving { scale.min } else { 0 };
        // What waits needs a replica, whoever wants none.
        let least = least.max(u32::from(waits)).min(scale.max);
        let to = wanted.clamp(least, scale.max);
        let from = std::mem::replace(&mut function.desired, to);
        if from != to {
            effects.push(Effect::Scaled { function: key, from, to });
        }
        self.reconcile(now, key, effects);
        to
    }

    /// A request waits: a function at zero gets its first replicas back.
    pub(super) fn wake_from_zero(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        if self.functions[key].desired == 0 {
            self.scale(now, key, 1, effects);
        }
    }

    /// Asks the autoscaler, and sets its next moment.
    pub(super) fn autoscale(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        let function = &mut self.functions[key];
        let Some(autoscaler) = &mut function.autoscaler else { return };
        let sample = Sample {
            concurrency: function.concurrency.read(now),
            arrivals: std::mem::take(&mut function.arrivals),
            queued: function.queue.len() as u32,
            ready: function.running - function.joined,
            starting: function.starting,
            replica_concurrency: function.deployment.concurrency,
            scale: function.deployment.scale,
        };
        let wanted = autoscaler.decide(now, &sample);
        let wanted = wanted.filter(|_| function.phase == Phase::Serving);
        self.plan_scaling(now, key);
        if let Some(wanted) = wanted {
            self.scale(now, key, wanted, effects);
        }
    }

    /// Sets the next regular moment of the autoscaler, if there is to be one.
    pub(super) fn plan_scaling(&mut self, now: Time, key: FunctionKey) {
        let function = &self.functions[key];
        let waits = function.queue.len() > 0;
        let due = match &function.autoscaler {
            Some(autoscaler) if waits || !autoscaler.only_while_waiting() => {
                now + autoscaler.interval()
            }
            _ => Time::MAX,
        };
        self.scalings.set(key, due);
    }

    /// Makes replicas or drains them until there are as many as wanted. While some are outdated, one more than
    /// wanted may be starting, so that none goes before another is ready in its place.
    pub(super) fn reconcile(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        loop {
            let function = &self.functions[key];
            let own = function.running - function.joined;
            let alive = function.starting + own;
            let target = function.target();
            let replaced = function.outdated > 0 && own > function.desired;
            if alive < target {
                for _ in alive..target {
                    self.conceive(now, key, effects);
                }
            } else if alive > target || replaced {
                let surplus = if replaced { 1 } else { (alive - target) as usize };
                for replica in self.least_missed(key, surplus, replaced) {
                    self.retire(now, replica, effects);
                }
            } else {
                return self.end_waiting_if_down(now, key, effects);
            }
        }
    }

    /// The replicas whose going costs least: those that do not run yet, then outdated ones, then those with the
    /// least work, the newest first among equals. Only outdated ones, if so asked.
    fn least_missed(&self, key: FunctionKey, count: usize, outdated: bool) -> Vec<ReplicaKey> {
        let mut candidates: Vec<_> = self.functions[key]
            .replicas
            .iter()
            .map(|&replica| (replica, &self.replicas[replica]))
            .filter(|(_, replica)| replica.state <= ReplicaState::Running && !replica.joined)
            .filter(|(_, replica)| replica.outdated || !outdated)
            .collect();
        candidates.sort_by_key(|(_, replica)| {
            let newest = std::cmp::Reverse(replica.number);
            (replica.state, !replica.outdated, replica.work.len(), newest)
        });
        candidates.into_iter().take(count).map(|(key, _)| key).collect()
    }

    fn conceive(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        let replica = self.make(key, ReplicaState::Conceived);
        let function = &mut self.functions[key];
        function.starting += 1;
        match function.failures {
            0 => self.start(now, replica, effects),
            failures => self.restarts.set(replica, now + restart_pause(failures)),
        }
    }

    fn make(&mut self, key: FunctionKey, state: ReplicaState) -> ReplicaKey {
        let endpoint = self.next_endpoint(key);
        let replica = self.replicas.insert(Replica {
            function: key,
            number: self.replicas_made,
            endpoint,
            state,
            position: None,
            work: List::default(),
            joined: false,
            leaving: false,
            outdated: false,
            ready: None,
            answered: false,
            health: None,
            condition: Condition::Healthy,
            limiter: None,
            seat: None,
            usage: Use::default(),
        });
        self.replicas_made += 1;
        self.functions[key].replicas.push(replica);
        replica
    }

    /// The endpoint that has the fewest replicas, the first one among equals.
    fn next_endpoint(&self, key: FunctionKey) -> usize {
        let function = &self.functions[key];
        if function.deployment.endpoints.len() < 2 {
            return 0;
        }
        let mut counts = vec![0_u32; function.deployment.endpoints.len()];
        let replicas = function.replicas.iter().map(|key| &self.replicas[*key]);
        // Those that go leave their endpoint to others.
        let staying = replicas.filter(|one| one.state <= ReplicaState::Running && !one.outdated);
        for replica in staying {
            if let Some(count) = counts.get_mut(replica.endpoint) {
                *count += 1;
            }
        }
        let fewest = counts.iter().enumerate().min_by_key(|(_, count)| **count);
        fewest.map_or(0, |(endpoint, _)| endpoint)
    }

    /// Lets a replica take requests.
    fn enter_pool(&mut self, now: Time, key: ReplicaKey) {
        let replica = &mut self.replicas[key];
        let function = &mut self.functions[replica.function];
        let member = match function.deployment.endpoints.get(replica.endpoint) {
            Some(at) => {
                Member { replica: key, weight: at.weight, identity: hash(at.url.as_bytes()) }
            }
            None => Member { replica: key, weight: 1, identity: function.pool.next_place() },
        };
        let position = function.pool.join(member);
        function.balancer.joined(&function.pool, position, now);
        replica.position = Some(position);
        replica.ready = Some(now);
        self.begin_health(now, key);
    }

    /// Takes in a replica that came by itself, ready for requests; `None` if its function is gone or going. It
    /// counts beside the number of replicas wanted.
    pub fn join(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) -> Option<ReplicaKey> {
        if self.functions.get(key)?.phase == Phase::Removing {
            return None;
        }
        let replica = self.make(key, ReplicaState::Running);
        let function = &mut self.functions[key];
        function.running += 1;
        function.joined += 1;
        self.replicas[replica].joined = true;
        self.enter_pool(now, replica);
        self.pump(now, key, effects);
        self.measure(now, key);
        Some(replica)
    }

    /// Starts a replica, on a node if there are nodes; it waits for one if none has room.
    pub(super) fn start(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        if self.fleet.is_some() && !self.seat(now, key, effects) {
            return;
        }
        self.note_start(now, key);
        let replica = &mut self.replicas[key];
        replica.state = ReplicaState::Starting;
        self.functions[replica.function].totals.replicas_started += 1;
        let node = replica.seat.as_ref().map(|seat| seat.node);
        effects.push(Effect::StartReplica { replica: key, function: replica.function, node });
    }

    /// Takes a replica out of service: stopped at once if it does not run, drained first if it does.
    pub(super) fn retire(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let replica = &mut self.replicas[key];
        let function = &mut self.functions[replica.function];
        match replica.state {
            ReplicaState::Conceived => {
                function.starting -= 1;
                self.restarts.clear(key);
                self.forget(now, key, effects);
            }
            ReplicaState::Starting => {
                function.starting -= 1;
                replica.state = ReplicaState::Suspended;
                effects.push(Effect::StopReplica { replica: key });
            }
            ReplicaState::Running => {
                function.withdraw(replica);
                replica.state = ReplicaState::Draining;
                self.stop_if_drained(key, effects);
            }
            ReplicaState::Draining | ReplicaState::Suspended => {}
        }
    }

    pub(super) fn stop_if_drained(&mut self, key: ReplicaKey, effects: &mut Vec<Effect>) {
        if let Some(replica) = self.replicas.get_mut(key)
            && replica.state == ReplicaState::Draining
            && replica.work.len() == 0
        {
            replica.state = ReplicaState::Suspended;
            effects.push(Effect::StopReplica { replica: key });
        }
    }

    pub(super) fn replica_ready(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(key) else { return };
        if replica.state != ReplicaState::Starting {
            return;
        }
        let function = &mut self.functions[replica.function];
        replica.state = ReplicaState::Running;
        function.starting -= 1;
        function.running += 1;
        let replaces = function.outdated > 0;
        let function = replica.function;
        self.enter_pool(now, key);
        self.note_ready(now, key);
        self.pump(now, function, effects);
        if replaces {
            self.reconcile(now, function, effects);
        }
        self.rest(now, key);
        self.measure(now, function);
    }

    /// Has a replica replaced: it goes on until another is ready.
    pub(super) fn replica_unfit(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replicas.get_mut(key) else { return };
        let owner = replica.function;
        match replica.state {
            // Nothing could be started in its place.
            ReplicaState::Running if replica.joined => return,
            ReplicaState::Running if !replica.outdated => {
                replica.outdated = true;
                self.functions[owner].outdated += 1;
            }
            ReplicaState::Conceived | ReplicaState::Starting => self.retire(now, key, effects),
            _ => return,
        }
        self.reconcile(now, owner, effects);
    }

    /// A replica takes no more requests, though nobody told it to stop; another is started in its place.
    pub(super) fn replica_leaving(
        &mut self,
        now: Time,
        key: ReplicaKey,
        effects: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get_mut(key) else { return };
        if replica.state != ReplicaState::Running {
            return;
        }
        let owner = replica.function;
        // One from elsewhere comes and goes as its own machine says: nothing is lost unless it breaks off.
        replica.leaving = true;
        if !replica.joined {
            self.functions[owner].count_loss(now, replica, Loss::Died);
        }
        self.retire(now, key, effects);
        self.reconcile(now, owner, effects);
        self.end_waiting_if_unavailable(now, owner, effects);
        self.pump(now, owner, effects);
        self.measure(now, owner);
    }

    pub(super) fn replica_lost(
        &mut self,
        now: Time,
        key: ReplicaKey,
        loss: Loss,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(owner) = self.withdraw_lost(now, key, loss) {
            self.give_up_lost(now, key, owner, effects);
        }
    }

    /// A replica is lost: nothing is given to it again. Returns its function.
    pub(super) fn withdraw_lost(
        &mut self,
        now: Time,
        key: ReplicaKey,
        loss: Loss,
    ) -> Option<FunctionKey> {
        let replica = self.replicas.get_mut(key)?;
        let owner = replica.function;
        let function = &mut self.functions[owner];
        match replica.state {
            ReplicaState::Conceived | ReplicaState::Starting => function.starting -= 1,
            ReplicaState::Running => function.withdraw(replica),
            ReplicaState::Draining | ReplicaState::Suspended => {}
        }
        if replica.state <= ReplicaState::Running || (replica.joined && replica.leaving) {
            function.count_loss(now, replica, loss);
        }
        replica.state = ReplicaState::Suspended;
        self.restarts.clear(key);
        Some(owner)
    }

    /// What a lost replica worked on is tried elsewhere, and another is started in its place.
    pub(super) fn give_up_lost(
        &mut self,
        now: Time,
        key: ReplicaKey,
        owner: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        self.release_work(now, key, effects);
        self.forget(now, key, effects);
        self.reconcile(now, owner, effects);
        self.end_waiting_if_unavailable(now, owner, effects);
        self.pump(now, owner, effects);
        self.measure(now, owner);
        self.drop_if_removed(owner, effects);
    }

    pub(super) fn replica_stopped(
        &mut self,
        now: Time,
        key: ReplicaKey,
        effects: &mut Vec<Effect>,
    ) {
        let Some(replica) = self.replicas.get(key) else { return };
        if replica.state != ReplicaState::Suspended {
            return self.replica_lost(now, key, Loss::Died, effects);
        }
        let function = replica.function;
        self.forget(now, key, effects);
        self.drop_if_removed(function, effects);
    }

    /// Retries or ends what a lost replica worked on.
    fn release_work(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        while let Some(request) = self.replicas[key].work.first() {
            self.replicas[key].work.remove(&mut self.requests, request);
            if matches!(self.requests[request].state, RequestState::Abandoned(_)) {
                self.forget_request(request);
            } else {
                self.retry_or_end(now, request, End::Lost, Duration::ZERO, effects);
            }
        }
    }

    fn forget(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        self.health.clear(key);
        self.idles.clear(key);
        if let Some(replica) = self.replicas.remove(key) {
            self.functions[replica.function].forget(key, replica.number);
            self.vacate(now, key, replica, effects);
        }
    }

    /// The end of a removed function: its last replica is gone.
    pub(super) fn drop_if_removed(&mut self, key: FunctionKey, effects: &mut Vec<Effect>) {
        let function = &self.functions[key];
        if function.phase == Phase::Removing && function.replicas.is_empty() {
            self.scalings.clear(key);
            self.comparisons.clear(key);
            self.prewarms.clear(key);
            self.functions.remove(key);
            effects.push(Effect::Removed { function: key });
        }
    }
}

/// How long is waited before a replica is started in place of one that failed, after so many failures in a row.
pub(super) fn restart_pause(failures: u32) -> Duration {
    let pause = RESTART_PAUSE * 2u32.pow(failures.saturating_sub(1).min(10));
    pause.min(RESTART_PAUSE_MAX)
}

impl Function {
    /// Replicas of its own that should be starting or running: one more than wanted while some are outdated, so that none
    /// goes before another is ready in its place.
    pub(super) fn target(&self) -> u32 {
        self.desired + u32::from(self.outdated > 0 && self.desired > 0)
    }

    /// A replica is gone. The list is in the order of the numbers.
    fn forget(&mut self, key: ReplicaKey, number: u64) {
        self.replicas.retain(|&other| other != key);
        self.unplaced.remove(number);
    }

    /// Counts a replica that goes without being told to. One that did no good is a failure to start.
    fn count_loss(&mut self, now: Time, replica: &Replica, loss: Loss) {
        self.totals.replicas_lost += 1;
        let proven = replica.answered || replica.ready.is_some_and(|at| now - at >= PROVEN_AFTER);
        if !replica.joined {
            let good = proven && loss == Loss::Died;
            self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        }
    }

    /// A running replica takes no more requests.
    fn withdraw(&mut self, replica: &mut Replica) {
        self.running -= 1;
        self.joined -= u32::from(replica.joined);
        self.outdated -= u32::from(replica.outdated);
        self.unfit -= u32::from(replica.condition != Condition::Healthy);
        replica.condition = Condition::Healthy;
        self.in_service -= replica.work.len() as u32;
        if let Some(position) = replica.position.take() {
            self.pool.leave(position);
            self.balancer.left(position);
        }
    }
}
