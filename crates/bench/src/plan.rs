use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_workload::constraint::{Constraint, Measured, Window};
use gatewright_workload::profile::Slo;
use gatewright_workload::{Limits, Strategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AnswerKind, BenchError, Data, Dialogue, Trust};

/// Connections at most, where a [`Plan`] does not say otherwise.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 512;
/// Requests at a time on a connection of HTTP/2, where a [`Plan`] does not say otherwise.
pub const DEFAULT_CONNECTION_STREAMS: u32 = 100;
/// Time that a connection may take to be made, where a [`Plan`] does not say otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a request may take, where a [`Plan`] does not say otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// One thread takes this many requests a second of an open loop with ease; above, another one helps.
const RATE_PER_THREAD: f64 = 20_000.0;
/// Streams of a closed loop that one thread serves before another one helps.
const STREAMS_PER_THREAD: u32 = 64;

const MAX_THREADS: u32 = 256;
const MAX_CONNECTIONS: u32 = 65_536;
const MAX_CONNECTION_STREAMS: u32 = 10_000;
const MAX_SPAN: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What is asked for, again and again.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `http://host[:port][/path][?query]`, or `https://`.
    pub url: String,
    /// HTTP method; empty is GET.
    pub method: String,
    /// Headers besides those that the engine sets: host, user-agent, accept (which they may replace),
    /// content-length and the request id (which they may not).
    pub headers: Vec<(String, String)>,
    /// Body of every request.
    pub body: Vec<u8>,
}

/// One of several things that are asked for.
#[derive(Clone, Debug)]
pub struct WeightedTarget {
    /// Its name, which is the class of its records.
    pub name: Option<String>,
    /// How often it is asked for, beside the others: more than zero.
    pub weight: f64,
    /// What is asked for.
    pub target: Target,
    /// What its answers hold.
    pub answer: AnswerKind,
    /// How its requests go on from the answers before, where they are a conversation.
    pub dialogue: Dialogue,
}

/// What becomes of requests in flight when the run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtEnd {
    /// They are awaited: the slowest answers count.
    #[default]
    Drain,
    /// They are cut off, and counted as cancelled.
    Cancel,
}

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the run: names the function in its records, and begins its request ids. 1 to 64 letters, digits
    /// and `-_.`.
    pub name: String,
    /// What is asked for.
    pub target: Target,
    /// How requests are offered.
    pub strategy: Strategy,
    /// When to stop.
    pub limits: Limits,
    /// Seed of the schedule.
    pub seed: u64,
    /// Threads that make the load; see [`Plan::threads`] for what none means.
    pub threads: Option<u32>,
    /// Connections that an open loop may have open at once, 1 to 65,536. Connections are opened when a request is
    /// due and none is idle. A closed loop has one a stream.
    pub max_connections: u32,
    /// Whether requests are made by HTTP/2: over TLS as agreed there (ALPN), else without asking (prior knowledge).
    pub http2: bool,
    /// Requests at a time on a connection of HTTP/2, 1 to 10,000; the server may allow fewer. Another connection is
    /// opened when all are full.
    pub streams_per_connection: u32,
    /// How long a connection may take to be made, more than zero; never longer than `timeout`.
    pub connect_timeout: Duration,
    /// How long a request may take from its scheduled moment (its sending, in a closed loop) to the end of the
    /// answer, more than zero.
    pub timeout: Duration,
    /// Whether each request carries a header `x-request-id: {name}-{number, 12 digits}`, by which the server's
    /// records can be matched with these.
    pub request_ids: bool,
    /// What the answers of `target` hold.
    pub answer: AnswerKind,
    /// Several targets on one server in place of `target`, which then counts for nothing. With equal weights they
    /// come one after the other; otherwise each request's is drawn from the seed and its number.
    pub mix: Vec<WeightedTarget>,
    /// What places like `{{prompt}}` in the targets are filled from.
    pub data: Option<Data>,
    /// Unix socket on which the server listens; the URL then only tells host header and path.
    pub unix_socket: Option<PathBuf>,
    /// How the server of an `https://` URL proves who it is.
    pub trust: Trust,
    /// How often a request is made once more whose connection broke or which was answered with 429, 502, 503 or 504.
    /// Its times go on from the first attempt.
    pub retries: u32,
    /// What ends the run besides its limits.
    pub constraints: Vec<Constraint>,
    /// Part of the run that is measured; the rest is in no number and no record.
    pub window: Window,
    /// What becomes of requests in flight at the end.
    pub at_end: AtEnd,
    /// What each request is measured by, if anything.
    pub slo: Option<Slo>,
}

impl Target {
    /// GET of `url`, without headers of its own.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

impl Plan {
    /// A plan with the defaults: seed 1, [`DEFAULT_MAX_CONNECTIONS`], [`DEFAULT_TIMEOUT`], request
    /// ids.
    #[must_use]
    pub fn new(target: Target, strategy: Strategy, limits: Limits) -> Self {
        Self {
            name: "bench".into(),
            target,
            strategy,
            limits,
            seed: 1,
            threads: None,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            http2: false,
            streams_per_connection: DEFAULT_CONNECTION_STREAMS,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            timeout: DEFAULT_TIMEOUT,
            request_ids: true,
            answer: AnswerKind::Opaque,
            mix: Vec::new(),
            data: None,
            unix_socket: None,
            trust: Trust::default(),
            retries: 0,
            constraints: Vec::new(),
            window: Window::default(),
            at_end: AtEnd::Drain,
            slo: None,
        }
    }

    /// Threads that make the load. Unless the plan says how many: one for every 20,000 requests per second of an
    /// open loop or 64 streams of a closed one, at most one a processor. A thread that is not needed only
    /// takes processor time from a server on the same machine.
    #[must_use]
    pub fn threads(&self) -> u32 {
        let most = self.strategy.concurrency().unwrap_or(self.max_connections);
        let wanted = self.threads.unwrap_or_else(|| {
            let useful = match self.strategy.peak_rate() {
                Some(rate) => (rate / RATE_PER_THREAD).ceil() as u32,
                None => most.div_ceil(STREAMS_PER_THREAD),
            };
            let processors = thread::available_parallelism().map_or(1, NonZero::get);
            useful.min(u32::try_from(processors).unwrap_or(MAX_THREADS))
        });
        wanted.clamp(1, most.clamp(1, MAX_THREADS))
    }

    /// Connections that the whole run may have open at once.
    pub(crate) fn connections(&self) -> u32 {
        self.strategy.concurrency().unwrap_or(self.max_connections)
    }

    /// Requests at a time on a connection of HTTP/2, if that is spoken.
    pub(crate) fn streams(&self) -> Option<u32> {
        self.http2.then_some(self.streams_per_connection)
    }

    /// The part of the run that is in its numbers.
    pub(crate) fn measured(&self) -> Result<Measured, BenchError> {
        Ok(self.window.measured(Time::ZERO, &self.limits)?)
    }

    /// Whether the plan can be carried out, the target aside.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), BenchError> {
        self.strategy.check()?;
        self.strategy.ready()?;
        self.limits.check()?;
        self.constraints.iter().try_for_each(Constraint::check)?;
        self.slo.as_ref().map_or(Ok(()), Slo::check)?;
        self.measured()?;
        self.check_settings()
    }

    fn check_settings(&self) -> Result<(), BenchError> {
        if !self.limits.are_finite() && !self.strategy.is_finite() {
            return Err(BenchError::Endless);
        }
        let setting = |name, problem: String| Err(BenchError::Setting { name, problem });
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&self.name.len()) || !self.name.chars().all(is_plain) {
            let problem =
                format!("\"{}\" must be 1 to 64 letters, digits, '-', '_', '.'", self.name);
            return setting("name", problem);
        }
        if self.threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
            return setting(
                "threads",
                format!("give 1 to {MAX_THREADS}, or none to have it chosen"),
            );
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections()) {
            let problem =
                format!("{} is not usable; give 1 to {MAX_CONNECTIONS}", self.connections());
            return setting("connections", problem);
        }
        if !(1..=MAX_CONNECTION_STREAMS).contains(&self.streams_per_connection) {
            let problem = format!(
                "{} is not usable; give 1 to {MAX_CONNECTION_STREAMS}",
                self.streams_per_connection
            );
            return setting("streams of a connection", problem);
        }
        if let Some(bad) =
            self.mix.iter().find(|target| !(target.weight > 0.0 && target.weight < 1e9))
        {
            return setting("weight", format!("{} is not usable; give more than 0", bad.weight));
        }
        for (name, span) in [("timeout", self.timeout), ("connect timeout", self.connect_timeout)] {
            if span.is_zero() || span > MAX_SPAN {
                return setting(name, "give more than zero and at most seven days".into());
            }
        }
        if self.limits.duration.is_some_and(|span| span > MAX_SPAN) {
            return setting("duration", "give at most seven days".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(strategy: Strategy) -> Plan {
        let limits = Limits { requests: Some(1), ..Limits::default() };
        Plan::new(Target::get("http://localhost/"), strategy, limits)
    }

    #[test]
    fn takes_no_more_threads_than_there_is_work() {
        assert_eq!(plan(Strategy::Synchronous).threads(), 1);
        assert_eq!(plan(Strategy::Concurrent { streams: 64 }).threads(), 1);
        assert_eq!(plan(Strategy::Poisson { rate: 19_999.0 }).threads(), 1);
        let asked = Plan { threads: Some(3), ..plan(Strategy::Concurrent { streams: 2 }) };
        assert_eq!(asked.threads(), 2);
        let asked = Plan { threads: Some(3), ..plan(Strategy::Constant { rate: 1.0 }) };
        assert_eq!(asked.threads(), 3);
    }

    #[test]
    fn that_cannot_be_carried_out_is_refused() {
        let good = plan(Strategy::Constant { rate: 10.0 });
        assert!(good.check().is_ok());
        let bad = [
            (Plan { limits: Limits::default(), ..good.clone() }, "the run has no end; limit"),
            (Plan { threads: Some(0), ..good.clone() }, "threads: give 1 to 256"),
            (Plan { max_connections: 0, ..good.clone() }, "connections: 0 is not usable"),
            (
                Plan { streams_per_connection: 0, ..good.clone() },
                "streams of a connection: 0 is not usable",
            ),
            (Plan { timeout: Duration::ZERO, ..good.clone() }, "timeout: give more than zero"),
            (
                Plan { connect_timeout: Duration::ZERO, ..good.clone() },
                "connect timeout: give more than zero",
            ),
            (Plan { name: "a b".into(), ..good }, "name: \"a b\" must be"),
            (plan(Strategy::Constant { rate: 0.0 }), "constant: rate 0"),
            (plan(Strategy::Concurrent { streams: 70_000 }), "connections: 70000 is not usable"),
        ];
        for (plan, start) in bad {
            let error = plan.check().unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }
}
