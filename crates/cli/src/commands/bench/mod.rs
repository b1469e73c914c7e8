mod client;
mod ends;
mod live;
mod load;
mod metrics;
mod request;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use gatewright_bench::{
    BUILTIN, BenchError, Builtin, Prepared, RecordSink, Report, Scenario, ScenarioError,
    SeriesOutcome, Snapshot, Stop, run_series,
};
use gatewright_control::config::read_with;
use gatewright_workload::Strategy;

use self::client::ClientFlags;
use self::ends::{Ends, Objective};
use self::live::Live;
use self::load::{Load, Offered};
use self::metrics::Exporter;
use self::request::Request;
pub(crate) use self::values::parse_amount;
use self::values::parse_label;
use crate::failure::{Exit, Failure, Outcome, reason};
use crate::files::{self, RecordFile};
use crate::interrupt::{Interrupt, Signal};
use crate::progress::Meter;
use crate::render::{BenchSheet, bench_csv, count, duration, rate};
use crate::{output, reports, settings};

/// Load a server over HTTP, and measure how it takes that.
///
/// Without further flags, 8 streams ask one request after the other for 10 seconds. With --rate, requests are
/// sent at their own times, however slow the answers are, and response times are counted from those times.
///
/// Ctrl-C ends it early with what was measured so far.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  What can it do, and how does it feel at 200 requests a second?
    gatewright bench http://127.0.0.1:8080/restaurant --max-concurrency 64
    gatewright bench http://127.0.0.1:8080/restaurant --strategy poisson --rate 200 --duration 30s

  Which rate is the highest at which 99 % of the requests are answered within 200 ms?
    gatewright bench http://127.0.0.1:8080/function/square --body 3 --strategy search --slo-response 200ms

  Latency over rate, as a page to look at:
    gatewright bench http://127.0.0.1:8080/restaurant --strategy sweep --output sweep.html

  A language model, 4 requests a second, as a test that fails:
    gatewright bench http://127.0.0.1:8000 --openai chat --prompt 'Tell me about rivers.' --max-tokens 64 \\
        --strategy poisson --rate 4 --gate 'ttft p95 <= 500ms' --gate 'errors <= 1%'

  A benchmark that is part of the program, and the same from a file or an earlier result:
    gatewright bench http://127.0.0.1:8000 --scenario chat --rate 2
    gatewright bench --scenario bench.toml
    gatewright bench --scenario result.json --set seed=2

Exit status: 3 if an objective or a gate was missed, or --max-errors was reached; 4 if the load generator was
the limit, so that the numbers are not the server's.")]
pub(crate) struct Bench {
    /// What is asked for: http://host:port/path.
    #[arg(required_unless_present_any = ["scenario", "target", "list_scenarios"])]
    url: Option<String>,

    /// File with a whole benchmark, a result to be run again, or a name of --list-scenarios; flags go over it.
    #[arg(long, value_name = "FILE|NAME")]
    scenario: Option<PathBuf>,

    /// List the benchmarks that are part of the program, and run nothing. --show-scenario prints one, to be changed.
    #[arg(long, hide_short_help = true)]
    list_scenarios: bool,

    #[command(flatten)]
    load: Load,

    #[command(flatten)]
    ends: Ends,

    #[command(flatten)]
    objective: Objective,

    #[command(flatten)]
    request: Request,

    #[command(flatten)]
    client: ClientFlags,

    #[command(flatten)]
    results: Results,

    #[command(flatten)]
    shown: Shown,
}

/// What becomes of the result.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Result")]
struct Results {
    /// Name of the run, in its records and request ids [default: bench].
    #[arg(long, hide_short_help = true)]
    name: Option<String>,

    /// A word for reports, such as version=1.4; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    #[arg(hide_short_help = true)]
    labels: Vec<(String, String)>,

    /// File for a record of every request, .csv, .jsonl or .parquet.
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,

    /// File for the result, .html, .json, .yaml, .csv or .parquet; may be given again.
    #[arg(long, value_name = "FILE")]
    output: Vec<PathBuf>,

    /// What is written to stdout: text, json, yaml or csv.
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    format: BenchFormat,

    /// Show the scenario that the flags come to, as a file for --scenario, and run nothing.
    #[arg(long, hide_short_help = true)]
    show_scenario: bool,
}

/// What is shown while it runs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "While it runs")]
struct Shown {
    /// Show rates, latencies, failures and a histogram on the terminal.
    #[arg(long)]
    live: bool,

    /// Tell Prometheus at http://ADDRESS/metrics, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS", hide_short_help = true)]
    metrics_listen: Option<SocketAddr>,
}

/// What a result is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// The same as YAML
    Yaml,
    /// A line for each step
    Csv,
}

impl Bench {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        if self.list_scenarios {
            return list_scenarios();
        }
        let mut scenario = self.scenario()?;
        if self.results.show_scenario {
            let text = toml::to_string(&scenario)
                .map_err(|fault| Failure::failed(format!("cannot write the scenario: {fault}")))?;
            output::data(&text)?;
            return Ok(Exit::Done);
        }
        let folder = self.folder();
        let variable = |name: &str| std::env::var(name).ok();
        let explain = |error| explain_scenario(error, self.scenario.as_deref());
        let mut prepared = scenario.prepare(&folder, &variable).map_err(explain)?;
        if scenario.find_models(&folder, &variable).map_err(explain)? {
            prepared = scenario.prepare(&folder, &variable).map_err(explain)?;
        }
        for path in &self.results.output {
            reports::check_name(path)?;
        }
        prepared.check().map_err(explain_error)?;
        let mut records = self.results.records.as_deref().map(RecordFile::create).transpose()?;
        let started = SystemTime::now();
        let outcome = measure(&prepared, records.as_mut(), &self.shown, quiet)?;
        if let Some(records) = records {
            records.finish()?;
        }
        let report = Report::new(&scenario, started, &outcome);
        for path in &self.results.output {
            files::write_bytes(path, &reports::render(path, std::slice::from_ref(&report))?)?;
        }
        match self.results.format {
            BenchFormat::Text => output::data(&BenchSheet(&report).to_string())?,
            BenchFormat::Json => output::json(&report)?,
            BenchFormat::Yaml => output::data(&reports::to_yaml(&report)?)?,
            BenchFormat::Csv => output::data(&bench_csv(std::slice::from_ref(&report))?)?,
        }
        Ok(exit(&report))
    }

    /// Where relative paths begin: where the scenario lies.
    fn folder(&self) -> PathBuf {
        let folder = self.scenario.as_deref().and_then(Path::parent);
        folder.map_or_else(PathBuf::new, Path::to_owned)
    }

    /// The file, over it the flags.
    fn scenario(&self) -> Outcome<Scenario> {
        let mut scenario = self.read()?;
        let results = &self.results;
        if let Some(name) = &results.name {
            scenario.name.clone_from(name);
        }
        scenario.labels.extend(results.labels.iter().cloned().collect::<BTreeMap<_, _>>());
        self.objective.apply(&mut scenario);
        match self.load.offered(scenario.slo)? {
            Some(Offered::Demands(demands)) => {
                (scenario.demand, scenario.profile) = (demands, None);
            }
            Some(Offered::Profile(profile)) => {
                scenario.demand.clear();
                scenario.profile = Some(profile);
            }
            None if scenario.demand.is_empty() && scenario.profile.is_none() => {
                scenario.demand.push(Load::default_demand());
            }
            None => {}
        }
        self.ends.apply(&mut scenario);
        self.request.apply(self.url.as_deref(), &mut scenario)?;
        self.client.apply(&mut scenario)?;
        Ok(scenario)
    }

    fn read(&self) -> Outcome<Scenario> {
        let mut set = settings::of_benchmarks(std::env::vars());
        set.extend(self.client.set.iter().cloned());
        let Some(path) = &self.scenario else {
            return read_with("", &set)
                .map_err(|fault| Failure::of_config(Path::new("--set"), fault));
        };
        let builtin = path.to_str().filter(|_| !path.exists()).and_then(Builtin::named);
        let text = builtin.map_or_else(|| settings::read(path), |one| Ok(one.text.to_owned()))?;
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            let again = reports::parse(path, &text)?.scenario;
            let text = toml::to_string(&again)
                .map_err(|fault| Failure::failed(format!("{}: {fault}", path.display())))?;
            return read_with(&text, &set).map_err(|fault| Failure::of_config(path, fault));
        }
        read_with(&text, &set).map_err(|mut fault| {
            let hint = || "docs/reference/bench.schema.json says which keys there are".to_owned();
            fault.hint = fault.hint.or_else(|| Some(hint()));
            Failure::of_config(path, fault)
        })
    }
}

fn list_scenarios() -> Outcome {
    for one in &BUILTIN {
        let lines = one.description().map(|line| format!("    {line}\n"));
        output::data(&format!("{}\n{}", one.name, lines.collect::<String>()))?;
    }
    Ok(Exit::Done)
}

fn measure(
    prepared: &Prepared,
    records: Option<&mut RecordFile>,
    shown: &Shown,
    quiet: bool,
) -> Outcome<SeriesOutcome> {
    let interrupt = Interrupt::listen(&[Signal::CtrlC])?;
    let exporter = shown.metrics_listen.map(|address| Exporter::begin(address, quiet));
    let exporter = exporter.transpose()?;
    // Shared by those who tell of steps and of what happens in them.
    let view = RefCell::new(View::begin(shown.live, quiet));
    let mut progress = |snapshot: &Snapshot| {
        view.borrow_mut().update(snapshot);
        exporter.iter().for_each(|exporter| exporter.update(snapshot));
        if interrupt.asked().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let records = records.map(|file| file.writer() as &mut dyn RecordSink);
    let mut each = |number: usize, strategy: &Strategy, outcome: Option<&_>| {
        if outcome.is_none() {
            let several = prepared.series.has_several();
            view.borrow_mut().step(number, strategy, several);
            exporter.iter().for_each(|exporter| exporter.step(number + 1));
        }
    };
    run_series(&prepared.plan, &prepared.series, &mut progress, records, &mut each)
        .map_err(explain_error)
}

/// Who shows how far it is.
enum View {
    Live(Box<Live>),
    Meter(Meter, bool),
}

impl View {
    fn begin(live: bool, quiet: bool) -> Self {
        let wanted = live && !quiet && std::io::stderr().is_terminal();
        match wanted.then(Live::begin).flatten() {
            Some(live) => Self::Live(Box::new(live)),
            None => Self::Meter(Meter::new("bench", quiet), quiet),
        }
    }

    fn step(&mut self, number: usize, strategy: &Strategy, several: bool) {
        match self {
            Self::Live(live) => live.step(format!("step {}: {strategy}", number + 1)),
            Self::Meter(_, quiet) if several && !*quiet => {
                output::note(&format!("step {}: {strategy}", number + 1));
            }
            Self::Meter(..) => {}
        }
    }

    fn update(&mut self, snapshot: &Snapshot) {
        match self {
            Self::Live(live) => live.update(snapshot),
            Self::Meter(meter, _) => {
                meter.update(snapshot.fraction, snapshot.left, &line(snapshot));
            }
        }
    }
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

fn explain_scenario(error: ScenarioError, path: Option<&Path>) -> Failure {
    match error {
        ScenarioError::Bench(error) => explain_error(error),
        ScenarioError::File { path, source } => Failure::of_reading(&path, &source),
        ScenarioError::Part { what, hint } => match path {
            Some(path) => Failure::usage(format!("{}: {what}", path.display())).hint(hint),
            None => Failure::usage(what).hint(hint),
        },
        ScenarioError::Trace { .. } => {
            Failure::usage(error.to_string()).hint("--trace-format says which format it has")
        }
    }
}

/// What the engine could not do, and whether that is the user's to change.
fn explain_error(error: BenchError) -> Failure {
    let failure = match &error {
        BenchError::Connect { address, source } => {
            return Failure::failed(format!("cannot connect to {address}: {}", reason(source)))
                .hint("is the server running there? `gatewright serve` starts a gateway");
        }
        BenchError::ConnectUnix { path, source } => {
            return Failure::failed(format!(
                "cannot connect to {}: {}",
                path.display(),
                reason(source)
            ))
            .hint("is the server running, and listening on that socket?");
        }
        BenchError::Resolve { host, source } => {
            return Failure::failed(format!("cannot find host \"{host}\": {}", reason(source)))
                .hint("check the name in the URL");
        }
        BenchError::Tls { .. } => {
            return Failure::failed(&error)
                .hint("--cacert FILE trusts other certificates, --insecure asks for no proof");
        }
        BenchError::Http2 { .. } => {
            return Failure::failed(&error)
                .hint("leave --http2 out, or ask a server that speaks it");
        }
        BenchError::Check { .. } => {
            return Failure::failed(&error).hint(
                "the run was not begun; --check=60s waits for a server that starts, \
                 --follow-redirects asks where a redirect leads to",
            );
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

fn exit(report: &Report) -> Exit {
    let answered: u64 = report.steps.iter().map(|step| step.result.run.statuses.ok).sum();
    let failed: u64 = report.steps.iter().map(|step| step.result.run.statuses.failed()).sum();
    let by_errors = report.steps.iter().any(|step| step.result.stop == Stop::Errors);
    if !by_errors && !report.verdict.is_valid() {
        Exit::NotValid
    } else if by_errors || report.holds == Some(false) {
        Exit::NotMet
    } else if answered == 0 && failed > 0 {
        Exit::Failed
    } else {
        Exit::Done
    }
}
