//! How an attempt of a request ends, and whether there is another.

use std::time::Duration;

use gatewright_determinism::{Purpose, Stream, Time};
use slotmap::SlotMap;

use super::{
    Effect, End, Event, Function, Outcome, Phase, Replica, ReplicaKey, ReplicaState, Request,
    RequestKey, RequestState, Shed, System,
};

/// Weight of the newest attempt in the average of service times.
const SERVICE_WEIGHT: f64 = 0.1;
/// Longest pause before a retry.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl System {
    /// A replica is done with a request: [`Event::Finished`].
    pub fn finish(
        &mut self,
        now: Time,
        key: RequestKey,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        self.now = now;
        let Some(request) = self.requests.get(key) else { return };
        let (owner, started) = (request.function, request.started);
        let (member, abandoned) = match request.state {
            RequestState::Queued | RequestState::Pausing => return,
            RequestState::Running(replica) => (replica, false),
            RequestState::Abandoned(replica) => (replica, true),
        };
        if outcome == Outcome::Returned {
            return self.give_back(now, key, member, effects);
        }
        let (function, replica) = (&mut self.functions[owner], &mut self.replicas[member]);
        function.free_slot(replica, &mut self.requests, key);
        function.leave_room(replica, started);
        if outcome != Outcome::NotStarted {
            replica.answered = true;
            function.answered_in(now.nanos_since(started) as f64);
        }
        let drains = replica.state == ReplicaState::Draining;
        if !abandoned && function.learn(replica, now, started, outcome) {
            self.judge(now, member, started, outcome, effects);
        }
        let end = match outcome {
            Outcome::Ok | Outcome::Busy => Some(End::Ok),
            Outcome::Error | Outcome::Unavailable => Some(End::Error),
            Outcome::NotStarted | Outcome::Again { .. } | Outcome::Returned => None,
        };
        if !abandoned && end.is_none() {
            let pause = match outcome {
                Outcome::Again { after, .. } => after.unwrap_or_default(),
                _ => Duration::ZERO,
            };
            self.requests[key].avoid = Some(member);
            self.retry_or_end(now, key, End::Error, pause, effects);
        } else if let Some(request) = self.forget_request(key)
            && let Some(end) = end.filter(|_| !abandoned)
        {
            effects.push(Effect::Ended { request: key, tag: request.tag, end });
            self.functions[owner].totals.count(end);
        }
        let function = &self.functions[owner];
        let (rests, scales) = (function.rest.is_some(), function.autoscaler.is_some());
        if function.queue.len() > 0 || function.deployment.batch.is_some() {
            self.pump(now, owner, effects);
        }
        if rests {
            self.rest(now, member);
        }
        if scales {
            self.measure(now, owner);
        }
        if drains {
            self.stop_if_drained(member, effects);
        }
    }

    /// A replica that is going has not begun a request: it waits again, in its old place.
    fn give_back(
        &mut self,
        now: Time,
        key: RequestKey,
        replica: ReplicaKey,
        effects: &mut Vec<Effect>,
    ) {
        let request = &mut self.requests[key];
        let owner = request.function;
        let waits = request.state == RequestState::Running(replica);
        request.returned += 1;
        // Before the request waits again: it is not to come back to the same one.
        self.replica_leaving(now, replica, effects);
        let (function, member) = (&mut self.functions[owner], &mut self.replicas[replica]);
        function.free_slot(member, &mut self.requests, key);
        if !waits {
            self.forget_request(key);
        } else if function.phase == Phase::Removing {
            self.end(key, End::Shed(Shed::Removed), effects);
        } else {
            self.queue_again(key);
        }
        self.end_waiting_if_unavailable(now, owner, effects);
        self.pump(now, owner, effects);
        self.measure(now, owner);
        self.stop_if_drained(replica, effects);
    }

    /// Reports [`Outcome::Again`] if another attempt will then be made, and does nothing if not: who has an answer
    /// that is better than none asks before it throws it away. Whether there will be one.
    pub fn try_again(
        &mut self,
        now: Time,
        key: RequestKey,
        after: Option<Duration>,
        busy: bool,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(request) = self.requests.get(key) else { return false };
        let RequestState::Running(_) = request.state else { return false };
        let function = &self.functions[request.function];
        let will = request.attempts - request.returned < function.deployment.retries.attempts
            && function.phase != Phase::Removing
            && now + after.unwrap_or_default() < request.deadline
            && function.budget.clone().withdraw(now);
        if will {
            self.handle(
                now,
                Event::Finished { request: key, outcome: Outcome::Again { after, busy } },
                effects,
            );
        }
        will
    }

    /// An attempt came to nothing: the request waits for another one if it may, for `pause` at least, else it ends
    /// as `end`. It is in no queue and holds no slot.
    pub(super) fn retry_or_end(
        &mut self,
        now: Time,
        key: RequestKey,
        end: End,
        pause: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let request = &mut self.requests[key];
        let function = &mut self.functions[request.function];
        let retries = function.deployment.retries;
        let may_retry = request.attempts - request.returned < retries.attempts
            && function.phase != Phase::Removing
            && !function.is_down()
            && now + pause < request.deadline
            && function.budget.withdraw(now);
        if !may_retry {
            return self.end(key, end, effects);
        }
        function.totals.retries += 1;
        let doublings = request.attempts.saturating_sub(2).min(20);
        let asked = pause;
        let pause = retries.backoff.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        if asked.is_zero() && (request.attempts == 1 || pause.is_zero()) {
            return self.queue_again(key);
        }
        let id = request.id ^ u64::from(request.attempts) << 48;
        let share = 0.5 + Stream::new(self.seed, Purpose::Jitter, id).unit() / 2.0;
        request.state = RequestState::Pausing;
        let due = request.deadline.min(now + pause.mul_f64(share).max(asked));
        self.deadlines.set(&mut self.requests, key, due);
    }

    pub(super) fn queue_again(&mut self, key: RequestKey) {
        let request = &mut self.requests[key];
        request.state = RequestState::Queued;
        let (deadline, owner) = (request.deadline, request.function);
        self.deadlines.set(&mut self.requests, key, deadline);
        self.functions[owner].queue.push_by_arrival(&mut self.requests, key);
    }
}

impl Function {
    /// A replica no longer works on a request.
    #[inline(always)]
    fn free_slot(
        &mut self,
        replica: &mut Replica,
        requests: &mut SlotMap<RequestKey, Request>,
        key: RequestKey,
    ) {
        replica.work.remove(requests, key);
        if replica.state == ReplicaState::Running
            && let Some(position) = replica.position
        {
            self.in_service -= 1;
            if self.deployment.batch.is_none() || replica.work.len() == 0 {
                self.pool.finish(position);
            }
        }
    }

    /// An attempt took so many nanoseconds.
    fn answered_in(&mut self, service: f64) {
        self.failures = 0;
        let known = if self.service > 0.0 { self.service } else { service };
        self.service = known + SERVICE_WEIGHT * (service - known);
    }
}
