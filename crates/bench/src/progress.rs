use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, LatencyHistogram, RecordWriter};
use gatewright_workload::constraint::{Breach, Constraint, Monitor};

/// Who wants to see a run go on: told about four times a second, from the thread that called
/// [`run`](crate::run).
pub trait Progress {
    /// Takes note; [`ControlFlow::Break`] ends the run early, as its duration would have.
    fn report(&mut self, snapshot: &Snapshot) -> ControlFlow<()>;
}

impl<F: FnMut(&Snapshot) -> ControlFlow<()>> Progress for F {
    fn report(&mut self, snapshot: &Snapshot) -> ControlFlow<()> {
        self(snapshot)
    }
}

/// How far a run is. Counts include the warm-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// Time until its end: exact with a limit of time, an estimate with one of requests; none at the very
    /// start. Zero while the last answers are awaited.
    pub left: Option<Duration>,
    /// Part of the run that is over, 0 to 1.
    pub fraction: f64,
    /// Requests sent.
    pub sent: u64,
    /// Requests that have ended, well or not.
    pub done: u64,
    /// Requests that did not end well.
    pub errors: u64,
    /// Requests that ended per second, since the last snapshot.
    pub rate: f64,
    /// Median response time so far, in nanoseconds, of requests that ended well after the warm-up.
    pub p50: Option<u64>,
    /// 90 % quantile of the same.
    pub p90: Option<u64>,
    /// 99 % quantile of the same.
    pub p99: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
    /// How many of the same took at most so many nanoseconds, and more than the number before.
    pub histogram: Vec<(u64, u64)>,
}

/// Where records go: called from the thread that called [`run`](crate::run), a request at a time, in the order
/// in which each of the engine's threads saw them end. A sink that is too slow slows the engine, which then
/// says so.
pub trait RecordSink {
    /// Takes one record.
    ///
    /// # Errors
    /// What went wrong; the run is then given up.
    fn write(&mut self, invocation: &Invocation) -> io::Result<()>;
}

impl<W: io::Write + Send> RecordSink for RecordWriter<W> {
    fn write(&mut self, invocation: &Invocation) -> io::Result<()> {
        Self::write(self, invocation).map_err(io::Error::other)
    }
}

impl RecordSink for Vec<Invocation> {
    fn write(&mut self, invocation: &Invocation) -> io::Result<()> {
        self.push(invocation.clone());
        Ok(())
    }
}

/// What the threads of a run tell one another.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    errors: AtomicU64,
    pub(crate) shards: Vec<ShardProgress>,
    /// Watches for broken constraints, if there are any.
    monitor: Option<Mutex<Monitor>>,
    /// Whether the monitor wants to hear of every request; otherwise nothing is shared for one.
    tells_requests: bool,
    in_flight: AtomicU64,
}

/// What one thread tells of its progress; written by it alone.
#[derive(Debug, Default)]
pub(crate) struct ShardProgress {
    pub(crate) sent: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) errors: AtomicU64,
    response_time: Mutex<LatencyHistogram>,
}

impl Shared {
    pub(crate) fn new(threads: u32, constraints: &[Constraint]) -> Self {
        let shards = (0..threads).map(|_| ShardProgress::default()).collect();
        let monitor = (!constraints.is_empty()).then(|| Monitor::new(constraints));
        let tells_requests = monitor.as_ref().is_some_and(Monitor::wants_requests);
        Self { shards, tells_requests, monitor: monitor.map(Mutex::new), ..Self::default() }
    }

    fn monitor(&self, tell: impl FnOnce(&mut Monitor), now: Time) {
        let Some(monitor) = &self.monitor else { return };
        let mut monitor = monitor.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut monitor);
        if monitor.check(now).is_some() {
            self.stop();
        }
    }

    pub(crate) fn monitor_sent(&self, now: Time) {
        if self.tells_requests {
            let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
            self.monitor(|monitor| monitor.sent(now, in_flight), now);
        }
    }

    pub(crate) fn monitor_ended(&self, now: Time, was_sent: bool, ok: bool, ttft: Option<u64>) {
        if self.tells_requests {
            self.in_flight.fetch_sub(u64::from(was_sent), Ordering::Relaxed);
            self.monitor(|monitor| monitor.ended(now, ok, ttft), now);
        }
    }

    /// How things stand, for those constraints that go by it.
    pub(crate) fn monitor_tick(
        &self,
        now: Time,
        offered: u64,
        done: u64,
        mean_response: Option<f64>,
    ) {
        self.monitor(|monitor| monitor.tick(now, offered, done, mean_response), now);
    }

    pub(crate) fn breaches(&self) -> Vec<Breach> {
        let Some(monitor) = &self.monitor else { return Vec::new() };
        monitor.lock().unwrap_or_else(PoisonError::into_inner).breaches().to_vec()
    }

    /// Asks all threads to offer no more requests.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts a failure; the number of failures so far.
    pub(crate) fn count_error(&self) -> u64 {
        self.errors.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(crate) fn total(&self, counter: impl Fn(&ShardProgress) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    }

    /// Response times of all threads, as of their last publications.
    pub(crate) fn response_time(&self) -> LatencyHistogram {
        let mut all = LatencyHistogram::new();
        for shard in &self.shards {
            all.merge(&shard.response_time.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all
    }
}

impl ShardProgress {
    pub(crate) fn publish(&self, response_time: &LatencyHistogram) {
        // Whoever reads it holds it for some microseconds: rather try again next time than wait.
        if let Ok(mut published) = self.response_time.try_lock() {
            published.clear();
            published.merge(response_time);
        }
    }
}
