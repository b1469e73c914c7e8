use std::time::Duration;

use gatewright_record::{
    Distribution, LatencyHistogram, RunReport, RunSummary, SeriesReport, Summary, TimeSeries,
    TokenReport, TokenSummary,
};
use gatewright_workload::constraint::{Breach, Mode, Scope};
use gatewright_workload::profile::{Attainment, StepResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::parts::{self, PartReport, Parts};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The requests after the warm-up.
    pub summary: RunSummary,
    /// What the answers of a language model came to, if there were any.
    pub tokens: Option<Box<TokenSummary>>,
    /// How many requests met the plan's objective, if it has one.
    pub attainment: Option<Attainment>,
    /// What happened in each second.
    pub series: TimeSeries,
    /// The requests by what tells them apart.
    pub parts: Parts,
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
    /// Conversations that ended because a turn of theirs failed.
    pub broken_conversations: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeReport {
    /// See [`Outcome::verdict`].
    pub verdict: Verdict,
    /// See [`Outcome::stop`].
    pub stop: Stop,
    /// See [`Outcome::elapsed`]; nanoseconds.
    pub elapsed_ns: u64,
    /// See [`Outcome::summary`]; the same numbers that a simulation tells.
    pub run: RunReport,
    /// The same distributions, and those of tokens, with intervals and curves.
    pub distributions: Distributions,
    /// Mean number of requests in service, by Little's law.
    pub concurrency: Option<f64>,
    /// See [`Outcome::series`].
    pub series: SeriesReport,
    /// Requests by the name of their target, where targets have names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<PartReport>,
    /// Requests by the status code of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<PartReport>,
    /// Requests by their place in a session, where there are sessions; the last is with all later ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<PartReport>,
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
    /// See [`Outcome::broken_conversations`].
    #[serde(default)]
    pub broken_conversations: u64,
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

/// The distributions of a step. Times in nanoseconds; those of numbers say so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distributions {
    /// Scheduled (sent, in a closed loop) to finished, of requests that ended well.
    pub response_time: Distribution,
    /// Sent to finished, of requests that ended well.
    pub service_time: Distribution,
    /// Scheduled to sent, of all requests that were sent.
    pub lateness: Distribution,
    /// Scheduled to the end, of requests that did not end well.
    pub failed_time: Distribution,
    /// Time to first token: sent to the first piece with a token. Only of answers that were streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Distribution>,
    /// Scheduled (sent, in a closed loop) to the first piece with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_ttft: Option<Distribution>,
    /// Sent to the first piece of the answer proper, past what the model thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_output: Option<Distribution>,
    /// Inter-token latency of each request, (last - first) / (tokens - 1), weighted by its tokens but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itl: Option<Distribution>,
    /// Time per output token, (last - sent) / tokens, weighted by tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot: Option<Distribution>,
    /// Every time from one piece to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Distribution>,
    /// The longest of these in each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap: Option<Distribution>,
    /// Tokens of each prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<Distribution>,
    /// Tokens of each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<Distribution>,
    /// Thousandths of tokens of each answer per second of its service time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_rate: Option<Distribution>,
    /// Pieces of each streamed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<Distribution>,
}

impl Distributions {
    fn of(summary: &RunSummary, tokens: Option<&TokenSummary>) -> Self {
        let told = |of: fn(&TokenSummary) -> &LatencyHistogram| {
            let histogram = of(tokens?);
            (histogram.count() > 0).then(|| Distribution::of(histogram))
        };
        Self {
            response_time: Distribution::of(&summary.response_time),
            service_time: Distribution::of(&summary.service_time),
            lateness: Distribution::of(&summary.lateness),
            failed_time: Distribution::of(&summary.failed_time),
            ttft: told(|tokens| &tokens.ttft),
            response_ttft: told(|tokens| &tokens.response_ttft),
            first_output: told(|tokens| &tokens.first_output),
            itl: told(|tokens| &tokens.itl),
            tpot: told(|tokens| &tokens.tpot),
            gap: told(|tokens| &tokens.gaps),
            longest_gap: told(|tokens| &tokens.longest_gap),
            tokens_in: told(|tokens| &tokens.tokens_in),
            tokens_out: told(|tokens| &tokens.tokens_out),
            token_rate: told(|tokens| &tokens.rate),
            pieces: told(|tokens| &tokens.pieces_each),
        }
    }
}

impl Outcome {
    /// Mean number of requests in service: by Little's law, of requests that ended well; none without any.
    #[must_use]
    pub fn concurrency(&self) -> Option<f64> {
        let served = &self.summary.service_time;
        let seconds = self.summary.span().as_secs_f64();
        let in_service = served.mean()? / 1e9 * served.count() as f64;
        (seconds > 0.0).then(|| in_service / seconds)
    }

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
        let behind = |breach: &Breach| ["backlog", "over_saturation"].contains(&&*breach.rule);
        let ends_all = |breach: &Breach| breach.scope == Scope::All && breach.mode == Mode::Enforce;
        let attainment = self.attainment.clone().unwrap_or_default();
        StepResult {
            rate: self.summary.achieved_rate().unwrap_or(0.0),
            concurrency: self.concurrency().unwrap_or(0.0),
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
            distributions: Distributions::of(&self.summary, self.tokens.as_deref()),
            concurrency: self.concurrency(),
            series: self.series.report(),
            targets: parts::reports(&self.parts.targets),
            codes: parts::reports(&self.parts.codes),
            turns: parts::reports(&self.parts.turns),
            tokens: self.token_report(),
            attainment: self.attainment.clone(),
            breaches: self.breaches.clone(),
            warmup_requests: self.warmup_requests,
            unsent: self.unsent,
            waited: self.waited,
            broken_conversations: self.broken_conversations,
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
