use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gatewright_bench::{
    BenchError, DEFAULT_MAX_CONNECTIONS, Outcome as Measured, Plan, RecordSink, Snapshot, Stop,
    Target, Verdict,
};
use gatewright_record::{RunReport, Summary};
use gatewright_workload::{Limits, Strategy};
use serde::Serialize;

use super::Format;
use crate::demand::Offer;
use crate::failure::{Exit, Failure, Outcome, reason};
use crate::files::{self, RecordFile};
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Meter;
use crate::render::{Level, Sheet, count, duration, rate};

/// Load a server over HTTP, and measure how it takes that.
///
/// Without further flags, 8 streams ask one request after the other for 10 seconds. With --rate, requests are
/// sent at their own times, however slow the answers are, and response times are counted from those times.
///
/// Ctrl-C ends it early with what was measured so far.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright bench http://127.0.0.1:8080/restaurant
  gatewright bench http://127.0.0.1:8080/function/square --body 3 --rate 8 --duration 30s
  gatewright bench http://127.0.0.1:8080/function/square --body 3 --strategy poisson --rate 12 \\
      --records measured.csv --output measured.json
  gatewright bench http://127.0.0.1:8080/restaurant --max-concurrency 64 --requests 10000 --format json

Exit status: 3 if --max-errors was reached; 4 if the load generator was the limit, so that the numbers are
not the server's.")]
pub(crate) struct Bench {
    /// What is asked for: http://host:port/path.
    url: String,

    #[command(flatten)]
    offer: Offer,

    /// How long requests are offered [default: 10s, without --requests].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "Limits")]
    duration: Option<Duration>,

    /// Requests offered at most.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    requests: Option<u64>,

    /// Stop when this many requests have failed.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_errors: Option<u64>,

    /// First part of the run that is left out of its numbers.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[arg(default_value = "0s", help_heading = "Limits")]
    warmup: Duration,

    /// HTTP method [default: GET, with a body POST].
    #[arg(long, help_heading = "Request")]
    method: Option<String>,

    /// Header of every request; may be given again.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    #[arg(help_heading = "Request")]
    headers: Vec<(String, String)>,

    /// Body of every request. What is JSON is sent as application/json, unless a header says otherwise.
    #[arg(long, value_name = "TEXT", help_heading = "Request")]
    body: Option<String>,

    /// File with the body of every request.
    #[arg(long, value_name = "FILE", conflicts_with = "body", help_heading = "Request")]
    body_file: Option<PathBuf>,

    /// How long a request may take.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[arg(default_value = "30s", help_heading = "Request")]
    timeout: Duration,

    /// Threads that make the load [default: as many as the load needs].
    #[arg(long, value_name = "N", help_heading = "Generator")]
    threads: Option<u32>,

    /// Connections at most, with --rate.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CONNECTIONS)]
    #[arg(help_heading = "Generator")]
    max_connections: u32,

    /// Seed of the arrivals: the same seed asks at the same moments.
    #[arg(long, default_value_t = 1, help_heading = "Generator")]
    seed: u64,

    /// Name of the run, in its records and request ids.
    #[arg(long, default_value = "bench", help_heading = "Result")]
    name: String,

    /// File for a record of every request, .csv or .jsonl.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    records: Option<PathBuf>,

    /// File for the result as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    output: Option<PathBuf>,

    /// What the result on stdout is written as.
    #[arg(long, value_enum, default_value_t, help_heading = "Result")]
    format: Format,
}

/// The result as JSON. Times are in nanoseconds, rates per second.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    name: &'a str,
    url: &'a str,
    method: &'a str,
    strategy: Strategy,
    limits: Limits,
    seed: u64,
    verdict: &'a Verdict,
    stop: Stop,
    elapsed_ns: u64,
    warmup_ns: u64,
    warmup_requests: u64,
    threads: u32,
    cpu_ns: u64,
    busy: f64,
    starved: f64,
    connections_opened: u64,
    connections_peak: usize,
    connect_failures: u64,
    unsent: u64,
    waited: u64,
    noticing: Summary,
    report: RunReport,
}

const SCHEMA: &str = "gatewright.bench/1";
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or("write \"name: value\", such as \"accept: text/plain\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Bench {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let plan = self.plan()?;
        plan.check().map_err(explain)?;
        let mut records = self.records.as_deref().map(RecordFile::create).transpose()?;
        let measured = measure(&plan, records.as_mut(), quiet)?;
        if let Some(records) = records {
            records.finish()?;
        }
        let document = document(&plan, &measured);
        if let Some(path) = &self.output {
            files::write(path, &output::to_json(&document)?)?;
        }
        match self.format {
            Format::Json => output::json(&document)?,
            Format::Text => output::data(&sheet(&plan, &measured, &document.report).to_string())?,
        }
        Ok(exit(&measured))
    }

    fn plan(&self) -> Outcome<Plan> {
        let strategy = self.offer.strategy()?;
        let duration =
            self.duration.or_else(|| self.requests.is_none().then_some(DEFAULT_DURATION));
        let limits = Limits { requests: self.requests, duration, errors: self.max_errors };
        let mut plan = Plan::new(self.target()?, strategy, limits);
        plan.name.clone_from(&self.name);
        plan.warmup = self.warmup;
        plan.seed = self.seed;
        plan.threads = self.threads;
        plan.max_connections = self.max_connections;
        plan.timeout = self.timeout;
        Ok(plan)
    }

    fn target(&self) -> Outcome<Target> {
        let body = match (&self.body, &self.body_file) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(path)) => {
                Some(std::fs::read(path).map_err(|fault| Failure::of_reading(path, &fault))?)
            }
            (None, None) => None,
        };
        let method = match (&self.method, &body) {
            (Some(method), _) => method.as_str(),
            (None, Some(_)) => "POST",
            (None, None) => "GET",
        };
        let mut headers = self.headers.clone();
        let is_json = |body: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && body.as_deref().is_some_and(is_json) {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let (url, method) = (self.url.clone(), method.to_ascii_uppercase());
        Ok(Target { url, method, headers, body: body.unwrap_or_default() })
    }
}

fn measure(plan: &Plan, records: Option<&mut RecordFile>, quiet: bool) -> Outcome<Measured> {
    let interrupt = Interrupt::listen()?;
    let mut meter = Meter::new("bench", quiet);
    let mut progress = |snapshot: &Snapshot| {
        meter.update(snapshot.fraction, snapshot.left, &line(snapshot));
        if interrupt.is_asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let records = records.map(|file| file.writer() as &mut dyn RecordSink);
    gatewright_bench::run(plan, &mut progress, records).map_err(explain)
}

fn line(snapshot: &Snapshot) -> String {
    let mut text = format!("{} answered, {}", count(snapshot.done), rate(snapshot.rate));
    if let Some(p50) = snapshot.p50 {
        text.push_str(&format!(", p50 {}", duration(p50 as f64)));
    }
    if snapshot.errors > 0 {
        text.push_str(&format!(", {} failed", count(snapshot.errors)));
    }
    text
}

/// What the engine could not do, and whether that is the user's to change.
fn explain(error: BenchError) -> Failure {
    let failure = match &error {
        BenchError::Connect { address, source } => {
            return Failure::failed(format!("cannot connect to {address}: {}", reason(source)))
                .hint("is the server running there? `gatewright serve` starts a gateway");
        }
        BenchError::Resolve { host, source } => {
            return Failure::failed(format!("cannot find host \"{host}\": {}", reason(source)))
                .hint("check the name in the URL");
        }
        BenchError::System(_) | BenchError::Records { .. } => Failure::failed(&error),
        _ => Failure::usage(&error),
    };
    match &error {
        BenchError::Records { .. } => failure.hint("give --records a file on a disk with room"),
        BenchError::System(_) => failure,
        _ => failure.hint("`gatewright bench --help` has examples"),
    }
}

fn exit(measured: &Measured) -> Exit {
    let statuses = &measured.summary.statuses;
    match (&measured.verdict, measured.stop) {
        (_, Stop::Errors) => Exit::NotMet,
        (Verdict::GeneratorLimited { .. }, _) => Exit::NotValid,
        (Verdict::Valid, _) if statuses.ok == 0 && statuses.failed() > 0 => Exit::Failed,
        (Verdict::Valid, _) => Exit::Done,
    }
}

fn document<'a>(plan: &'a Plan, measured: &'a Measured) -> Document<'a> {
    Document {
        schema: SCHEMA,
        name: &plan.name,
        url: &plan.target.url,
        method: &plan.target.method,
        strategy: plan.strategy.clone(),
        limits: plan.limits,
        seed: plan.seed,
        verdict: &measured.verdict,
        stop: measured.stop,
        elapsed_ns: nanos(measured.elapsed),
        warmup_ns: nanos(plan.warmup),
        warmup_requests: measured.warmup_requests,
        threads: measured.threads,
        cpu_ns: nanos(measured.cpu),
        busy: measured.busy,
        starved: measured.starved,
        connections_opened: measured.connections_opened,
        connections_peak: measured.connections_peak,
        connect_failures: measured.connect_failures,
        unsent: measured.unsent,
        waited: measured.waited,
        noticing: measured.noticing.summary(),
        report: measured.summary.report(),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn sheet<'a>(plan: &Plan, measured: &Measured, report: &'a RunReport) -> Sheet<'a> {
    let (level, verdict) = verdict(measured, report);
    let seed = if plan.strategy.rate().is_some() {
        format!(", seed {}", plan.seed)
    } else {
        String::new()
    };
    let mut facts = vec![(
        "generator",
        format!(
            "{} thread{}, {:.0} % busy, {} connections",
            measured.threads,
            if measured.threads == 1 { "" } else { "s" },
            measured.busy * 100.0,
            count(measured.connections_opened),
        ),
    )];
    if measured.unsent > 0 {
        facts.push(("unsent", format!("{} never found a connection", count(measured.unsent))));
    }
    if measured.waited > 0 {
        let waited = count(measured.waited);
        facts.push(("waited", format!("{waited} would have used more than --max-connections")));
    }
    Sheet {
        title: format!("bench {} ({}{seed})", plan.target.url, plan.strategy),
        level,
        verdict,
        facts,
        report,
    }
}

/// The verdict first: whether the numbers are the server's, and whether it answered.
fn verdict(measured: &Measured, report: &RunReport) -> (Level, String) {
    let failed = report.statuses.failed();
    let early = if measured.stop == Stop::Asked { " It was ended early." } else { "" };
    if let Verdict::GeneratorLimited { why } = &measured.verdict {
        return (Level::Bad, format!("Not valid, the load generator was the limit: {why}.{early}"));
    }
    if measured.stop == Stop::Errors {
        return (Level::Bad, format!("Stopped: {} requests failed.", count(failed)));
    }
    match (failed, report.requests) {
        (_, 0) => (Level::Doubtful, format!("Nothing was measured.{early}")),
        (0, _) => (Level::Good, format!("Valid: every request was answered.{early}")),
        (failed, all) => {
            let percent = failed as f64 / all as f64 * 100.0;
            let what = format!("Valid, but {} of {} requests failed", count(failed), count(all));
            (Level::Doubtful, format!("{what} ({percent:.1} %).{early}"))
        }
    }
}
