use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, RunSummary, TimeSeries, TokenSummary};
use gatewright_workload::constraint::{Measured, Mode};
use gatewright_workload::profile::Attainment;
use gatewright_workload::{Pacing, Schedule};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock::{Clock, ProcessorTime};
use crate::connection::Address;
use crate::feed::{Bounds, Feed, Noticed};
use crate::parts::Parts;
use crate::pool::PoolCounts;
use crate::progress::Shared;
use crate::shard::{Setup, Shard, ShardOutcome};
use crate::tally::{Account, Batches};
use crate::target::ParsedTarget;
use crate::tls::Tls;
use crate::verdict::Evidence;
use crate::{AtEnd, BenchError, Outcome, Plan, Progress, RecordSink, Snapshot, Stop, Verdict};

/// The threads get this long to be ready.
const HEAD_START: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_millis(250);
/// Chunks of records that may wait to be written before the engine has to.
const WAITING_CHUNKS: usize = 1_024;
/// Requests of an open loop that a thread holds ready at most; the others wait in the schedule.
const MAX_READY: usize = 65_536;
/// Files that the process needs besides the connections.
const OTHER_FILES: u64 = 64;
/// Bars of the histogram that observers are shown.
const BARS: usize = 8;
/// A benchmark has one demand.
const DEMAND: u64 = 0;

/// Carries out `plan` on threads of its own and returns when its last request has ended. `progress` is told
/// about it meanwhile; `records`, if given, gets every request after the warm-up.
///
/// # Errors
/// A plan that cannot be carried out, a server that cannot be found or connected to, a sink that fails.
/// Failures of requests are no errors: they are counted.
pub fn run(
    plan: &Plan,
    progress: &mut dyn Progress,
    records: Option<&mut dyn RecordSink>,
) -> Result<Outcome, BenchError> {
    plan.check()?;
    let target = ParsedTarget::of(plan)?;
    let measured = plan.measured()?;
    let (address, tls, first) = target.connect(plan.timeout.min(plan.connect_timeout))?;
    let threads = plan.threads();
    let connections = plan.connections().max(threads);
    raise_file_limit(u64::from(connections) + OTHER_FILES);

    let shared = Shared::new(threads, &plan.constraints);
    let clock = Clock::starting_in(HEAD_START);
    let before = ProcessorTime::of_this_thread();
    let engine = Engine {
        plan,
        target: &target,
        address,
        tls,
        measured,
        clock,
        shared: &shared,
        threads,
        connections,
    };
    let mut watch = Watch {
        plan,
        clock,
        shared: &shared,
        last: (0, Time::ZERO),
        asked: false,
        offered: Offered::of(plan),
    };
    let shards = engine.run(first, &mut watch, progress, records)?;
    let cpu = ProcessorTime::of_this_thread().since(before).used;
    Ok(gather(plan, &shared, watch.asked, shards, cpu))
}

struct Engine<'a> {
    plan: &'a Plan,
    target: &'a ParsedTarget,
    address: Address,
    tls: Option<Tls>,
    measured: Measured,
    clock: Clock,
    shared: &'a Shared,
    threads: u32,
    connections: u32,
}

type Chunks = SyncSender<Vec<Invocation>>;

impl Engine<'_> {
    fn run(
        &self,
        first: Option<OwnedFd>,
        watch: &mut Watch<'_>,
        progress: &mut dyn Progress,
        records: Option<&mut dyn RecordSink>,
    ) -> Result<Vec<ShardOutcome>, BenchError> {
        let (sender, receiver) = sync_channel(WAITING_CHUNKS);
        thread::scope(|scope| {
            let mut first = first;
            let mut started = Vec::new();
            let with_records = records.is_some();
            for nth in 0..self.threads {
                let (first, sender) = (first.take(), sender.clone());
                let body = move || self.run_shard(nth, first, &sender, with_records);
                let thread = thread::Builder::new().name(format!("bench-{nth}"));
                match thread.spawn_scoped(scope, body) {
                    Ok(handle) => started.push(handle),
                    Err(error) => {
                        self.shared.stop();
                        // Nobody would take the records of those that were started.
                        drop(receiver);
                        return Err(BenchError::System(error));
                    }
                }
            }
            drop(sender);
            let watched = watch.until_all_ended(&receiver, progress, records);
            let ended = started.into_iter().map(join).collect::<io::Result<Vec<_>>>()?;
            watched.map(|()| ended)
        })
    }

    /// `sender` is held to the end, with records or without: its end tells of the thread's.
    fn run_shard(
        &self,
        nth: u32,
        first: Option<OwnedFd>,
        sender: &Chunks,
        with_records: bool,
    ) -> io::Result<ShardOutcome> {
        let plan = self.plan;
        let most =
            self.connections / self.threads + u32::from(nth < self.connections % self.threads);
        let setup = Setup {
            address: self.address.clone(),
            tls: self.tls.clone(),
            connect_timeout: plan.timeout.min(plan.connect_timeout),
            timeout: plan.timeout,
            max_connections: most as usize,
            streams: plan.streams(),
            retries: plan.retries,
            cuts_off: plan.at_end == AtEnd::Cancel,
        };
        let ready = setup.max_connections.saturating_mul(plan.streams().unwrap_or(1) as usize);
        let bounds = Bounds::of(&plan.limits, self.measured.from, ready.min(MAX_READY));
        let pacing = plan.strategy.pacing(plan.seed, DEMAND);
        let account = Account {
            name: plan.name.as_str().into(),
            measured: self.measured,
            slo: plan.slo,
            batches: batches(plan, &self.measured),
            has_turns: matches!(pacing, Pacing::Sessions(_)),
            max_errors: plan.limits.errors.unwrap_or(u64::MAX),
            shared: self.shared,
            progress: &self.shared.shards[nth as usize],
            records: with_records.then(|| sender.clone()),
        };
        let feed = Feed::new(pacing, nth, self.threads, bounds);
        let shard = Shard::new(self.clock, setup, self.target.requests.clone(), feed, account);
        let outcome = shard.and_then(|shard| shard.run(first));
        if outcome.is_err() {
            self.shared.stop();
        }
        outcome
    }
}

fn join(handle: ScopedJoinHandle<'_, io::Result<ShardOutcome>>) -> io::Result<ShardOutcome> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The thread that started the run watches it and writes its records.
struct Watch<'a> {
    plan: &'a Plan,
    clock: Clock,
    shared: &'a Shared,
    /// Requests done, and when, at the last report.
    last: (u64, Time),
    /// Whether the observer wanted the end.
    asked: bool,
    offered: Option<Offered>,
}

/// Counts what was due so far, on a copy of the schedule.
struct Offered {
    schedule: std::iter::Peekable<Schedule>,
    count: u64,
    limits: (u64, Time),
}

impl Offered {
    /// None for a plan that has no schedule, or nobody who wants to know.
    fn of(plan: &Plan) -> Option<Self> {
        let Pacing::Open(schedule) = plan.strategy.pacing(plan.seed, DEMAND) else { return None };
        let bounds = Bounds::of(&plan.limits, Time::ZERO, 0);
        let limits = (bounds.requests, bounds.end);
        let wanted = !plan.constraints.is_empty();
        wanted.then(|| Self { schedule: schedule.peekable(), count: 0, limits })
    }

    fn until(&mut self, now: Time) -> u64 {
        let (requests, end) = self.limits;
        while self.count < requests && self.schedule.next_if(|&at| at <= now && at < end).is_some()
        {
            self.count += 1;
        }
        self.count
    }
}

/// Parts of a run for the variation of its numbers.
fn batches(plan: &Plan, measured: &Measured) -> Batches {
    let parts = Attainment::BATCHES as u64;
    let end = plan.limits.duration.map(|span| Time::ZERO + span);
    match (end, plan.limits.requests) {
        (Some(end), _) => {
            let nanos = end.min(measured.until).nanos_since(measured.from).div_ceil(parts);
            Batches::Time { from: measured.from, nanos }
        }
        (None, requests) => Batches::Numbers { each: requests.unwrap_or(0).div_ceil(parts) },
    }
}

impl Watch<'_> {
    fn until_all_ended(
        &mut self,
        chunks: &Receiver<Vec<Invocation>>,
        progress: &mut dyn Progress,
        mut records: Option<&mut dyn RecordSink>,
    ) -> Result<(), BenchError> {
        let mut failed = None;
        let mut next_report = Time::ZERO + TICK;
        loop {
            let now = self.clock.now();
            if now >= next_report {
                self.report(now, progress);
                next_report = now + TICK;
            }
            match chunks.recv_timeout(next_report - now) {
                Ok(chunk) => {
                    let Some(sink) = records.as_mut().filter(|_| failed.is_none()) else {
                        continue;
                    };
                    if let Err(source) = chunk.iter().try_for_each(|record| sink.write(record)) {
                        self.shared.stop();
                        let after = self.clock.now() - Time::ZERO;
                        failed = Some(BenchError::Records { after, source });
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.report(self.clock.now(), progress);
        failed.map_or(Ok(()), Err)
    }

    fn report(&mut self, now: Time, progress: &mut dyn Progress) {
        let done = self.shared.total(|shard| &shard.done);
        let since = (now - self.last.1).as_secs_f64();
        let response_time = self.shared.response_time();
        if let Some(offered) = &mut self.offered {
            let offered = offered.until(now);
            self.shared.monitor_tick(now, offered, done, response_time.mean());
        }
        let (fraction, left) = self.extent(now, done);
        let snapshot = Snapshot {
            elapsed: now - Time::ZERO,
            left,
            fraction,
            sent: self.shared.total(|shard| &shard.sent),
            done,
            errors: self.shared.total(|shard| &shard.errors),
            rate: if since > 0.0 { (done - self.last.0) as f64 / since } else { 0.0 },
            p50: response_time.quantile(0.5),
            p90: response_time.quantile(0.9),
            p99: response_time.quantile(0.99),
            max: response_time.max(),
            histogram: response_time.bars(BARS),
        };
        self.last = (done, now);
        if let ControlFlow::Break(()) = progress.report(&snapshot) {
            self.asked = true;
            self.shared.stop();
        }
    }

    /// Part of the run that is over, and the time that is left: by the limit that will be reached first.
    fn extent(&self, now: Time, done: u64) -> (f64, Option<Duration>) {
        let elapsed = now - Time::ZERO;
        let by_time =
            self.plan.limits.duration.map(|span| {
                (elapsed.as_secs_f64() / span.as_secs_f64(), span.saturating_sub(elapsed))
            });
        let by_requests = self.plan.limits.requests.filter(|_| done > 0).map(|requests| {
            let fraction = (done as f64 / requests as f64).min(1.0);
            (fraction, elapsed.mul_f64((1.0 - fraction) / fraction))
        });
        let nearest = by_time.into_iter().chain(by_requests).max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.map_or((0.0, None), |(fraction, left)| (fraction.min(1.0), Some(left)))
    }
}

fn gather(
    plan: &Plan,
    shared: &Shared,
    asked: bool,
    shards: Vec<ShardOutcome>,
    own_cpu: Duration,
) -> Outcome {
    let stop = match stop(plan, shared, asked) {
        Stop::Duration if shards.iter().all(|shard| shard.dry) => Stop::Schedule,
        stop => stop,
    };
    let mut summary = RunSummary::new();
    let (mut series, mut parts) = (TimeSeries::default(), Parts::default());
    let (mut tokens, mut attainment) = (None::<Box<TokenSummary>>, Attainment::default());
    let (mut noticed, mut pool) = (Noticed::default(), PoolCounts::default());
    let ended = shards.iter().map(|shard| shard.ended).max().unwrap_or_default();
    let share = |span: Duration| span.as_secs_f64() / (ended - Time::ZERO).as_secs_f64();
    let (mut unsent, mut waited, mut warmup_requests, mut broken_conversations) = (0, 0, 0, 0);
    let (mut busy, mut starved) = (0.0f64, 0.0f64);
    let (mut cpu, mut offered_until) = (own_cpu, Time::ZERO);
    let threads = u32::try_from(shards.len()).unwrap_or(u32::MAX);
    for shard in shards {
        summary.merge(&shard.summary);
        attainment.merge(&shard.attainment);
        series.merge(&shard.series);
        parts.merge(&shard.parts);
        if let Some(part) = shard.tokens {
            tokens.get_or_insert_default().merge(&part);
        }
        noticed.merge(&shard.noticed);
        pool.merge(shard.pool);
        unsent += shard.unsent;
        waited += shard.waited;
        broken_conversations += shard.broken_conversations;
        warmup_requests += shard.warmup_requests;
        cpu += shard.processor.used;
        busy = busy.max(share(shard.processor.used));
        starved = starved.max(share(shard.processor.awaited));
        offered_until = offered_until.max(shard.offered_until);
    }
    if plan.strategy.is_open() && ![Stop::Requests, Stop::Schedule].contains(&stop) {
        // Checked when the run began.
        let measured = plan.measured().unwrap_or_default();
        if measured.first == 0 && measured.last == u64::MAX {
            summary.set_offered_over(offered_until.min(measured.until) - measured.from);
        }
    }
    let evidence = Evidence {
        noticing: &noticed.delay,
        after_end: noticed.after_end,
        response_time: &summary.response_time,
        busy,
        starved,
        elapsed: ended - Time::ZERO,
    };
    Outcome {
        verdict: Verdict::of(&evidence),
        stop,
        elapsed: ended - Time::ZERO,
        warmup_requests,
        unsent,
        waited,
        broken_conversations,
        noticing: noticed.delay,
        connections_opened: pool.opened,
        connections_peak: pool.peak,
        connect_failures: pool.failed,
        threads,
        cpu,
        busy,
        starved,
        tokens,
        attainment: plan.slo.map(|_| attainment),
        series,
        parts,
        breaches: shared.breaches(),
        summary,
    }
}

fn stop(plan: &Plan, shared: &Shared, asked: bool) -> Stop {
    let done = shared.total(|shard| &shard.done);
    if asked {
        Stop::Asked
    } else if shared.breaches().iter().any(|breach| breach.mode == Mode::Enforce) {
        Stop::Constraint
    } else if plan.limits.errors.is_some_and(|errors| shared.errors() >= errors) {
        Stop::Errors
    } else if plan.limits.requests.is_some_and(|requests| done >= requests) {
        Stop::Requests
    } else {
        Stop::Duration
    }
}

/// Every connection is an open file; the limit that a shell sets is often 1,024, though more are allowed.
fn raise_file_limit(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, ..limit }) {
            tracing::debug!(%error, "the limit of open files stays at {:?}", limit.current);
        }
    }
}
