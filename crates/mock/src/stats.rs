use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// What a mock server has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Connections taken.
    pub connections: u64,
    /// Requests received.
    pub requests: u64,
    /// Tokens given out.
    pub tokens: u64,
    /// Requests that found no room in the queue.
    pub refused: u64,
    /// Faults: requests answered with an error.
    pub errors: u64,
    /// Faults: connections reset.
    pub resets: u64,
    /// Faults: answers that stalled.
    pub stalls: u64,
    /// How much later than due answers and tokens were given to the connection.
    pub lateness: LatenessSummary,
}

/// Percentiles of lateness, in microseconds, with two digits; zero if nothing was waited for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatenessSummary {
    /// Moments that were waited for.
    pub count: u64,
    /// Half were at most so late.
    pub p50_micros: f64,
    /// 90 of 100 were at most so late.
    pub p90_micros: f64,
    /// 99 of 100 were at most so late.
    pub p99_micros: f64,
    /// The latest.
    pub max_micros: f64,
}

/// What is counted while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) tokens: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) stalls: AtomicU64,
}

/// Lateness on one thread, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Lateness {
    histogram: Mutex<Histogram<u64>>,
}

/// Longest lateness told apart: a minute.
const LATEST: u64 = 60_000_000_000;

impl Lateness {
    pub(crate) fn new() -> Self {
        Self { histogram: Mutex::new(empty()) }
    }

    pub(crate) fn record(&self, nanos: u64) {
        self.histogram.lock().saturating_record(nanos.max(1));
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATEST, 2).expect("these bounds are valid")
}

impl Counters {
    /// All that was counted so far.
    pub(crate) fn summary(&self, lateness: &[Arc<Lateness>]) -> Summary {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            connections: read(&self.connections),
            requests: read(&self.requests),
            tokens: read(&self.tokens),
            refused: read(&self.refused),
            errors: read(&self.errors),
            resets: read(&self.resets),
            stalls: read(&self.stalls),
            lateness: summarise(lateness),
        }
    }
}

fn summarise(threads: &[Arc<Lateness>]) -> LatenessSummary {
    let mut all = empty();
    for thread in threads {
        all.add(&*thread.histogram.lock()).expect("all have the same bounds");
    }
    if all.is_empty() {
        return LatenessSummary::default();
    }
    let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    LatenessSummary {
        count: all.len(),
        p50_micros: micros(0.5),
        p90_micros: micros(0.9),
        p99_micros: micros(0.99),
        max_micros: all.max() as f64 / 1000.0,
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
