use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CacheResult, CodeCounts, Invocation, LatencyHistogram, Outline, Status, Summary};

/// What a run comes to, gathered from one [`Invocation`] after another in constant memory (about 0.7 MB).
///
/// Merging the summaries of parts (threads, replications) is the same as adding all their invocations to one.
#[derive(Clone, Debug, Default)]
pub struct RunSummary {
    /// Scheduled (sent, received) to finished, of requests that ended well.
    pub response_time: LatencyHistogram,
    /// Sent (received) to finished, of requests that ended well.
    pub service_time: LatencyHistogram,
    /// Scheduled (sent, received) to the end, of requests that did not end well: kept apart, because a quick
    /// refusal would flatter the response time. Together with `response_time` these are all requests.
    pub failed_time: LatencyHistogram,
    /// Scheduled to sent, of all requests that were sent.
    pub lateness: LatencyHistogram,
    /// Received (scheduled) to leaving the queue, of all requests that left one.
    pub queue_wait: LatencyHistogram,
    /// How the requests ended.
    pub statuses: StatusCounts,
    /// HTTP status codes of the answers.
    pub codes: CodeCounts,
    /// Why requests did not end well; beyond 64 different reasons, the rest is counted as `other`.
    pub reasons: BTreeMap<Arc<str>, u64>,
    /// What caches did.
    pub cache: CacheCounts,
    /// Requests that waited for a replica to start.
    pub cold: u64,
    /// Attempts beyond the first of each request.
    pub retries: u64,
    /// Bytes of all request bodies.
    pub bytes_in: u64,
    /// Bytes of all answers' bodies.
    pub bytes_out: u64,
    /// Requests of [`RunSummary::count_plain`] that are not in the counts above yet.
    plain: u64,
    /// How many were scheduled, and when.
    scheduled: u64,
    offered: Moments,
    /// The first start, and the last end.
    busy: Moments,
    offered_over: Option<Duration>,
}

/// The first and the last of some moments; the first is the later one if there are none.
#[derive(Clone, Copy, Debug)]
struct Moments {
    first: Time,
    last: Time,
}

const MAX_REASONS: usize = 64;
const OTHER_REASONS: &str = "other";

/// How many requests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusCounts {
    /// [`Status::Ok`].
    pub ok: u64,
    /// [`Status::Error`].
    pub error: u64,
    /// [`Status::Timeout`].
    pub timeout: u64,
    /// [`Status::Shed`].
    pub shed: u64,
    /// [`Status::Cancelled`].
    pub cancelled: u64,
    /// [`Status::Lost`].
    pub lost: u64,
}

/// How many requests a cache dealt with in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheCounts {
    /// [`CacheResult::Hit`].
    pub hit: u64,
    /// [`CacheResult::Stale`].
    pub stale: u64,
    /// [`CacheResult::Miss`].
    pub miss: u64,
    /// [`CacheResult::Collapsed`].
    pub collapsed: u64,
    /// [`CacheResult::Revalidated`].
    pub revalidated: u64,
    /// [`CacheResult::Bypass`].
    pub bypass: u64,
}

/// A [`RunSummary`] in plain numbers, as it is written to JSON. Times in nanoseconds, rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReport {
    /// All requests of the run.
    pub requests: u64,
    /// How they ended.
    pub statuses: StatusCounts,
    /// Requests offered per second; absent where nothing was scheduled (closed loop, gateway).
    pub offered_rate: Option<f64>,
    /// Requests that ended well, per second.
    pub achieved_rate: Option<f64>,
    /// From the first start to the last end, in nanoseconds.
    pub span_ns: u64,
    /// See [`RunSummary::response_time`].
    pub response_time: Summary,
    /// See [`RunSummary::service_time`].
    pub service_time: Summary,
    /// See [`RunSummary::failed_time`].
    pub failed_time: Summary,
    /// See [`RunSummary::lateness`].
    pub lateness: Summary,
    /// See [`RunSummary::queue_wait`].
    pub queue_wait: Summary,
    /// HTTP status codes of the answers.
    pub codes: BTreeMap<u16, u64>,
    /// Why requests did not end well.
    pub reasons: BTreeMap<String, u64>,
    /// What caches did.
    pub cache: CacheCounts,
    /// Requests that waited for a replica to start.
    pub cold: u64,
    /// Attempts beyond the first of each request.
    pub retries: u64,
    /// Bytes of all request bodies.
    pub bytes_in: u64,
    /// Bytes of all answers' bodies.
    pub bytes_out: u64,
}

impl RunSummary {
    /// A summary of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one request.
    pub fn add(&mut self, invocation: &Invocation) {
        self.count(&Outline::from(invocation));
    }

    /// Adds one request of which there is no record.
    fn count(&mut self, request: &Outline<'_>) {
        self.count_punctual(request);
        let begun = request.sent.or(request.received);
        if let (Some(begun), Some(finished), Status::Ok) = (begun, request.finished, request.status)
        {
            self.service_time.record(finished.nanos_since(begun));
        }
        if let (Some(scheduled), Some(sent)) = (request.scheduled, request.sent) {
            self.lateness.record(sent.nanos_since(scheduled));
        }
    }

    /// Adds one request of a run that sends every request at the moment for which it was scheduled, if it was for any,
    /// as a simulation does. Its response time is its service time, and it was not late: that is said once, by
    /// [`RunSummary::settle_punctual`], when all have been added.
    #[inline]
    pub fn count_punctual(&mut self, request: &Outline<'_>) {
        let Outline { scheduled, sent, received, queued_out, finished, .. } = *request;
        if let Some(scheduled) = scheduled {
            self.scheduled += 1;
            self.offered.add(scheduled);
        }
        let start = scheduled.or(sent).or(received);
        if let Some(start) = start {
            self.busy.first = self.busy.first.min(start);
        }
        if let Some(finished) = finished {
            self.busy.last = self.busy.last.max(finished);
            if let Some(start) = start {
                let well = request.status == Status::Ok;
                let times = if well { &mut self.response_time } else { &mut self.failed_time };
                times.record(finished.nanos_since(start));
            }
        }
        if let (Some(queued_in), Some(queued_out)) = (received.or(scheduled), queued_out) {
            self.queue_wait.record(queued_out.nanos_since(queued_in));
        }
        self.statuses.add(request.status, 1);
        if let Some(code) = request.code {
            self.codes.add(code, 1);
        }
        if let Some(reason) = request.reason {
            self.add_reason(reason, 1);
        }
        if let Some(cache) = request.cache {
            self.cache.add(cache, 1);
        }
        self.cold += u64::from(request.cold);
        self.retries += u64::from(request.attempts.saturating_sub(1));
        self.bytes_in += request.bytes_in;
        self.bytes_out += request.bytes_out;
    }

    /// Adds one request as [`RunSummary::count_punctual`] does, one that ended well at its first attempt, with code 200,
    /// and that no cache was asked about: nearly all of a simulation. It was sent and finished then, and waited so many
    /// nanoseconds in a queue.
    #[inline(always)]
    pub fn count_plain(&mut self, sent: Time, finished: Time, waited: u64) {
        self.plain += 1;
        self.offered.add(sent);
        self.busy.last = self.busy.last.max(finished);
        self.response_time.record(finished.nanos_since(sent));
        self.queue_wait.record(waited);
    }

    /// Every request was added by [`RunSummary::count_punctual`] or [`RunSummary::count_plain`], and no other will be;
    /// `scheduled` says whether the plain ones were scheduled.
    pub fn settle_punctual(&mut self, scheduled: bool) {
        let plain = std::mem::take(&mut self.plain);
        if plain > 0 {
            self.statuses.add(Status::Ok, plain);
            self.codes.add(200, plain);
            self.busy.first = self.busy.first.min(self.offered.first);
        }
        if scheduled {
            self.scheduled += plain;
        } else {
            self.offered = Moments::default();
        }
        self.service_time.clone_from(&self.response_time);
        self.lateness.record_many(0, self.scheduled);
    }

    fn add_reason(&mut self, reason: &Arc<str>, count: u64) {
        if let Some(known) = self.reasons.get_mut(reason) {
            *known += count;
        } else if self.reasons.len() < MAX_REASONS {
            self.reasons.insert(Arc::clone(reason), count);
        } else {
            *self.reasons.entry(OTHER_REASONS.into()).or_default() += count;
        }
    }

    /// Adds all requests of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.response_time.merge(&other.response_time);
        self.service_time.merge(&other.service_time);
        self.failed_time.merge(&other.failed_time);
        self.lateness.merge(&other.lateness);
        self.queue_wait.merge(&other.queue_wait);
        self.statuses.merge(&other.statuses);
        self.codes.merge(&other.codes);
        for (reason, count) in &other.reasons {
            self.add_reason(reason, *count);
        }
        self.cache.merge(&other.cache);
        self.cold += other.cold;
        self.retries += other.retries;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.scheduled += other.scheduled;
        self.offered.merge(other.offered);
        self.busy.merge(other.busy);
        self.offered_over = self.offered_over.max(other.offered_over);
    }

    /// Says during which span requests were offered, where the world knows it: rates are then taken over it
    /// rather than from the first request to the last, which is one gap short.
    pub fn set_offered_over(&mut self, span: Duration) {
        self.offered_over = Some(span);
    }

    /// All requests of the run.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.statuses.total()
    }

    /// From the first start (scheduled, sent or received) to the last end.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.busy.span()
    }

    /// Requests offered per second: scheduled ones over the span in which they were offered. None without a
    /// schedule (closed loop, gateway) or with too little to tell.
    #[must_use]
    pub fn offered_rate(&self) -> Option<f64> {
        if let Some(span) = self.offered_over {
            return rate(self.scheduled, span).filter(|_| self.scheduled > 0);
        }
        rate(self.scheduled.checked_sub(1)?, self.offered.span())
    }

    /// Requests that ended well, per second: from the first start to the last end, so the draining at the end
    /// of a run is in it; over the span in which requests were offered, where that is longer.
    #[must_use]
    pub fn achieved_rate(&self) -> Option<f64> {
        rate(self.statuses.ok, self.span().max(self.offered_over.unwrap_or_default()))
    }

    /// The summary in plain numbers.
    #[must_use]
    pub fn report(&self) -> RunReport {
        RunReport {
            requests: self.requests(),
            statuses: self.statuses,
            offered_rate: self.offered_rate(),
            achieved_rate: self.achieved_rate(),
            span_ns: u64::try_from(self.span().as_nanos()).unwrap_or(u64::MAX),
            response_time: self.response_time.summary(),
            service_time: self.service_time.summary(),
            failed_time: self.failed_time.summary(),
            lateness: self.lateness.summary(),
            queue_wait: self.queue_wait.summary(),
            codes: self.codes.by_code(),
            reasons: self.reasons.iter().map(|(why, count)| (why.to_string(), *count)).collect(),
            cache: self.cache,
            cold: self.cold,
            retries: self.retries,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self { first: Time::MAX, last: Time::ZERO }
    }
}

impl Moments {
    #[inline]
    fn add(&mut self, moment: Time) {
        self.first = self.first.min(moment);
        self.last = self.last.max(moment);
    }

    fn merge(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// From the first to the last; zero if there are none.
    fn span(self) -> Duration {
        self.last - self.first
    }
}

fn rate(count: u64, span: Duration) -> Option<f64> {
    (!span.is_zero()).then(|| count as f64 / span.as_secs_f64())
}

impl StatusCounts {
    /// Requests that ended in any way.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ok + self.failed()
    }

    /// Requests that did not end well.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.error + self.timeout + self.shed + self.cancelled + self.lost
    }

    /// Counts `count` more requests that ended in `status`.
    pub const fn add(&mut self, status: Status, count: u64) {
        let counter = match status {
            Status::Ok => &mut self.ok,
            Status::Error => &mut self.error,
            Status::Timeout => &mut self.timeout,
            Status::Shed => &mut self.shed,
            Status::Cancelled => &mut self.cancelled,
            Status::Lost => &mut self.lost,
        };
        *counter += count;
    }

    /// Adds all counts of `other`.
    pub const fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.error += other.error;
        self.timeout += other.timeout;
        self.shed += other.shed;
        self.cancelled += other.cancelled;
        self.lost += other.lost;
    }
}

impl CacheCounts {
    /// Requests that a cache was asked about.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.hit + self.stale + self.miss + self.collapsed + self.revalidated + self.bypass
    }

    /// Counts `count` more requests that a cache dealt with as `result` says.
    pub const fn add(&mut self, result: CacheResult, count: u64) {
        let counter = match result {
            CacheResult::Hit => &mut self.hit,
            CacheResult::Stale => &mut self.stale,
            CacheResult::Miss => &mut self.miss,
            CacheResult::Collapsed => &mut self.collapsed,
            CacheResult::Revalidated => &mut self.revalidated,
            CacheResult::Bypass => &mut self.bypass,
        };
        *counter += count;
    }

    const fn merge(&mut self, other: &Self) {
        self.hit += other.hit;
        self.stale += other.stale;
        self.miss += other.miss;
        self.collapsed += other.collapsed;
        self.revalidated += other.revalidated;
        self.bypass += other.bypass;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invocation::any_invocation;

    fn summary<'a>(invocations: impl IntoIterator<Item = &'a Invocation>) -> RunSummary {
        let mut summary = RunSummary::new();
        invocations.into_iter().for_each(|invocation| summary.add(invocation));
        summary
    }

    fn millis(millis: u64) -> Option<Time> {
        Some(Time::from_nanos(millis * 1_000_000))
    }

    #[test]
    fn times_are_counted_from_the_schedule() {
        let late = Invocation {
            scheduled: millis(1_000),
            sent: millis(1_300),
            finished: millis(1_500),
            attempts: 1,
            ..Invocation::default()
        };
        let summary = summary([&late]);
        let one = |histogram: &LatencyHistogram| histogram.max().unwrap() / 1_000_000;
        assert_eq!(one(&summary.response_time), 500);
        assert_eq!(one(&summary.service_time), 200);
        assert_eq!(one(&summary.lateness), 300);
        assert_eq!(summary.queue_wait.count(), 0);
        assert_eq!(summary.failed_time.count(), 0);
        assert_eq!(summary.retries, 0);
    }

    #[test]
    fn failures_do_not_flatter_the_response_time() {
        let refused = Invocation {
            received: millis(5),
            finished: millis(6),
            status: Status::Shed,
            reason: Some("queue full".into()),
            ..Invocation::default()
        };
        let summary = summary([&refused]);
        assert_eq!(summary.response_time.count(), 0);
        assert_eq!(summary.service_time.count(), 0);
        assert_eq!(summary.failed_time.count(), 1);
        assert_eq!(summary.statuses.failed(), 1);
        assert_eq!(summary.reasons["queue full"], 1);
    }

    #[test]
    fn rates_are_taken_over_the_span_in_which_requests_were_offered() {
        let request = |id: u64| Invocation {
            id,
            scheduled: millis(id * 100),
            sent: millis(id * 100),
            finished: millis(id * 100 + 1),
            ..Invocation::default()
        };
        let requests: Vec<_> = (0..10).map(request).collect();
        let mut summary = summary(&requests);
        assert_eq!(summary.offered_rate(), Some(10.0));
        assert_eq!(summary.achieved_rate(), Some(10.0 / 0.901));
        summary.set_offered_over(Duration::from_secs(1));
        assert_eq!(summary.offered_rate(), Some(10.0));
        assert_eq!(summary.achieved_rate(), Some(10.0));
        assert_eq!(RunSummary::new().offered_rate(), None);
        assert_eq!(RunSummary::new().achieved_rate(), None);
    }

    #[test]
    fn reasons_are_bounded() {
        let failed = |number: u32| Invocation {
            status: Status::Error,
            reason: Some(format!("reason {number}").into()),
            ..Invocation::default()
        };
        let requests: Vec<_> = (0..1_000).map(failed).collect();
        let summary = summary(&requests);
        assert_eq!(summary.reasons.len(), MAX_REASONS + 1);
        assert_eq!(summary.reasons.values().sum::<u64>(), 1_000);
    }

    proptest! {
        #[test]
        fn merging_is_adding_all(
            all in prop::collection::vec(any_invocation(), 0..40), cut in 0..40usize,
        ) {
            let (head, tail) = all.split_at(cut.min(all.len()));
            let mut merged = summary(head);
            merged.merge(&summary(tail));
            prop_assert_eq!(merged.report(), summary(&all).report());
        }

        #[test]
        fn every_request_is_counted_once(all in prop::collection::vec(any_invocation(), 0..40)) {
            let report = summary(&all).report();
            prop_assert_eq!(report.requests, all.len() as u64);
            let ended = all.iter().filter(|i| i.response_nanos().is_some()).count() as u64;
            prop_assert_eq!(report.response_time.count + report.failed_time.count, ended);
            let json = serde_json::to_string(&report).unwrap();
            let again: RunReport = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(again.response_time.p50, report.response_time.p50);
            prop_assert_eq!(again.statuses, report.statuses);
        }
    }
}
