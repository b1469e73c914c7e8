use std::sync::Arc;

use gatewright_control as control;
use gatewright_control::{End, Invoke, Outcome, ReplicaKey, RequestKey, Shed, URGENCY_DEFAULT};
use gatewright_determinism::{Purpose, Stream, Time};
use gatewright_record::{Invocation, Outline, Status};

use super::FleetSetup;
use super::engine::Engine;
use super::event::{Event, Turn};
use super::flights::{Attempt, Done, Flight, FlightId, NONE, Role, WorkId};
use super::language;
use super::policies::{Call, place_of};

/// Why requests end otherwise than well: the words of each end that there was, made once.
#[derive(Default)]
pub(super) struct Reasons(Vec<(End, Arc<str>)>);

/// A stream that is answered in no time asks again after this many nanoseconds: a closed loop of immediate
/// answers would stand still in time otherwise.
const LEAST_TURN: u64 = 10_000;

impl Reasons {
    fn of(&mut self, end: End) -> Option<&Arc<str>> {
        let words = end.reason()?;
        let known = self.0.iter().position(|(known, _)| *known == end);
        let place = known.unwrap_or_else(|| {
            self.0.push((end, words.into()));
            self.0.len() - 1
        });
        Some(&self.0[place].1)
    }
}

impl Engine<'_> {
    /// A demand sends its next request now.
    pub(super) fn offer(&mut self, demand: u32, turn: Turn) {
        let setup = &self.setup.demands[demand as usize];
        let function = &self.setup.functions[setup.function];
        let run = &mut self.demands[demand as usize];
        run.look_up(&setup.arrival, turn);
        let told = run.told;
        // The n-th request of a demand has the same number, and so the same luck, whatever the others do.
        let id = run.offered * self.setup.demands.len() as u64 + u64::from(demand);
        run.offered += 1;
        self.offered += 1;
        self.open.up(self.now);

        let (mut received, mut admitted) = (self.now, self.now);
        if !function.overhead.is_zero() || !function.gateway.is_zero() {
            let mut luck = Stream::new(self.seed, Purpose::Jitter, id);
            received = self.now.plus_nanos(function.overhead.draw(&mut luck));
            admitted = received.plus_nanos(function.gateway.draw(&mut luck));
        }
        let key = setup
            .cache
            .as_ref()
            .map_or(0, |(_, keys)| keys.draw(&mut Stream::new(self.seed, Purpose::Content, id)));
        // Long before it is needed: what is due then is compared with what is due, which would wait for it.
        let plain = self.functions[setup.function].plain;
        let recorded = setup.as_recorded && told.span > 0;
        let span = match told.span {
            told if recorded => told,
            _ if plain => function.laws[0].service.draw(&mut self.service_luck.of(id)),
            _ => 0,
        };
        let flight = self.flights.insert(Flight {
            id,
            span,
            recorded,
            demand,
            function: setup.function as u32,
            stage: 0,
            node: NONE,
            turn,
            key,
            sent: self.now,
            received,
            admitted,
            queued_out: None,
            started: None,
            replica: 0,
            attempts: 0,
            in_flight: 0,
            tokens: told.tokens,
            first_token: None,
            code: 0,
            cold: false,
            waiting: false,
            role: Role::Plain,
            next_waiter: NONE,
            request: RequestKey::default(),
            ended: false,
            work: None,
        });
        if admitted == self.now {
            self.admit(flight);
        } else {
            self.calendar.push(admitted, Event::Admit { flight });
        }
    }

    /// The gateway has read a request: its cache is asked, then the system.
    #[inline(always)]
    pub(super) fn admit(&mut self, id: FlightId) {
        let flight = self.flights.get_mut(id);
        match self.setup.demands[flight.demand as usize].cache {
            None => self.invoke(id),
            Some((cache, _)) => self.ask_cache(id, cache),
        }
    }

    #[inline(always)]
    pub(super) fn invoke(&mut self, id: FlightId) {
        self.wait(id);
        let flight = self.flights.get_mut(id);
        let run = &self.functions[flight.function as usize];
        let key = match flight.key {
            0 => self.no_key,
            key => control::balance::hash(&key.to_le_bytes()),
        };
        let urgency = URGENCY_DEFAULT;
        let invoke =
            Invoke { function: run.key, id: flight.id, timeout: None, urgency, key, tag: id };
        let from = self.effects.len();
        flight.request = self.system.invoke(self.now, invoke, &mut self.effects);
        self.carry_out(from);
    }

    pub(super) fn dispatch(
        &mut self,
        id: FlightId,
        replica: ReplicaKey,
        attempt: u32,
        in_flight: u32,
        cold: bool,
        first_of_batch: bool,
    ) {
        let now = self.now;
        let (work, flight) = self.flights.begin_work(id);
        let index = flight.function as usize;
        let run = &mut self.functions[index];
        if flight.stage == 0 {
            let waited = attempt > 1 || flight.admitted != now;
            flight.queued_out = Some(if waited { now } else { flight.received });
            flight.started = Some(now);
            flight.first_token = None;
            flight.attempts = attempt;
            flight.in_flight = in_flight;
        }
        flight.cold = cold || (flight.cold && flight.stage > 0);
        (flight.waiting, flight.code) = (false, 0);
        run.queued.down(now);
        run.in_service.up(now);
        if let Some(sampling) = &mut self.sampling {
            sampling.load(now, replica, true);
        }
        if run.plain && attempt == 1 && flight.stage == 0 && self.sink.is_none() {
            let span = flight.span;
            flight.work = Some(Attempt::new(work, replica, attempt, now, span));
            self.occupy(replica, true);
            self.calendar.push(now.plus_nanos(span), Event::Finished { work });
        } else {
            self.begin_attempt(work, replica, attempt, in_flight, first_of_batch);
        }
    }

    /// A replica begins an attempt of which there is more to be said than how long it takes.
    #[inline(never)]
    fn begin_attempt(
        &mut self,
        work: WorkId,
        replica: ReplicaKey,
        attempt: u32,
        in_flight: u32,
        first_of_batch: bool,
    ) {
        let now = self.now;
        let flight = self.flights.get_mut(work.flight);
        let index = flight.function as usize;
        let (setup, run) = (&self.setup.functions[index], &mut self.functions[index]);
        if flight.stage == 0 && self.sink.is_some() {
            let view = self.system.replica(replica);
            flight.replica = view.map_or(0, |view| view.number);
            flight.node = view.and_then(|view| view.node).map_or(NONE, |node| node.index() as u32);
        }
        let mut luck = self.service_luck.of(flight.id);
        if attempt > 1 || flight.stage > 0 {
            let nth = u64::from(attempt) + (u64::from(flight.stage) << 32);
            luck = Stream::new(luck.bits(), Purpose::Service, nth);
        }
        let laws = if setup.laws.len() == 1 { 0 } else { self.sites[replica].laws };
        // A batch is answered as a whole, after the time that its first request drew.
        if first_of_batch || setup.deployment.batch.is_none() {
            self.batch_span = match &mut run.model {
                None if flight.recorded && flight.stage == 0 => flight.span,
                None => setup.laws[laws].service.draw(&mut luck),
                Some(model) => {
                    let (request, cold) = (flight.id, flight.cold);
                    let (replica, node) = place_of(&self.system, replica);
                    let call = Call { now, request, attempt, replica, in_flight, cold, node };
                    model.service(&call, &mut luck)
                }
            };
            if !setup.fork.is_zero() {
                self.batch_span = self.batch_span.saturating_add(setup.fork.draw(&mut luck));
            }
        }
        let span = self.batch_span;
        flight.work = Some(Attempt::new(work, replica, attempt, now, span));
        self.occupy(replica, true);
        let may_fail = setup.faults.is_some() || !setup.outages.is_empty();
        if may_fail && self.fails(work) {
            return;
        }
        if setup.deep {
            self.step(work);
        } else {
            self.calendar.push(now.plus_nanos(span), Event::Finished { work });
        }
    }

    /// A replica is done, whether or not somebody still waits for the answer.
    pub(super) fn finished(&mut self, work: WorkId) {
        // The replica may have been killed at this work, and the request may be at its next attempt.
        let Some(done) = self.end_work(work) else { return };
        let Done { request, function, ended, attempt } = done;
        self.occupy(attempt.replica, false);
        let errors = self.setup.functions[function].errors;
        let outcome = match attempt.fault {
            Some(fault) => self.outcome_of(function, fault),
            None if errors > 0.0 && !ended => {
                let errs = self.fault_luck(work.flight, attempt.number).unit() < errors;
                if errs { Outcome::Error } else { Outcome::Ok }
            }
            None => Outcome::Ok,
        };
        if outcome == Outcome::Ok {
            self.conclude(request, outcome);
        } else {
            self.attempt_failed(request, (!ended).then_some(work.flight), outcome);
        }
    }

    /// The system is told how an attempt has ended.
    fn conclude(&mut self, request: RequestKey, outcome: Outcome) {
        let from = self.effects.len();
        self.system.finish(self.now, request, outcome, &mut self.effects);
        self.carry_out(from);
    }

    /// An attempt did not end well. An answer that says to come again is the client's unless another attempt will be
    /// made, as it is where the system is served.
    #[inline(never)]
    fn attempt_failed(
        &mut self,
        request: RequestKey,
        flight: Option<FlightId>,
        mut outcome: Outcome,
    ) {
        if let Outcome::Again { after, busy } = outcome {
            let from = self.effects.len();
            if self.system.try_again(self.now, request, after, busy, &mut self.effects) {
                flight.into_iter().for_each(|flight| self.wait(flight));
                return self.carry_out(from);
            }
            outcome = if busy { Outcome::Busy } else { Outcome::Unavailable };
        }
        if let Some(flight) = flight {
            self.flights.get_mut(flight).code = code_of(outcome);
            if outcome == Outcome::NotStarted {
                // Until it is handed over again, or has ended.
                self.wait(flight);
            }
        }
        self.conclude(request, outcome);
    }

    /// A request waits for a replica, at first or again.
    pub(super) fn wait(&mut self, id: FlightId) {
        let flight = self.flights.get_mut(id);
        flight.waiting = true;
        self.functions[flight.function as usize].queued.up(self.now);
    }

    /// The system has ended a request.
    pub(super) fn request_ended(&mut self, id: FlightId, end: End) {
        let flight = self.flights.get_mut(id);
        if flight.waiting {
            self.functions[flight.function as usize].queued.down(self.now);
        }
        if let (End::Ok, Some(next)) = (end, self.setup.functions[flight.function as usize].then) {
            flight.function = next as u32;
            flight.stage += 1;
            self.follow_ups.push(id);
        } else if matches!(flight.role, Role::Fetch | Role::Refresh) {
            self.fetch_ended(id, end);
        } else {
            self.complete(id, end);
        }
    }

    /// The client has its answer, or knows that there will be none.
    #[inline(always)]
    pub(super) fn complete(&mut self, id: FlightId, end: End) {
        let flight = self.flights.end(id);
        let (index, turn, sent) = (flight.demand, flight.turn, flight.sent);
        let demand = &mut self.demands[index as usize];
        self.open.down(self.now);
        self.sojourns += u128::from(self.now.nanos_since(sent));
        self.ended += 1;
        let counts = sent >= self.setup.warm_up;
        let recorded = self.sink.is_some() || demand.tokens.is_some();
        match flight.queued_out {
            Some(queued_out) if end == End::Ok && counts && !recorded && flight.is_plain() => {
                let waited = queued_out.nanos_since(flight.received);
                demand.summary.count_plain(sent, self.now, waited);
            }
            _ => self.write_down(id, end),
        }
        let demand = &self.demands[index as usize];
        if !demand.timed || demand.sessions.is_some() {
            self.ask_again(index, turn, sent);
        }
    }

    /// Counts a request that has ended, and writes its record, if records are written.
    #[inline(never)]
    fn write_down(&mut self, id: FlightId, end: End) {
        let flight = self.flights.get_mut(id);
        let demand = &mut self.demands[flight.demand as usize];
        let (status, code) = said(end, flight.code);
        demand.failed += u64::from(status != Status::Ok);
        let outline = Outline {
            scheduled: demand.timed.then_some(flight.sent),
            sent: Some(flight.sent),
            received: Some(flight.received),
            queued_out: flight.queued_out,
            finished: Some(self.now),
            attempts: flight.attempts,
            status,
            code: (code > 0).then_some(code),
            reason: self.reasons.of(end),
            cache: flight.role.result(),
            cold: flight.cold,
            ..Outline::default()
        };
        let counts = flight.sent >= self.setup.warm_up;
        if counts {
            demand.summary.count_punctual(&outline);
        }
        if self.sink.is_some() || demand.tokens.is_some() {
            note(&mut demand.record, flight, outline, self.setup.fleet.as_ref());
            if let (true, Some(tokens)) = (counts, &mut demand.tokens) {
                language::note(tokens, &demand.record);
            }
        }
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.invocation(&demand.record)
        {
            self.failure = Some(error.into());
        }
    }

    /// Whoever had the answer to this, sent then, may have another question.
    fn ask_again(&mut self, demand: u32, turn: Turn, sent: Time) {
        let number = turn.number + 1;
        let at = match &self.demands[demand as usize].sessions {
            None => Some((self.now, Event::Ask { demand })),
            Some(sessions) => {
                let session = turn.session;
                let turn = Event::Turn { demand, turn: Turn { session, number } };
                let next = sessions.next_turn(u64::from(session), u64::from(number - 1), self.now);
                next.map(|at| (at, turn))
            }
        };
        if let Some((at, event)) = at {
            self.sources += 1;
            self.calendar.push(at.max(sent.plus_nanos(LEAST_TURN)), event);
        }
    }
}

/// Writes down what became of a request, over the one before.
fn note(
    record: &mut Invocation,
    flight: &Flight,
    outline: Outline<'_>,
    fleet: Option<&FleetSetup>,
) {
    record.scheduled = outline.scheduled;
    record.sent = outline.sent;
    record.received = outline.received;
    record.queued_out = outline.queued_out;
    record.started = flight.started;
    record.first_byte = flight.first_token;
    record.finished = outline.finished;
    record.attempts = outline.attempts;
    record.status = outline.status;
    record.code = outline.code;
    record.reason = outline.reason.cloned();
    record.cold = outline.cold;
    record.cache = outline.cache;
    [record.tokens_in, record.tokens_out] =
        flight.tokens.map(|tokens| (tokens > 0).then_some(tokens));
    let handed = flight.started.is_some();
    record.id = flight.id;
    record.replica = handed.then_some(flight.replica);
    record.in_flight = handed.then_some(flight.in_flight);
    let fleet = fleet.filter(|_| flight.node != NONE);
    record.node = fleet.map(|fleet| Arc::clone(&fleet.nodes[flight.node as usize]));
    record.cache_key = (flight.role != Role::Plain).then_some(u64::from(flight.key));
}

/// The code of an answer to an attempt; 0 if that is not said here.
const fn code_of(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Ok | Outcome::Returned => 0,
        Outcome::Busy => 429,
        Outcome::Error => 500,
        Outcome::NotStarted => 502,
        Outcome::Unavailable | Outcome::Again { .. } => 503,
    }
}

/// What a client is told of its request's end: the status, and the code that a gateway gives; 0 if nobody is told.
const fn said(end: End, answered: u16) -> (Status, u16) {
    match end {
        End::Ok => (Status::Ok, if answered == 0 { 200 } else { answered }),
        End::Error => (Status::Error, answered),
        End::TimedOut => (Status::Timeout, 504),
        End::Cancelled => (Status::Cancelled, 0),
        End::Shed(Shed::QueueFull) => (Status::Shed, 429),
        End::Shed(Shed::Removed) => (Status::Shed, 404),
        End::Shed(Shed::Unavailable) => (Status::Shed, 503),
        End::Lost => (Status::Lost, 502),
    }
}
