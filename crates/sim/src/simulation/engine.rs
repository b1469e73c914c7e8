use gatewright_control as control;
use gatewright_control::{Act, Effect, FunctionKey, ReplicaKey, System};
use gatewright_determinism::{Purpose, Streams, Time};
use gatewright_record::{Invocation, RunSummary, TokenSummary, World};
use gatewright_workload::trace::StreamedRequests;
use gatewright_workload::{Pacing, Schedule, SessionStarts, Sessions};
use slotmap::SecondaryMap;

use super::agenda::Agenda;
use super::event::{Event, Turn};
use super::faults::Down;
use super::flights::{Done, FlightId, Flights, WorkId};
use super::level::Level;
use super::played::{self, Told};
use super::policies::{Policies, ServiceModel};
use super::requests::Reasons;
use super::samples::Sampling;
use super::sites::{NodeRun, Site};
use super::store::Store;
use super::transfers::Moves;
use super::{Progress, RecordSink, Simulation, SimulationError, SimulationReport};

/// One run.
pub(super) struct Engine<'a> {
    pub(super) setup: &'a Simulation,
    pub(super) seed: u64,
    /// The luck of requests in their service.
    pub(super) service_luck: Streams,
    pub(super) now: Time,
    /// Whether the functions are deployed and the run goes on.
    pub(super) begun: bool,
    pub(super) system: System,
    pub(super) calendar: Agenda,
    pub(super) effects: Vec<Effect>,
    pub(super) flights: Flights,
    /// Service time of the batch that is being handed over, in nanoseconds.
    pub(super) batch_span: u64,
    pub(super) by_function: SecondaryMap<FunctionKey, usize>,
    pub(super) functions: Vec<FunctionRun>,
    pub(super) demands: Vec<DemandRun>,
    pub(super) stores: Vec<Store>,
    pub(super) reasons: Reasons,
    /// The hash of the key of requests without one.
    pub(super) no_key: u64,
    /// Requests between sending and answer.
    pub(super) open: Level,
    /// Sum of those times, in nanoseconds.
    pub(super) sojourns: u128,
    /// Requests that are still to be offered have an event each pending: so many.
    pub(super) sources: u64,
    pub(super) offered: u64,
    pub(super) ended: u64,
    pub(super) events: u64,
    pub(super) sink: Option<&'a mut dyn RecordSink>,
    pub(super) failure: Option<SimulationError>,
    /// Requests whose next function is to be called.
    pub(super) follow_ups: Vec<FlightId>,
    /// Where replicas are, of functions for which it matters.
    pub(super) sites: SecondaryMap<ReplicaKey, Site>,
    pub(super) nodes: Vec<NodeRun>,
    pub(super) moves: Moves,
    /// Whether the warm-up is over.
    warm: bool,
    pub(super) sampling: Option<Sampling>,
    /// Outages that last.
    pub(super) down: Vec<Down>,
}

/// What says when a demand's requests are due, or its sessions begin.
pub(super) enum Arrivals {
    Requests(Schedule),
    Trace(Box<StreamedRequests>),
    Sessions(SessionStarts),
}

pub(super) struct FunctionRun {
    pub(super) key: FunctionKey,
    /// Replicas that take requests.
    pub(super) running: Level,
    /// Replicas from start to stop.
    pub(super) allocated: Level,
    pub(super) in_service: Level,
    /// Sum of the times that requests were in service, in nanoseconds.
    pub(super) served: u128,
    pub(super) queued: Level,
    pub(super) scalings: u64,
    /// Whether an operation has removed it; its counts went with it.
    pub(super) removed: bool,
    /// Whether its requests have one service time by one law, and nothing else happens to them at a replica.
    pub(super) plain: bool,
    /// Says how long requests are served, in place of the law.
    pub(super) model: Option<Box<dyn ServiceModel>>,
}

pub(super) struct DemandRun {
    /// Absent in a closed loop.
    pub(super) arrivals: Option<Arrivals>,
    streams: u32,
    pub(super) sessions: Option<Sessions>,
    /// The session whose start is in the calendar.
    next_session: u32,
    /// What a trace tells of the next request.
    pub(super) told: Told,
    pub(super) offered: u64,
    pub(super) failed: u64,
    /// Requests offered, and failed, at most.
    most: [u64; 2],
    /// None is offered from then on.
    until: Time,
    /// Whether a limit other than the duration has ended it.
    pub(super) cut: bool,
    /// Whether its requests have moments of their own: it does not wait for answers before it asks again.
    pub(super) timed: bool,
    /// The next record, its names already in place.
    pub(super) record: Invocation,
    pub(super) summary: RunSummary,
    pub(super) tokens: Option<Box<TokenSummary>>,
}

/// Events between two reports of progress.
const PROGRESS_EVERY: u64 = 1 << 18;

impl Simulation {
    /// Runs the scenario in virtual time, until every request has ended.
    ///
    /// Memory does not grow with the number of requests: records go to `sink`, if there is one, and are summed
    /// up otherwise. `progress` is called now and then.
    ///
    /// # Errors
    /// The sink fails, or the run breaks a rule of the system (a fault in this program).
    pub fn run<'a>(
        &'a self,
        seed: u64,
        sink: Option<&'a mut dyn RecordSink>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<SimulationReport, SimulationError> {
        self.run_with(seed, Policies::default(), sink, progress)
    }
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        setup: &'a Simulation,
        seed: u64,
        sink: Option<&'a mut dyn RecordSink>,
    ) -> Self {
        let every = sink.as_ref().and_then(|sink| sink.sample_every());
        let every = every.and_then(|every| u64::try_from(every.as_nanos()).ok());
        Self {
            down: Vec::new(),
            warm: setup.warm_up == Time::ZERO,
            sampling: every.filter(|&every| every > 0).map(Sampling::new),
            setup,
            seed,
            service_luck: Streams::new(seed, Purpose::Service),
            now: Time::ZERO,
            begun: false,
            system: setup.system(seed),
            calendar: Agenda::new(),
            effects: Vec::new(),
            flights: Flights::default(),
            batch_span: 0,
            by_function: SecondaryMap::new(),
            functions: Vec::new(),
            demands: Vec::new(),
            stores: setup.caches.iter().map(Store::new).collect(),
            reasons: Reasons::default(),
            no_key: control::balance::hash(&0_u32.to_le_bytes()),
            open: Level::default(),
            sojourns: 0,
            sources: 0,
            offered: 0,
            ended: 0,
            events: 0,
            sink,
            failure: None,
            follow_ups: Vec::new(),
            sites: SecondaryMap::new(),
            nodes: setup.node_runs(),
            moves: setup.moves(),
        }
    }

    pub(super) fn open_demands(&mut self) {
        for (number, setup) in (0..).zip(&self.setup.demands) {
            let function = &self.setup.functions[setup.function].name;
            let streamed = played::requests(&setup.arrival, self.seed).transpose();
            let streamed = streamed.unwrap_or_else(|fault| {
                self.failure = Some(fault);
                None
            });
            let (arrivals, streams, sessions) = match setup.arrival.pacing(self.seed, number) {
                Pacing::Open(_) if let Some(requests) = streamed => {
                    (Some(Arrivals::Trace(Box::new(requests))), 0, None)
                }
                Pacing::Open(schedule) => (Some(Arrivals::Requests(schedule)), 0, None),
                Pacing::Closed { streams } => (None, streams, None),
                Pacing::Sessions(sessions) => {
                    (Some(Arrivals::Sessions(sessions.starts(0, 1))), 0, Some(sessions))
                }
            };
            let limits = setup.limits;
            self.demands.push(DemandRun {
                most: [limits.requests, limits.errors].map(|most| most.unwrap_or(u64::MAX)),
                until: limits.duration.map_or(Time::MAX, |span| Time::ZERO + span),
                timed: setup.arrival.is_open() || sessions.is_some(),
                arrivals,
                streams,
                sessions,
                next_session: 0,
                told: Told::default(),
                offered: 0,
                failed: 0,
                cut: false,
                record: Invocation {
                    world: World::Simulate,
                    function: function.clone(),
                    route: setup.route.clone(),
                    ..Invocation::default()
                },
                summary: RunSummary::new(),
                tokens: self.setup.functions[setup.function].llm.is_some().then(Box::default),
            });
        }
        for demand in 0..self.demands.len() as u32 {
            if self.demands[demand as usize].arrivals.is_some() {
                self.schedule_next(demand);
            }
            for _ in 0..self.demands[demand as usize].streams {
                self.sources += 1;
                self.calendar.push(Time::ZERO, Event::Ask { demand });
            }
        }
    }

    pub(super) fn run(&mut self, progress: &mut dyn FnMut(Progress)) {
        while (self.sources > 0 || self.open.value() > 0) && self.failure.is_none() {
            let wakeup = self.system.next_wakeup();
            // An answer at the very moment of a deadline is in time, so the calendar goes first.
            match (self.calendar.pop_until(wakeup.unwrap_or(Time::MAX)), wakeup) {
                (Some((due, event)), _) => {
                    self.advance(due);
                    match event {
                        Event::Due { demand } => self.due(demand),
                        Event::Finished { work } => self.finished(work),
                        event => self.happen(event),
                    }
                    while let Some(flight) = self.follow_ups.pop() {
                        self.invoke(flight);
                    }
                }
                (None, Some(wakeup)) => {
                    self.advance(wakeup);
                    self.tell(control::Event::Wakeup);
                }
                (None, None) => break,
            }
            self.events += 1;
            if cfg!(debug_assertions) && self.events.is_multiple_of(1 << 14) {
                self.system.check_invariants().expect("the rules hold after every event");
            }
            if self.events.is_multiple_of(PROGRESS_EVERY) {
                progress(self.progress());
            }
        }
        progress(self.progress());
    }

    #[inline(always)]
    fn advance(&mut self, now: Time) {
        self.now = now;
        if !self.warm && now >= self.setup.warm_up {
            self.end_warm_up();
        }
    }

    /// Averages over time begin at the end of the warm-up, which has just passed: nothing has changed since.
    #[cold]
    fn end_warm_up(&mut self) {
        self.warm = true;
        let at = self.setup.warm_up;
        for run in &mut self.functions {
            for level in
                [&mut run.running, &mut run.allocated, &mut run.in_service, &mut run.queued]
            {
                level.begin(at);
            }
        }
        self.nodes.iter_mut().for_each(|node| node.begin(at));
    }

    /// The next request of a demand is due, or its next session begins.
    #[inline]
    fn due(&mut self, demand: u32) {
        self.sources -= 1;
        if self.may_offer(demand, self.now) {
            let session = self.demands[demand as usize].next_session;
            self.offer(demand, Turn { session, number: 0 });
            self.schedule_next(demand);
        }
    }

    #[inline(never)]
    fn happen(&mut self, event: Event) {
        match event {
            Event::Due { demand } => self.due(demand),
            Event::Ask { demand } => {
                self.sources -= 1;
                if self.may_offer(demand, self.now) {
                    self.offer(demand, Turn::default());
                }
            }
            Event::Turn { demand, turn } => {
                self.sources -= 1;
                if self.may_offer(demand, self.now) {
                    self.offer(demand, turn);
                }
            }
            Event::Admit { flight } => self.admit(flight),
            Event::Answer { flight } => self.answer_from_cache(flight),
            Event::Finished { work } => self.finished(work),
            Event::Ready { replica } => self.ready(replica),
            Event::StartFailed { replica } => self.start_failed(replica),
            Event::Stopped { replica } => self.stopped(replica),
            Event::Booted { replica } => self.set_up(replica),
            Event::Failed { replica } => self.failed(replica),
            Event::Served { work } => self.served(work),
            Event::Shared { replica, version } => self.shared(replica, version),
            Event::NodeShared { node, version } => self.node_shared(node, version),
            Event::Join { work } => self.join_batch(work),
            Event::Step { replica } => self.end_step(replica),
            Event::Connected { transfer } => self.connected(transfer),
            Event::Moved { transfer } => self.moved(transfer),
            Event::Flow(end) => self.flow_ended(end),
            Event::Operate { step } => self.operate(step),
            Event::Sample => self.sample(),
            Event::Outage { function, number, begins } => {
                self.outage(function as usize, number, begins);
            }
            Event::Probed { replica } => self.probed(replica),
        }
    }

    /// Enters the scenario's operations.
    pub(super) fn plan(&mut self) {
        for (step, (at, _)) in (0..).zip(&self.setup.steps) {
            self.calendar.push(*at, Event::Operate { step });
        }
    }

    fn operate(&mut self, step: u32) {
        let act = &self.setup.steps[step as usize].1;
        match act {
            Act::Remove { function } => {
                if let Some(key) = self.system.lookup(function) {
                    let index = self.by_function[key];
                    self.functions[index].removed = true;
                }
            }
            Act::NodeLost { node } => self.node_lost(node),
            _ => {}
        }
        self.tell(control::Event::Operate(act.clone().into()));
        for index in 0..self.functions.len() {
            self.note(self.functions[index].key);
        }
    }

    /// Whether a demand has a request left to offer at `at`.
    fn may_offer(&mut self, demand: u32, at: Time) -> bool {
        let demand = &mut self.demands[demand as usize];
        let [offered, failed] = demand.most;
        demand.cut |= demand.offered >= offered || demand.failed >= failed;
        !demand.cut && at < demand.until
    }

    /// Enters the next moment of an open loop, or the start of the next session.
    #[inline(always)]
    fn schedule_next(&mut self, demand: u32) {
        let run = &mut self.demands[demand as usize];
        let next = match &mut run.arrivals {
            None => None,
            Some(Arrivals::Requests(schedule)) => schedule.next(),
            Some(Arrivals::Trace(_)) => {
                let arrival = &self.setup.demands[demand as usize].arrival;
                run.next_of_trace(arrival).unwrap_or_else(|fault| {
                    self.failure = Some(fault);
                    None
                })
            }
            Some(Arrivals::Sessions(starts)) => starts.next().map(|(session, at)| {
                run.next_session = session as u32;
                at
            }),
        };
        let Some(due) = next else { return };
        if self.may_offer(demand, due) {
            self.sources += 1;
            self.calendar.push_arrival(due, demand);
        }
    }

    #[cold]
    fn progress(&self) -> Progress {
        let share = |(demand, setup): (&DemandRun, &super::DemandSetup)| {
            let of_requests = setup.limits.requests.map(|all| demand.offered as f64 / all as f64);
            let of_time = setup.limits.duration;
            let of_time = of_time.map(|all| self.now.as_secs_f64() / all.as_secs_f64());
            let offered = of_requests.into_iter().chain(of_time).fold(0.0, f64::max);
            if demand.cut { 1.0 } else { offered.min(1.0) }
        };
        let fraction = self.demands.iter().zip(&self.setup.demands).map(share).fold(1.0, f64::min);
        Progress { now: self.now, events: self.events, ended: self.ended, fraction }
    }

    /// A replica no longer works on a request, which may still be waited for. Nothing if it is not at this attempt.
    #[inline(always)]
    pub(super) fn end_work(&mut self, work: WorkId) -> Option<Done> {
        let done = self.flights.end_work(work)?;
        if let Some(sampling) = &mut self.sampling {
            sampling.load(self.now, done.attempt.replica, false);
        }
        let run = &mut self.functions[done.function];
        run.in_service.down(self.now);
        run.served += u128::from(self.now.nanos_since(done.attempt.since));
        Some(done)
    }

    /// The luck of a request or replica for a purpose.
    pub(super) const fn luck(&self, purpose: Purpose, id: u64) -> gatewright_determinism::Stream {
        gatewright_determinism::Stream::new(self.seed, purpose, id)
    }
}

#[cfg(test)]
mod tests {
    use gatewright_control::config::SystemFile;

    use super::*;
    use crate::{Demand, FunctionModel, Law, Model, Scenario};

    /// What a run holds in the end, after `requests` requests of which at most 25 are there at once.
    fn held_after(requests: u64) -> [usize; 2] {
        let system =
            "[function.f]\npython = \"m:C\"\nreplicas = { min = 5 }\nqueue = { capacity = 20 }";
        let system = SystemFile::parse(system, &[]).unwrap();
        let law = Law::Exponential { mean: 1.0 };
        let function = [("f".to_owned(), FunctionModel::new(law))];
        let model = Model { function: function.into(), ..Model::default() };
        let arrival = gatewright_workload::Strategy::Poisson { rate: 5.0 };
        let mut scenario = Scenario::parse(
            "[[demand]]\nfunction = \"f\"\narrival = \"synchronous\"\nrequests = 1",
        )
        .unwrap();
        scenario.demand = vec![Demand::new("f", arrival, requests)];
        let simulation = Simulation::new(&system, &model, &scenario).unwrap();
        let mut engine = Engine::new(&simulation, 1, None);
        engine.deploy(Policies::default()).unwrap();
        engine.open_demands();
        engine.run(&mut |_| ());
        assert_eq!(engine.ended, requests);
        [engine.flights.capacity(), engine.effects.capacity()]
    }

    #[test]
    fn what_a_run_holds_does_not_grow_with_the_requests() {
        let some = held_after(10_000);
        assert_eq!(held_after(300_000), some);
        assert!(some.iter().all(|held| *held <= 64), "{some:?}");
    }
}
