//! How far the mean of one long run may be off.

use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::{BatchSeries, Estimate, Invocation, Status, WriteError};
use gatewright_sim::{RecordSink, ReplicaStep, Scaling, Transfer};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::render::{CONFIDENCE, count, duration};

/// The response times of a run in batches, its records going on to `records`, if there is one.
pub(crate) struct Batches<'a> {
    series: BatchSeries,
    /// Batches at least.
    asked: usize,
    warm_up: Time,
    records: Option<&'a mut dyn RecordSink>,
}

/// What batches come to.
#[derive(Debug, Serialize)]
pub(crate) struct BatchReport {
    response_time_mean_ns: Estimate,
    batches: usize,
    requests_per_batch: u64,
    /// Correlation of neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<f64>,
    /// Requests at the start that are unlike the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_up_requests: Option<u64>,
}

/// Two standard errors of the correlation of independent batches, in units of 1 / sqrt(batches).
const DOUBTFUL: f64 = 2.0;

impl<'a> Batches<'a> {
    pub(crate) fn new(
        batches: u32,
        warm_up: Duration,
        records: Option<&'a mut dyn RecordSink>,
    ) -> Self {
        Self {
            series: BatchSeries::new(batches),
            asked: batches as usize,
            warm_up: Time::ZERO + warm_up,
            records,
        }
    }

    pub(crate) fn finish(self) -> Outcome<BatchReport> {
        let series = self.series;
        let estimate = series.estimate().ok().filter(|_| series.means().len() >= self.asked);
        let estimate = estimate.ok_or_else(|| {
            let what =
                format!("{} requests are too few for {} batches", series.samples(), self.asked);
            Failure::usage(what).hint("give fewer --batches, or let the run be longer")
        })?;
        Ok(BatchReport {
            response_time_mean_ns: estimate,
            batches: series.means().len(),
            requests_per_batch: series.size(),
            correlation: series.correlation(),
            start_up_requests: series.start_up().map(|batches| batches as u64 * series.size()),
        })
    }
}

impl BatchReport {
    /// Lines of the table.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let estimate = self.response_time_mean_ns;
        let (mean, half) = (duration(estimate.mean), duration(estimate.half_width(CONFIDENCE)));
        let mut facts = vec![(
            "95 % sure",
            format!(
                "response time mean {mean} +- {half}, by {} batches of {} requests",
                self.batches,
                count(self.requests_per_batch)
            ),
        )];
        let limit = DOUBTFUL / (self.batches as f64).sqrt();
        if let Some(correlation) = self.correlation.filter(|found| *found > limit) {
            let text = format!(
                "doubtful: neighbouring batches are alike (correlation {correlation:.2}); let the run be longer"
            );
            facts.push(("", text));
        }
        if let Some(requests) = self.start_up_requests.filter(|requests| *requests > 0) {
            let text = format!(
                "the first {} requests are unlike the rest: if the run begins empty or cold, leave them out with --warm-up",
                count(requests)
            );
            facts.push(("", text));
        }
        facts
    }
}

impl RecordSink for Batches<'_> {
    fn invocation(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        let counts = invocation.status == Status::Ok && invocation.sent >= Some(self.warm_up);
        if let Some(nanos) = invocation.response_nanos().filter(|_| counts) {
            self.series.add(nanos as f64);
        }
        self.records.as_mut().map_or(Ok(()), |records| records.invocation(invocation))
    }

    fn replica(&mut self, step: &ReplicaStep) -> Result<(), WriteError> {
        self.records.as_mut().map_or(Ok(()), |records| records.replica(step))
    }

    fn transfer(&mut self, transfer: &Transfer) -> Result<(), WriteError> {
        self.records.as_mut().map_or(Ok(()), |records| records.transfer(transfer))
    }

    fn scaled(&mut self, scaling: &Scaling) -> Result<(), WriteError> {
        self.records.as_mut().map_or(Ok(()), |records| records.scaled(scaling))
    }
}
