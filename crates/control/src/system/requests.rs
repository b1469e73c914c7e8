//! What happens to a request: admission, dispatch, the end.

use gatewright_determinism::{Purpose, Stream, Time};

use super::{
    Effect, End, FunctionKey, Invoke, Outcome, Phase, ReplicaKey, ReplicaState, Request,
    RequestKey, RequestState, Shed, System,
};
use crate::queue::Links;

/// Replicas that fail in a row, none running, before requests are refused at once instead of waiting for them.
const FAILURES_UNTIL_UNAVAILABLE: u32 = 3;

impl System {
    /// Takes a request: it is dispatched, queued, or shed. One `Ended` with the returned key will follow, now or
    /// later.
    pub fn invoke(&mut self, now: Time, invoke: Invoke, effects: &mut Vec<Effect>) -> RequestKey {
        self.arrivals += 1;
        let request = self.requests.insert(Request {
            function: invoke.function,
            id: invoke.id,
            arrival: self.arrivals,
            attempts: 0,
            cold: false,
            state: RequestState::Queued,
            links: Links::default(),
        });
        match self.admit(now, request, invoke, effects) {
            Ok(()) => {}
            Err(shed) => {
                if let Some(function) = self.functions.get_mut(invoke.function) {
                    function.totals.count(End::Shed(shed));
                }
                self.requests.remove(request);
                effects.push(Effect::Ended { request, end: End::Shed(shed) });
            }
        }
        request
    }

    fn admit(
        &mut self,
        now: Time,
        request: RequestKey,
        invoke: Invoke,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Shed> {
        let function = self.functions.get_mut(invoke.function).ok_or(Shed::Removed)?;
        function.totals.arrived += 1;
        function.arrivals += 1;
        if function.phase == Phase::Removing {
            return Err(Shed::Removed);
        }
        if function.running == 0 && function.failures >= FAILURES_UNTIL_UNAVAILABLE {
            return Err(Shed::Unavailable);
        }
        let has_slot = !function.pool.available().is_empty();
        if !has_slot && function.queue.len() >= function.deployment.queue_capacity {
            return Err(Shed::QueueFull);
        }

        function.budget.deposit(now);
        let timeout = function.deployment.timeout;
        let timeout = invoke.timeout.map_or(timeout, |shorter| shorter.min(timeout));
        self.deadlines.set(request, now + timeout);
        self.requests[request].cold = function.running == 0;
        if has_slot {
            self.dispatch(request, effects);
        } else {
            function.queue.push(&mut self.requests, request);
            self.wake_from_zero(now, invoke.function, effects);
        }
        self.measure(now, invoke.function);
        Ok(())
    }

    /// Gives a request that is in no queue to a replica; its function must have a free slot.
    fn dispatch(&mut self, key: RequestKey, effects: &mut Vec<Effect>) {
        let request = &mut self.requests[key];
        let function = &mut self.functions[request.function];
        let mut luck = Stream::new(self.seed, Purpose::Balance, request.id);
        let position = function
            .balancer
            .pick(&function.pool, &mut luck)
            .expect("the pool has a free slot, and a balancer finds it");
        let replica = function.pool.replica(position);
        let in_flight = function.pool.begin(position);
        request.attempts += 1;
        request.state = RequestState::Running(replica);
        let (attempt, cold) = (request.attempts, request.cold);
        self.replicas[replica].work.push(&mut self.requests, key);
        effects.push(Effect::Dispatch { request: key, replica, attempt, in_flight, cold });
    }

    /// Dispatches what waits as long as there are free slots, and sees to it that some will come.
    pub(super) fn pump(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        while let Some(function) = self.functions.get(key)
            && !function.pool.available().is_empty()
            && let Some(request) = function.queue.first()
        {
            self.functions[key].queue.remove(&mut self.requests, request);
            self.dispatch(request, effects);
        }
        if self.functions.get(key).is_some_and(|function| function.queue.len() > 0) {
            self.wake_from_zero(now, key, effects);
        }
    }

    pub(super) fn finish(
        &mut self,
        now: Time,
        key: RequestKey,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(request) = self.requests.get(key) else { return };
        let function = request.function;
        let (replica, abandoned) = match request.state {
            RequestState::Queued => return,
            RequestState::Running(replica) => (replica, false),
            RequestState::Abandoned(replica) => (replica, true),
        };
        self.free_slot(replica, key);
        if outcome != Outcome::NotStarted {
            self.replicas[replica].answered = true;
            self.functions[function].failures = 0;
        }
        match outcome {
            _ if abandoned => {
                self.requests.remove(key);
            }
            Outcome::Ok => self.end(key, End::Ok, effects),
            Outcome::Error => self.end(key, End::Error, effects),
            Outcome::NotStarted => self.retry_or_end(now, key, End::Error, effects),
        }
        self.pump(now, function, effects);
        self.measure(now, function);
        self.stop_if_drained(replica, effects);
    }

    /// A request is given up by its client or its deadline; a replica that works on it is told.
    pub(super) fn give_up(
        &mut self,
        now: Time,
        key: RequestKey,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        let Some(request) = self.requests.get_mut(key) else { return };
        let function = request.function;
        match request.state {
            RequestState::Queued => {
                self.functions[function].queue.remove(&mut self.requests, key);
                self.end(key, end, effects);
            }
            RequestState::Running(replica) => {
                request.state = RequestState::Abandoned(replica);
                self.deadlines.clear(key);
                self.functions[function].totals.count(end);
                effects.push(Effect::Abandon { request: key, replica });
                effects.push(Effect::Ended { request: key, end });
            }
            RequestState::Abandoned(_) => return,
        }
        self.measure(now, function);
    }

    /// An attempt came to nothing: the request waits for another one if it may, else it ends as `end`. It is in
    /// no queue and holds no slot.
    pub(super) fn retry_or_end(
        &mut self,
        now: Time,
        key: RequestKey,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        let request = &mut self.requests[key];
        let function = &mut self.functions[request.function];
        let may_retry = request.attempts < function.deployment.retries.attempts
            && function.phase != Phase::Removing
            && function.budget.withdraw(now);
        if !may_retry {
            return self.end(key, end, effects);
        }
        request.state = RequestState::Queued;
        function.totals.retries += 1;
        function.queue.push_by_arrival(&mut self.requests, key);
    }

    /// Ends a request that is in no queue and holds no slot.
    pub(super) fn end(&mut self, key: RequestKey, end: End, effects: &mut Vec<Effect>) {
        self.deadlines.clear(key);
        if let Some(request) = self.requests.remove(key) {
            self.functions[request.function].totals.count(end);
            effects.push(Effect::Ended { request: key, end });
        }
    }

    /// Ends everything that waits for a function.
    pub(super) fn end_queued(
        &mut self,
        now: Time,
        key: FunctionKey,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        while let Some(request) = self.functions[key].queue.first() {
            self.functions[key].queue.remove(&mut self.requests, request);
            self.end(request, end, effects);
        }
        self.measure(now, key);
    }

    /// Refuses what waits once replicas have failed too often.
    pub(super) fn end_queued_if_unavailable(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        let function = &self.functions[key];
        if function.running == 0 && function.failures >= FAILURES_UNTIL_UNAVAILABLE {
            self.end_queued(now, key, End::Shed(Shed::Unavailable), effects);
        }
    }

    fn free_slot(&mut self, key: ReplicaKey, request: RequestKey) {
        let replica = &mut self.replicas[key];
        replica.work.remove(&mut self.requests, request);
        if replica.state == ReplicaState::Running
            && let Some(position) = replica.position
        {
            self.functions[replica.function].pool.finish(position);
        }
    }

    /// Notes how many requests the function has, for its autoscaler.
    pub(super) fn measure(&mut self, now: Time, key: FunctionKey) {
        if let Some(function) = self.functions.get_mut(key)
            && function.autoscaler.is_some()
        {
            let level = function.pool.in_flight() + function.queue.len() as u64;
            function.concurrency.set(now, u32::try_from(level).unwrap_or(u32::MAX));
        }
    }
}
