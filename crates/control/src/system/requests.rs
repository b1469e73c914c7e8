//! What happens to a request: admission, dispatch, the end.

use gatewright_determinism::{Streams, Time};

use slotmap::SlotMap;

use super::{
    Effect, End, Function, FunctionKey, Invoke, Loss, Outcome, Phase, Replica, ReplicaKey, Request,
    RequestKey, RequestState, Shed, System,
};
use crate::balance::{Asks, Position};
use crate::queue::{Links, URGENCIES};
use crate::timers::Place;

/// Replicas that fail in a row, none running, before requests are refused at once instead of waiting for them.
const FAILURES_UNTIL_UNAVAILABLE: u32 = 3;

/// A request that is taken.
#[derive(Clone, Copy)]
struct Admitted {
    deadline: Time,
    /// Whether no replica runs.
    cold: bool,
    /// Whether it goes to a replica without waiting, alone.
    at_once: bool,
    /// Whether an autoscaler is to learn of it.
    scales: bool,
}

impl System {
    /// Takes a request: it is dispatched, queued, or shed. One `Ended` with the returned key will follow, now or
    /// later.
    pub fn invoke(&mut self, now: Time, invoke: Invoke, effects: &mut Vec<Effect>) -> RequestKey {
        self.now = now;
        self.arrivals += 1;
        let owner = invoke.function;
        let admitted = self.admit(now, &invoke);
        let (deadline, cold) =
            admitted.map_or((Time::MAX, false), |admitted| (admitted.deadline, admitted.cold));
        let at_end = self.deadlines.is_last(deadline);
        let deadlines = &mut self.deadlines;
        let request = self.requests.insert_with_key(|key| Request {
            function: owner,
            id: invoke.id,
            tag: invoke.tag,
            key: invoke.key,
            avoid: None,
            arrival: self.arrivals,
            arrived: now,
            urgency: usize::from(invoke.urgency).min(URGENCIES - 1),
            deadline,
            timer: if at_end { deadlines.enter_last(key, deadline) } else { Place::NONE },
            started: now,
            attempts: 0,
            returned: 0,
            cold,
            state: RequestState::Queued,
            links: Links::default(),
        });
        let Admitted { at_once, scales, .. } = match admitted {
            Ok(admitted) => admitted,
            Err(shed) => {
                self.end(request, End::Shed(shed), effects);
                return request;
            }
        };
        if at_end {
            self.deadlines.tidy(&self.requests);
        } else {
            self.deadlines.set(&mut self.requests, request, deadline);
        }
        if at_once {
            self.dispatch(now, owner, request, 1, false, effects);
        } else {
            self.functions[owner].queue.push(&mut self.requests, request);
            self.pump(now, owner, effects);
            self.scale_for_waiting(now, owner, effects);
        }
        if scales {
            self.measure(now, owner);
        }
        request
    }

    /// Whether a request is taken, and on what terms.
    fn admit(&mut self, now: Time, invoke: &Invoke) -> Result<Admitted, Shed> {
        let function = self.functions.get_mut(invoke.function).ok_or(Shed::Removed)?;
        function.totals.arrived += 1;
        function.arrivals += 1;
        if let Some(rest) = &mut function.rest {
            rest.arrived(now);
            self.prewarms.clear(invoke.function);
        }
        if function.phase == Phase::Removing {
            return Err(Shed::Removed);
        }
        let failing = function.running == 0 && function.failures >= FAILURES_UNTIL_UNAVAILABLE;
        if failing || function.is_down() {
            return Err(Shed::Unavailable);
        }
        // A free slot takes one request, or a batch; more than that must find room in the queue.
        let has_slot = !function.pool.available().is_empty();
        let taken = match function.deployment.batch {
            _ if !has_slot => 0,
            None => 1,
            Some(batch) => batch.max_size as usize,
        };
        let waiting = function.queue.len();
        if waiting >= function.deployment.queue_capacity.max(taken) {
            return Err(Shed::QueueFull);
        }
        function.budget.deposit(now);
        let timeout = function.deployment.timeout;
        let timeout = invoke.timeout.map_or(timeout, |shorter| shorter.min(timeout));
        Ok(Admitted {
            deadline: now + timeout,
            cold: function.running == 0,
            at_once: has_slot && waiting == 0 && function.deployment.batch.is_none(),
            scales: function.autoscaler.is_some(),
        })
    }

    /// Dispatches what waits as long as there are free slots, and sees to it that some will come.
    pub(super) fn pump(&mut self, now: Time, key: FunctionKey, effects: &mut Vec<Effect>) {
        while let Some(function) = self.functions.get(key)
            && !function.pool.available().is_empty()
            && let Some(first) = function.queue.first()
        {
            let size = match function.deployment.batch {
                None => 1,
                Some(batch) => {
                    let waiting = function.queue.len() as u32;
                    let due = self.requests[first].arrived + batch.max_wait;
                    if waiting < batch.max_size && now < due {
                        self.batches.set(key, due);
                        return;
                    }
                    waiting.min(batch.max_size)
                }
            };
            self.dispatch(now, key, first, size, true, effects);
        }
        let Some(function) = self.functions.get(key) else { return };
        let waits = function.queue.len() > 0;
        if function.deployment.batch.is_some() {
            self.batches.clear(key);
        }
        if waits {
            if function.autoscaler.is_some() && !self.scalings.is_set(key) {
                self.plan_scaling(now, key);
            }
            self.wake_from_zero(now, key, effects);
            self.end_waiting_if_down(now, key, effects);
        }
    }

    /// Gives a request, which is the first of its queue if it waits, and `size - 1` that wait behind it to a replica;
    /// there must be so many, and a free slot.
    fn dispatch(
        &mut self,
        now: Time,
        owner: FunctionKey,
        first: RequestKey,
        size: u32,
        waits: bool,
        effects: &mut Vec<Effect>,
    ) {
        let function = &mut self.functions[owner];
        let position = function.choose(now, self.luck, &self.requests[first], &self.replicas);
        let replica = function.pool.replica(position);
        let load = function.pool.begin(position);
        let in_flight = if function.deployment.batch.is_some() { size } else { load };
        let work = &mut self.replicas[replica].work;
        for batch_left in (0..size).rev() {
            let next = if waits { function.queue.pop(&mut self.requests) } else { Some(first) };
            let Some(key) = next else { break };
            function.in_service += 1;
            work.push(&mut self.requests, key);
            let request = &mut self.requests[key];
            request.attempts += 1;
            request.started = now;
            request.state = RequestState::Running(replica);
            if let Some(limit) = function.deployment.max_execution {
                let due = request.deadline.min(now + limit);
                self.deadlines.set(&mut self.requests, key, due);
            }
            let request = &self.requests[key];
            effects.push(Effect::Dispatch {
                request: key,
                tag: request.tag,
                replica,
                attempt: request.attempts,
                in_flight,
                cold: request.cold,
                batch_left,
            });
        }
        if function.rest.is_some() {
            self.idles.clear(replica);
        }
    }

    /// A request's timer has fired: its pause is over, its time is up, or its attempt hangs.
    pub(super) fn time_up(&mut self, now: Time, key: RequestKey, effects: &mut Vec<Effect>) {
        let request = &self.requests[key];
        let (function, tag) = (request.function, request.tag);
        match request.state {
            RequestState::Pausing if now < request.deadline => {
                self.queue_again(key);
                self.pump(now, function, effects);
                self.measure(now, function);
            }
            RequestState::Abandoned(replica) => self.kill(now, replica, effects),
            RequestState::Running(replica) if now < request.deadline => {
                self.functions[function].totals.count(End::TimedOut);
                effects.push(Effect::Ended { request: key, tag, end: End::TimedOut });
                self.requests[key].state = RequestState::Abandoned(replica);
                self.kill(now, replica, effects);
            }
            _ => self.give_up(now, key, End::TimedOut, effects),
        }
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
        let (owner, tag) = (request.function, request.tag);
        match request.state {
            RequestState::Queued => {
                self.functions[owner].queue.remove(&mut self.requests, key);
                self.end(key, end, effects);
            }
            RequestState::Pausing => self.end(key, end, effects),
            RequestState::Running(replica) => {
                request.state = RequestState::Abandoned(replica);
                let started = request.started;
                let function = &mut self.functions[owner];
                function.totals.count(end);
                let grace = function.deployment.cancel_grace.map_or(Time::MAX, |grace| now + grace);
                let limit = function.deployment.max_execution;
                let limit = limit.map_or(Time::MAX, |limit| started + limit);
                self.deadlines.set(&mut self.requests, key, grace.min(limit));
                effects.push(Effect::Abandon { request: key, tag, replica });
                effects.push(Effect::Ended { request: key, tag, end });
                if end == End::TimedOut {
                    let member = &mut self.replicas[replica];
                    if function.learn(member, now, started, Outcome::Unavailable) {
                        self.judge(now, replica, started, Outcome::Unavailable, effects);
                        // What was learned may make room, though this slot is not free.
                        self.pump(now, owner, effects);
                    }
                }
            }
            RequestState::Abandoned(_) => return,
        }
        self.measure(now, owner);
    }

    /// Ends a request that is in no queue and holds no slot.
    #[inline(always)]
    pub(super) fn end(&mut self, key: RequestKey, end: End, effects: &mut Vec<Effect>) {
        if let Some(request) = self.forget_request(key) {
            if let Some(function) = self.functions.get_mut(request.function) {
                function.totals.count(end);
            }
            effects.push(Effect::Ended { request: key, tag: request.tag, end });
        }
    }

    /// Nothing more is done about a request, which is in no queue and holds no slot.
    #[inline(always)]
    pub(super) fn forget_request(&mut self, key: RequestKey) -> Option<Request> {
        let request = self.requests.remove(key)?;
        self.deadlines.drop_at(&mut self.requests, request.timer);
        Some(request)
    }

    /// Ends everything that waits for a function, in the queue or for a retry.
    pub(super) fn end_waiting(
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
        let pausing =
            |request: &Request| request.function == key && request.state == RequestState::Pausing;
        let pausing: Vec<_> =
            self.requests.iter().filter(|(_, r)| pausing(r)).map(|(request, _)| request).collect();
        for request in pausing {
            self.end(request, end, effects);
        }
        self.batches.clear(key);
        self.measure(now, key);
    }

    /// Refuses what waits once replicas have failed too often.
    pub(super) fn end_waiting_if_unavailable(
        &mut self,
        now: Time,
        key: FunctionKey,
        effects: &mut Vec<Effect>,
    ) {
        let function = &self.functions[key];
        if function.running == 0 && function.failures >= FAILURES_UNTIL_UNAVAILABLE {
            self.end_waiting(now, key, End::Shed(Shed::Unavailable), effects);
        }
    }

    /// Ends a replica that does not let go of a request.
    fn kill(&mut self, now: Time, key: ReplicaKey, effects: &mut Vec<Effect>) {
        effects.push(Effect::KillReplica { replica: key });
        self.replica_lost(now, key, Loss::Died, effects);
    }

    /// Notes how many requests the function has, for its autoscaler.
    pub(super) fn measure(&mut self, now: Time, key: FunctionKey) {
        if let Some(function) = self.functions.get_mut(key)
            && function.autoscaler.is_some()
        {
            let waiting = u32::try_from(function.queue.len()).unwrap_or(u32::MAX);
            function.concurrency.set(now, function.in_service.saturating_add(waiting));
        }
    }
}

impl Function {
    /// The replica for a request; there must be a free slot. Where the last attempt failed is not chosen again if
    /// there is any other.
    fn choose(
        &mut self,
        now: Time,
        luck: Streams,
        request: &Request,
        replicas: &SlotMap<ReplicaKey, Replica>,
    ) -> Position {
        let attempt = u64::from(request.attempts) << 48;
        let mut luck = luck.of(request.id ^ attempt);
        let failed = request.avoid.and_then(|replica| replicas.get(replica)?.position);
        let failed = failed.filter(|_| self.pool.available().len() > 1);
        let limit = failed.map(|position| (position, self.pool.limit_of(position)));
        if let Some((position, _)) = limit {
            self.pool.set_limit(position, 0);
        }
        let asks = Asks { now, key: request.key };
        let position = self
            .balancer
            .pick(&self.pool, asks, &mut luck)
            .expect("the pool has a free slot, and a balancer finds it");
        if let Some((position, limit)) = limit {
            self.pool.set_limit(position, limit);
        }
        position
    }
}
