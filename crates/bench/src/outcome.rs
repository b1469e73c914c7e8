use std::time::Duration;

use gatewright_record::{
    LatencyHistogram, RunReport, RunSummary, Summary, TokenReport, TokenSummary,
};
use gatewright_workload::constraint::{Breach, Mode, Scope};
use gatewright_workload::profile::{Attainment, StepResult};
use serde::{Deserialize, Serialize};

use crate::Verdict;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The requests after the warm-up.
    pub summary: RunSummary,
    /// What the answers of a language model came to, if there were any.
    pub tokens: Option<Box<TokenSummary>>,
    /// How many requests met the plan's objective, if it has one.
    pub attainment: Option<Attainment>,
    /// Constraints that were broken.
    pub breaches: Vec<Breach>,
    /// Whether the numbers are the server's.
    pub verdict: Verdict,
    /// What ended the run.
    pub stop: Stop,
    /// From the start of the run to the end of its last request, warm-up included.
    pub elapsed: Duration,
    /// Requests of the warm-up and the cool-down, which are in no other number here.
    pub warmup_requests: u64,
    /// Requests that were due and never sent: no connection could be made or was free in time. They are in the
    /// summary as failures, with the time they waited.
    pub unsent: u64,
    /// Requests of an open loop that waited because all connections were taken and no more were allowed: their
    /// lateness is the doing of [`Plan::max_connections`](crate::Plan::max_connections) and of the server.
    pub waited: u64,
    /// How late the engine noticed that requests were due, where nothing but itself was in the way; in
    /// nanoseconds. Empty in a closed loop.
    pub noticing: LatencyHistogram,
    /// Connections opened.
    pub connections_opened: u64,
    /// Connections open at once, at most.
    pub connections_peak: usize,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Threads that made the load.
    pub threads: u32,
    /// Processor time of all the engine's threads.
    pub cpu: Duration,
    /// Part of the run that the busiest thread was on a processor, 0 to 1.
    pub busy: f64,
    /// Part of the run that a thread, at most, could have run but found no processor free, 0 to 1: above some
    /// per cent, other work on the machine is in the numbers. Zero where the system does not tell.
    pub starved: f64,
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Its duration was over.
    Duration,
    /// All its requests were made.
    Requests,
    /// Its schedule was over: the last step, or the end of a trace.
    Schedule,
    /// Too many requests failed.
    Errors,
    /// A constraint was broken: see [`Outcome::breaches`].
    Constraint,
    /// Whoever watched its progress wanted it.
    Asked,
}

/// An [`Outcome`] in plain numbers, as it is written to JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeReport {
    /// See [`Outcome::verdict`].
    pub verdict: Verdict,
    /// See [`Outcome::stop`].
    pub stop: Stop,
    /// See [`Outcome::elapsed`]; nanoseconds.
    pub elapsed_ns: u64,
    /// See [`Outcome::summary`].
    pub run: RunReport,
    /// See [`Outcome::tokens`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenReport>,
    /// See [`Outcome::attainment`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attainment: Option<Attainment>,
    /// See [`Outcome::breaches`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaches: Vec<Breach>,
    /// See [`Outcome::warmup_requests`].
    pub warmup_requests: u64,
    /// See [`Outcome::unsent`].
    pub unsent: u64,
    /// See [`Outcome::waited`].
    pub waited: u64,
    /// See [`Outcome::noticing`].
    pub noticing: Summary,
    /// See [`Outcome::connections_opened`].
    pub connections_opened: u64,
    /// See [`Outcome::connections_peak`].
    pub connections_peak: usize,
    /// See [`Outcome::connect_failures`].
    pub connect_failures: u64,
    /// See [`Outcome::threads`].
    pub threads: u32,
    /// See [`Outcome::cpu`]; seconds.
    pub cpu_s: f64,
    /// See [`Outcome::cpu_micros_per_request`].
    pub cpu_us_per_request: Option<f64>,
    /// See [`Outcome::busy`].
    pub busy: f64,
    /// See [`Outcome::starved`].
    pub starved: f64,
}

impl Outcome {
    /// Processor time of the engine for each request, in microseconds; none without requests.
    #[must_use]
    pub fn cpu_micros_per_request(&self) -> Option<f64> {
        let requests = self.summary.requests() + self.warmup_requests;
        (requests > 0).then(|| self.cpu.as_secs_f64() * 1e6 / requests as f64)
    }

    /// What the answers of a language model came to, in plain numbers; rates from the first start to the last end.
    #[must_use]
    pub fn token_report(&self) -> Option<TokenReport> {
        let seconds = self.summary.span().as_secs_f64();
        self.tokens.as_ref().map(|tokens| tokens.report(seconds))
    }

    /// What a profile has to know of it.
    #[must_use]
    pub fn step_result(&self) -> StepResult {
        let seconds = self.summary.span().as_secs_f64().max(1e-9);
        let served = &self.summary.service_time;
        let in_service = served.mean().unwrap_or(0.0) / 1e9 * served.count() as f64;
        let behind = |breach: &Breach| ["backlog", "over_saturation"].contains(&&*breach.rule);
        let ends_all = |breach: &Breach| breach.scope == Scope::All && breach.mode == Mode::Enforce;
        let attainment = self.attainment.clone().unwrap_or_default();
        StepResult {
            rate: self.summary.achieved_rate().unwrap_or(0.0),
            concurrency: in_service / seconds,
            mean_response: self.summary.response_time.mean().unwrap_or(0.0) / 1e9,
            output_tokens_rate: self
                .token_report()
                .and_then(|report| report.output_tokens_per_second),
            attainment,
            overloaded: self.unsent > 0 || self.breaches.iter().any(behind),
            ends_all: self.stop == Stop::Asked || self.breaches.iter().any(ends_all),
        }
    }

    /// The outcome in plain numbers.
    #[must_use]
    pub fn report(&self) -> OutcomeReport {
        OutcomeReport {
            verdict: self.verdict.clone(),
            stop: self.stop,
            elapsed_ns: u64::try_from(self.elapsed.as_nanos()).unwrap_or(u64::MAX),
            run: self.summary.report(),
            tokens: self.token_report(),
            attainment: self.attainment.clone(),
            breaches: self.breaches.clone(),
            warmup_requests: self.warmup_requests,
            unsent: self.unsent,
            waited: self.waited,
            noticing: self.noticing.summary(),
            connections_opened: self.connections_opened,
            connections_peak: self.connections_peak,
            connect_failures: self.connect_failures,
            threads: self.threads,
            cpu_s: self.cpu.as_secs_f64(),
            cpu_us_per_request: self.cpu_micros_per_request(),
            busy: self.busy,
            starved: self.starved,
        }
    }
}
