//! What the records of a gateway tell of one function.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gatewright_determinism::Time;
use gatewright_record::{CacheResult, Invocation, Status};
use gatewright_sim::{Keys, MAX_KEYS, Range};

use crate::table::Sample;

/// Everything that was seen of one function at a gateway, in all runs.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Handed to a replica until answered: one attempt, well ended.
    pub(crate) service: Sample,
    /// The same by requests in flight at the start, to see whether they slow one another down.
    pub(crate) service_by_in_flight: BTreeMap<u32, Sample>,
    /// Received until handed over, of requests that cannot have waited.
    pub(crate) gateway: Sample,
    /// Received until answered from the cache.
    pub(crate) hit: Sample,
    /// Received until answered, of all that ended well.
    pub(crate) whole: Sample,
    /// Start-up times, as seen by requests that found no replica and nobody else waiting.
    pub(crate) start: Sample,
    /// Start-up times, from the stream of states of replicas.
    pub(crate) started: Sample,
    pub(crate) keys: BTreeMap<u64, u64>,
    pub(crate) rate: Option<Range>,
    pub(crate) in_flight: Option<Range>,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

/// Keys that get a frequency of their own.
const POPULAR: usize = 1_000;
/// Span over which a rate is taken where no load generator says what it was.
const WINDOW: u64 = 5_000_000_000;

/// What happens to a request at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Finished,
    Started,
    Received,
}

/// What happened to all requests that were handed to a replica, in order of time; of one request, received before
/// started before finished, even if all at one moment.
fn steps(requests: &[&Invocation]) -> Vec<(Time, usize, Reverse<Step>)> {
    let mut steps = Vec::with_capacity(3 * requests.len());
    for (index, request) in requests.iter().enumerate() {
        if let (Some(received), Some(started), Some(finished)) =
            (request.received, request.started, request.finished)
        {
            steps.push((received, index, Reverse(Step::Received)));
            steps.push((started.max(received), index, Reverse(Step::Started)));
            steps.push((finished.max(started), index, Reverse(Step::Finished)));
        }
    }
    steps.sort_unstable();
    steps
}

impl Observed {
    /// Adds the requests of one run, in any order.
    pub(crate) fn add(&mut self, requests: &[&Invocation]) {
        for request in requests {
            self.requests += 1;
            self.failed += u64::from(request.status != Status::Ok);
            self.note(request);
        }
        self.note_waits(requests);
        self.note_rates(requests);
    }

    fn note(&mut self, request: &Invocation) {
        if let (Some(key), Some(cache)) = (request.cache_key, request.cache)
            && cache != CacheResult::Bypass
        {
            *self.keys.entry(key).or_default() += 1;
        }
        let (Some(received), Some(finished)) = (request.received, request.finished) else { return };
        if request.status != Status::Ok {
            return;
        }
        let whole = finished.nanos_since(received);
        self.whole.push(whole);
        if request.cache == Some(CacheResult::Hit) {
            self.hit.push(whole);
        }
        if let (Some(started), 1) = (request.started, request.attempts) {
            let service = finished.nanos_since(started);
            self.service.push(service);
            let in_flight = request.in_flight.unwrap_or(1);
            self.service_by_in_flight.entry(in_flight).or_default().push(service);
            extend(&mut self.in_flight, f64::from(in_flight));
        }
    }

    /// Finds the requests that cannot have waited: when they came, the replica that they were given to ran
    /// already and had a slot free, since it had no more in service then than when they began.
    fn note_waits(&mut self, requests: &[&Invocation]) {
        let mut waiting = 0u64;
        // Requests in service by replica, of those that were seen at work.
        let mut serving: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, index, Reverse(step)) in steps(requests) {
            let request = requests[index];
            let replica = request.replica.unwrap_or(0);
            match step {
                Step::Received => {
                    let others = u64::from(request.in_flight.unwrap_or(1)).saturating_sub(1);
                    let free = serving.get(&replica).is_some_and(|serving| *serving <= others);
                    let wait = request.started.zip(request.received);
                    let wait = wait.map_or(0, |(started, received)| started.nanos_since(received));
                    if request.attempts == 1 && request.cold && waiting == 0 {
                        self.start.push(wait);
                    } else if request.attempts == 1 && !request.cold && free {
                        self.gateway.push(wait);
                    }
                    waiting += 1;
                }
                Step::Started => {
                    waiting = waiting.saturating_sub(1);
                    *serving.entry(replica).or_default() += 1;
                }
                Step::Finished => {
                    let serving = serving.entry(replica).or_default();
                    *serving = serving.saturating_sub(1);
                }
            }
        }
    }

    /// Requests per second in windows of a few seconds, those without any left out.
    fn note_rates(&mut self, requests: &[&Invocation]) {
        let mut moments: Vec<Time> = requests.iter().filter_map(|r| r.received).collect();
        moments.sort_unstable();
        let (Some(&first), Some(&last)) = (moments.first(), moments.last()) else { return };
        let span = last.nanos_since(first);
        if span < WINDOW {
            if span > 0 {
                extend(&mut self.rate, (moments.len() - 1) as f64 * 1e9 / span as f64);
            }
            return;
        }
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for moment in moments {
            *counts.entry(moment.nanos_since(first) / WINDOW).or_default() += 1;
        }
        // The last window is not whole.
        let whole = span / WINDOW;
        for (_, count) in counts.range(..whole) {
            extend(&mut self.rate, *count as f64 * 1e9 / WINDOW as f64);
        }
    }

    /// How popular the keys were; `None` if there is no cache.
    pub(crate) fn popularity(&self) -> Option<Keys> {
        if self.keys.is_empty() {
            return None;
        }
        let mut counts: Vec<u64> = self.keys.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let rest = counts.split_off(counts.len().min(POPULAR));
        let room = MAX_KEYS - POPULAR as u32;
        Some(Keys::Frequencies {
            weights: counts.iter().map(|count| *count as f64).collect(),
            rest_keys: u32::try_from(rest.len()).unwrap_or(room).min(room),
            rest_weight: rest.iter().sum::<u64>() as f64,
        })
    }
}

pub(crate) fn extend(range: &mut Option<Range>, value: f64) {
    let range = range.get_or_insert(Range { min: value, max: value });
    range.min = range.min.min(value);
    range.max = range.max.max(value);
}
