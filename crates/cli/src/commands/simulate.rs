use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use gatewright_control::config::{HumanDuration, Override};
use gatewright_record::{
    Estimate, RunReport, RunSummary, Summary, TokenReport, TokenSummary, batch_means,
};
use gatewright_sim::{
    DemandReport, FunctionReport, NodeReport, RecordSink, Simulation, SimulationReport,
};
use serde::Serialize;

use super::Format;
use crate::batches::{BatchReport, Batches};
use crate::design::{self, Draw, Sweep};
use crate::failure::{Exit, Failure, Outcome};
use crate::files::{self, RecordFile};
use crate::frames::Frames;
use crate::rehearsal::{Rehearsal, Script};
use crate::render::{CONFIDENCE, Level, Sheet, count, duration, rate};
use crate::settings::parse_set;
use crate::sweep::{self, Plan};
use crate::{output, replicate};

/// Run a system in virtual time, with the same decisions.
///
/// A scenario says which system, what its functions are like, and who asks for what. The same scenario and seed give the same output, to the byte, on every machine.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright simulate scenario.toml
  gatewright simulate scenario.toml --set function.square.replicas.max=8 --set function.square.replicas.min=8
  gatewright simulate scenario.toml --model measured.model.toml --replications 20
  gatewright simulate scenario.toml --warm-up 1m --batches 20
  gatewright simulate scenario.toml --sweep function.square.replicas.min=[3,4,5] --replications 10
  gatewright simulate scenario.toml --sweep function.square.replicas.max=4..40 --sweep function.square.queue.capacity=0..100 --samples 30 --output table.csv
  gatewright simulate scenario.toml --records simulated.csv --format json")]
pub(crate) struct Simulate {
    /// The scenario: the system, its models, and who asks for what.
    scenario: PathBuf,

    /// Model file, instead of those that the scenario names; may be given again.
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,

    /// Seed of every random number [default: the scenario's].
    #[arg(long)]
    seed: Option<u64>,

    /// Runs with seeds one apart: their means, and how far these may be off.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replications: u32,

    /// Set a key of the system file, such as function.square.replicas.max=16: what if?
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,

    /// Leave out of summaries and averages what was sent before this, such as 5m [default: the scenario's].
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    warm_up: Option<Duration>,

    /// Tell from one long run how far its mean response time may be off, by the means of at least so many batches.
    #[arg(long, value_name = "N", conflicts_with = "replications")]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=10_000))]
    batches: Option<u32>,

    /// Run at every value of a key of the system file, and with several sweeps at every combination; a table as CSV, or as its --output says.
    #[arg(long, value_name = "KEY=[VALUE,...]|MIN..MAX")]
    #[arg(conflicts_with_all = ["records", "frames", "format", "batches"])]
    sweep: Vec<Sweep>,

    /// Of a sweep, run so many points, drawn from all there are; ranges need it.
    #[arg(long, value_name = "N", requires = "sweep")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=100_000))]
    samples: Option<u32>,

    /// How the points of a sweep are drawn.
    #[arg(long, value_enum, default_value_t, requires = "samples")]
    draw: Draw,

    /// Go on with a sweep that was interrupted: rows that its --output has already are kept.
    #[arg(long, requires_all = ["sweep", "output"])]
    resume: bool,

    /// File for a record of every request, .csv, .jsonl or .parquet.
    #[arg(long, value_name = "FILE", conflicts_with = "replications")]
    records: Option<PathBuf>,

    /// Folder for faas-sim's data frames as CSV files: invocations, replica_deployment, flow and so on.
    #[arg(long, value_name = "FOLDER", conflicts_with = "replications")]
    frames: Option<PathBuf>,

    /// How often the frames of utilisation get rows, for each function, replica and node; in the end only unless set.
    #[arg(long, value_name = "SPAN", requires = "frames", value_parser = interval)]
    sample: Option<Duration>,

    /// File for the result as JSON, or for the table of a sweep, .csv, .parquet or .html, a page with charts.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What the result on stdout is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The result as JSON. Times of requests are in nanoseconds, those of functions in seconds, rates per second.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    scenario: String,
    seed: u64,
    replications: u32,
    events: u64,
    /// Over all replications; rates are their means.
    report: RunReport,
    /// Of single numbers over the replications, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimates: Option<Estimates>,
    /// Of the mean response time, by batches of one run, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    batches: Option<BatchReport>,
    demands: Vec<Demand>,
    /// Of the first replication.
    functions: Vec<FunctionReport>,
    /// Of the first replication.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct Demand {
    asks_for: String,
    arrival: gatewright_workload::Strategy,
    report: RunReport,
    /// Where a language model was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<TokenReport>,
}

/// Means over replications with their standard errors.
#[derive(Debug, Serialize)]
struct Estimates {
    achieved_rate: Option<Estimate>,
    response_time_mean_ns: Option<Estimate>,
    response_time_p50_ns: Option<Estimate>,
    response_time_p95_ns: Option<Estimate>,
    response_time_p99_ns: Option<Estimate>,
}

/// Makes sure, before anything runs, that the name does not stand for a table or a page: the result is JSON.
fn check_name(path: &Path) -> Outcome<()> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if !["csv", "html", "parquet"].contains(&ending.as_str()) {
        return Ok(());
    }
    let what = format!("{}: the result of one scenario is JSON", path.display());
    Err(Failure::usage(what).hint("end it in .json; --records writes tables, and --sweep pages"))
}

/// Reads how often something is looked at.
fn interval(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|fault| fault.to_string())?;
    if span < Duration::from_millis(1) { Err("give at least 1ms".to_owned()) } else { Ok(span) }
}

const SCHEMA: &str = "gatewright.simulation/1";

impl Simulate {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        if !self.sweep.is_empty() {
            return self.run_sweep(quiet);
        }
        self.output.as_deref().map_or(Ok(()), check_name)?;
        let mut rehearsal = Rehearsal::load(&self.scenario, &self.model, &self.set)?;
        rehearsal.scenario.warm_up = self.warm_up().or(rehearsal.scenario.warm_up);
        let simulation = rehearsal.simulation(&self.scenario)?;
        rehearsal.extrapolations().iter().for_each(|text| output::warning(text));
        for key in rehearsal.unmodelled() {
            output::warning(&format!(
                "{key} is not simulated: the run goes on as if it were not set"
            ));
        }
        let seed = self.seed.unwrap_or(rehearsal.scenario.seed);
        let mut batches = None;
        let reports = if self.replications > 1 {
            replicate::all(simulation, seed, self.replications, quiet)?
        } else {
            let (report, of_batches) = self.once(&rehearsal, &simulation, seed, quiet)?;
            batches = of_batches;
            vec![report]
        };
        let end = reports.iter().map(|report| report.end).max().unwrap_or_default();
        rehearsal.unreached(end).iter().for_each(|text| output::warning(text));
        if reports.iter().all(|report| report.summary().requests() == 0)
            && rehearsal.scenario.warm_up.is_some()
        {
            output::warning("every request was sent during the warm-up: nothing is left to sum up");
        }
        let document = document(self.scenario.display().to_string(), seed, &reports, batches);
        if let Some(path) = &self.output {
            files::write(path, &output::to_json(&document)?)?;
        }
        match self.format {
            Format::Json => output::json(&document)?,
            Format::Text => output::data(&text(&document))?,
        }
        Ok(Exit::Done)
    }
}

impl Simulate {
    /// One run with all that is to be left behind of it.
    fn once(
        &self,
        rehearsal: &Rehearsal,
        simulation: &Simulation,
        seed: u64,
        quiet: bool,
    ) -> Outcome<(SimulationReport, Option<BatchReport>)> {
        let path = self.records.as_deref().or(rehearsal.records.as_deref());
        let mut records = path.map(RecordFile::create).transpose()?;
        let mut sink = records.as_mut().map(|file| file.writer() as &mut dyn RecordSink);
        let mut series = self.batches.map(|batches| {
            let warm_up = rehearsal.scenario.warm_up.map(HumanDuration::get);
            Batches::new(batches, warm_up.unwrap_or_default(), sink.take())
        });
        let sink = match &mut series {
            Some(series) => Some(series as &mut dyn RecordSink),
            None => sink.map(|sink| sink as &mut dyn RecordSink),
        };
        let report = match &self.frames {
            None => replicate::once(simulation, seed, sink, quiet)?,
            Some(folder) => {
                let mut frames = Frames::create(folder, &rehearsal.system, self.sample, sink)?;
                let report = replicate::once(simulation, seed, Some(&mut frames), quiet)?;
                frames.finish(folder, &report)?;
                report
            }
        };
        let batches = series.map(Batches::finish).transpose()?;
        records.map_or(Ok(()), RecordFile::finish)?;
        Ok((report, batches))
    }

    fn warm_up(&self) -> Option<HumanDuration> {
        self.warm_up.map(HumanDuration::new)
    }

    fn run_sweep(&self, quiet: bool) -> Outcome {
        let mut script = Script::read(&self.scenario, &self.model)?;
        script.scenario.warm_up = self.warm_up().or(script.scenario.warm_up);
        let seed = self.seed.unwrap_or(script.scenario.seed);
        let plan = Plan {
            name: self.scenario.display().to_string(),
            script,
            set: &self.set,
            sweeps: &self.sweep,
            points: design::points(&self.sweep, self.samples, self.draw, seed)?,
            seed,
            replications: self.replications,
            output: self.output.as_deref(),
            resume: self.resume,
        };
        sweep::run(&plan, quiet)?;
        Ok(Exit::Done)
    }
}

fn document(
    scenario: String,
    seed: u64,
    reports: &[SimulationReport],
    batches: Option<BatchReport>,
) -> Document {
    let summaries: Vec<_> = reports.iter().map(SimulationReport::summary).collect();
    let demands = (0..reports[0].demands.len()).map(|nth| {
        let own: Vec<_> =
            reports.iter().map(|report| report.demands[nth].summary.clone()).collect();
        let DemandReport { function, route, arrival, .. } = &reports[0].demands[nth];
        let tokens = reports.iter().filter_map(|report| report.demands[nth].tokens.as_deref());
        let seconds = own.iter().map(|summary| summary.span().as_secs_f64()).sum();
        let tokens = together_of_tokens(tokens, seconds);
        let asks_for = route.as_ref().unwrap_or(function).to_string();
        Demand { asks_for, arrival: arrival.clone(), report: together(&own), tokens }
    });
    Document {
        schema: SCHEMA,
        scenario,
        seed,
        replications: u32::try_from(reports.len()).unwrap_or(u32::MAX),
        events: reports.iter().map(|report| report.events).sum(),
        report: together(&summaries),
        estimates: (reports.len() > 1).then(|| estimates(&summaries)),
        batches,
        demands: demands.collect(),
        functions: reports[0].functions.clone(),
        nodes: reports[0].nodes.clone(),
    }
}

/// All requests of all replications in one; their rates are averaged, since they ran side by side.
fn together(summaries: &[RunSummary]) -> RunReport {
    let mut all = RunSummary::new();
    summaries.iter().for_each(|summary| all.merge(summary));
    let mut report = all.report();
    report.offered_rate = mean(summaries, RunSummary::offered_rate);
    report.achieved_rate = mean(summaries, RunSummary::achieved_rate);
    report
}

/// The tokens of all replications, which took so many seconds one after another.
fn together_of_tokens<'a>(
    tokens: impl Iterator<Item = &'a TokenSummary>,
    seconds: f64,
) -> Option<TokenReport> {
    let all = tokens.cloned().reduce(|mut all, one| {
        all.merge(&one);
        all
    });
    all.map(|all| all.report(seconds))
}

fn mean(summaries: &[RunSummary], of: impl Fn(&RunSummary) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<_>> = summaries.iter().map(of).collect();
    values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
}

fn estimates(summaries: &[RunSummary]) -> Estimates {
    let over = |of: &dyn Fn(&RunReport) -> Option<f64>| {
        let values: Option<Vec<_>> = summaries.iter().map(|one| of(&one.report())).collect();
        let values = values?;
        batch_means(&values, u32::try_from(values.len()).ok()?).ok()
    };
    let nanos = |nanos: Option<u64>| nanos.map(|nanos| nanos as f64);
    Estimates {
        achieved_rate: over(&|report| report.achieved_rate),
        response_time_mean_ns: over(&|report| report.response_time.mean),
        response_time_p50_ns: over(&|report| nanos(report.response_time.p50)),
        response_time_p95_ns: over(&|report| nanos(report.response_time.p95)),
        response_time_p99_ns: over(&|report| nanos(report.response_time.p99)),
    }
}

fn text(document: &Document) -> String {
    let several = document.replications > 1;
    let runs = if several {
        format!(
            "seeds {} to {}",
            document.seed,
            document.seed.wrapping_add(u64::from(document.replications) - 1)
        )
    } else {
        format!("seed {}", document.seed)
    };
    let offered = match &document.demands[..] {
        [one] => format!("{} for {}", one.arrival, one.asks_for),
        several => format!("{} demands", several.len()),
    };
    let mut facts = functions(&document.functions, several);
    facts.extend(nodes(&document.nodes));
    facts.extend(document.estimates.iter().flat_map(intervals));
    facts.extend(document.batches.iter().flat_map(BatchReport::facts));
    facts.extend(document.demands.iter().flat_map(tokens));
    let (level, verdict) = verdict(&document.report);
    let title = format!("simulate {} ({offered}, {runs})", document.scenario);
    let mut text = Sheet { title, level, verdict, facts, report: &document.report }.to_string();
    if document.demands.len() > 1 {
        for demand in &document.demands {
            let (level, verdict) = self::verdict(&demand.report);
            let title = format!("{} ({})", demand.asks_for, demand.arrival);
            let part = Sheet { title, level, verdict, facts: Vec::new(), report: &demand.report };
            text.push_str(&format!("\n{part}"));
        }
    }
    text
}

fn verdict(report: &RunReport) -> (Level, String) {
    let (failed, all) = (report.statuses.failed(), report.requests);
    match (failed, all) {
        (_, 0) => (Level::Doubtful, "Nothing was asked for.".to_owned()),
        (0, _) => (Level::Good, "Every request was answered.".to_owned()),
        _ => {
            let percent = failed as f64 / all as f64 * 100.0;
            let (failed, all) = (count(failed), count(all));
            (Level::Doubtful, format!("{failed} of {all} requests failed ({percent:.1} %)."))
        }
    }
}

fn functions(functions: &[FunctionReport], several: bool) -> Vec<(&'static str, String)> {
    let first = if several { " (first seed)" } else { "" };
    let line = |report: &FunctionReport| {
        format!(
            "{}: {:.2} replicas on average, {} at most; {:.2} requests in service, {:.2} waiting{first}",
            report.function,
            report.replicas_mean,
            report.replicas_max,
            report.in_service_mean,
            report.queued_mean,
        ) + &match report.unplaced {
            0 => String::new(),
            unplaced => format!("; {unplaced} replicas without a node in the end"),
        }
    };
    let labels = std::iter::once("replicas").chain(std::iter::repeat(""));
    labels.zip(functions.iter().map(line)).collect()
}

/// The nodes together, by their kinds.
fn nodes(nodes: &[NodeReport]) -> Vec<(&'static str, String)> {
    let mut kinds: BTreeMap<&str, Vec<&NodeReport>> = BTreeMap::new();
    for node in nodes {
        kinds.entry(node.device.as_deref().unwrap_or("other")).or_default().push(node);
    }
    let line = |(kind, nodes): (&str, Vec<&NodeReport>)| {
        let sum = |of: fn(&NodeReport) -> f64| nodes.iter().map(|node| of(node)).sum::<f64>();
        let pulled: u64 = nodes.iter().map(|node| node.pulled).sum();
        let mut line = format!(
            "{} {kind}: {:.2} replicas on average, {:.1} % of their cores at work, {} MB of images pulled",
            nodes.len(),
            sum(|node| node.replicas_mean),
            sum(|node| node.busy_mean) / nodes.len() as f64 * 100.0,
            count(pulled / 1_000_000),
        );
        if nodes.iter().any(|node| node.joules.is_some()) {
            let hours = sum(|node| node.joules.unwrap_or(0.0)) / 3_600.0;
            line.push_str(&format!(", {hours:.1} Wh"));
        }
        line
    };
    let labels = std::iter::once("nodes").chain(std::iter::repeat(""));
    labels.zip(kinds.into_iter().map(line)).collect()
}

/// What a language model's tokens took.
fn tokens(demand: &Demand) -> Vec<(&'static str, String)> {
    let Some(tokens) = &demand.tokens else { return Vec::new() };
    let times = |times: &Summary| {
        let of = |nanos: Option<u64>| nanos.map_or_else(|| "-".to_owned(), |n| duration(n as f64));
        format!("p50 {}, p95 {}, p99 {}", of(times.p50), of(times.p95), of(times.p99))
    };
    let per_second = tokens.output_tokens_per_second.unwrap_or(0.0);
    vec![
        ("tokens", format!("{}: {per_second:.1} of answers a second", demand.asks_for)),
        ("", format!("time to first token {}", times(&tokens.ttft))),
        ("", format!("from token to token {}", times(&tokens.itl))),
    ]
}

/// Means over the replications with their confidence intervals.
fn intervals(estimates: &Estimates) -> Vec<(&'static str, String)> {
    let times = [
        ("mean", estimates.response_time_mean_ns),
        ("p50", estimates.response_time_p50_ns),
        ("p95", estimates.response_time_p95_ns),
        ("p99", estimates.response_time_p99_ns),
    ];
    let times = times.into_iter().filter_map(|(name, estimate)| {
        let estimate = estimate?;
        let (mean, half) = (duration(estimate.mean), duration(estimate.half_width(CONFIDENCE)));
        Some(format!("response time {name} {mean} +- {half}"))
    });
    let throughput = estimates.achieved_rate.map(|estimate| {
        format!("achieved {} +- {}", rate(estimate.mean), rate(estimate.half_width(CONFIDENCE)))
    });
    let labels = std::iter::once("95 % sure").chain(std::iter::repeat(""));
    labels.zip(throughput.into_iter().chain(times)).collect()
}
