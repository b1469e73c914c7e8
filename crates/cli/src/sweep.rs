//! A scenario at many points of its settings.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use gatewright_control::config::Override;
use gatewright_record::{Estimate, batch_means};
use gatewright_sim::SimulationReport;

use crate::design::Sweep;
use crate::failure::{Failure, Outcome};
use crate::files::{self, Draft};
use crate::interrupt::{Interrupt, Signal};
use crate::progress::{Meter, left};
use crate::rehearsal::Script;
use crate::replicate::News;
use crate::{output, render, replicate};

const COLUMNS: [&str; 14] = [
    "replications",
    "requests",
    "failed",
    "cold",
    "achieved_per_s",
    "response_mean_s",
    "response_mean_plus_minus_s",
    "response_p50_s",
    "response_p95_s",
    "response_p99_s",
    "replica_hours",
    "joules",
    "difference_mean_s",
    "difference_plus_minus_s",
];

/// What is run, and where the table goes.
pub(crate) struct Plan<'a> {
    /// The scenario's file.
    pub(crate) name: String,
    pub(crate) script: Script,
    /// Settings of all points.
    pub(crate) set: &'a [Override],
    pub(crate) sweeps: &'a [Sweep],
    pub(crate) points: Vec<Vec<Override>>,
    pub(crate) seed: u64,
    pub(crate) replications: u32,
    /// Standard output if there is none.
    pub(crate) output: Option<&'a Path>,
    /// Whether to go on with a table that was not finished.
    pub(crate) resume: bool,
}

/// Runs the scenario at every point, each with the same seeds, so that the differences between points are not those
/// between seeds. Writes a table: a row for each point, with its differences in mean response time from the first
/// point, seed by seed. All runs of all points share the cores; a row is in the file as soon as its runs and those of
/// the points before it are done; a file of Parquet or a page is CSV until it is whole.
///
/// # Errors
/// Among others that a signal ended it: what is in the file then stays.
pub(crate) fn run(plan: &Plan<'_>, quiet: bool) -> Outcome<()> {
    // Everything that is wrong anywhere is said before the first run.
    let simulations = plan.points.iter().map(|point| {
        let settings: Vec<_> = plan.set.iter().chain(point).cloned().collect();
        plan.script.simulation(&settings)
    });
    let simulations = simulations.collect::<Outcome<Vec<_>>>()?;
    let interrupt = Interrupt::listen(&[Signal::CtrlC, Signal::Terminate])?;
    let mut table = Table::open(plan)?;
    // The first point is run in any case, for the others' differences from it.
    let numbers: Vec<usize> =
        std::iter::once(0).chain(table.rows().max(1)..plan.points.len()).collect();
    let (seed, replications) = (plan.seed, plan.replications as usize);
    let runs = numbers.len() * replications;
    let of_runs = numbers.clone();
    let run = move |run: usize, progress: &mut dyn FnMut(f64)| {
        let simulation = &simulations[of_runs[run / replications]];
        let own_seed = seed.wrapping_add((run % replications) as u64);
        let report = simulation.run(own_seed, None, &mut |at| progress(at.fraction));
        report.map(|report| Figures::of(&report))
    };
    let mut meter = Meter::new("simulate", quiet);
    let start = Instant::now();
    let (mut of_point, mut base) = (Vec::with_capacity(replications), None);
    let mut numbers = numbers.into_iter();
    replicate::in_order(runs, replicate::cores(), run, &mut |news| {
        match news {
            News::Next(figures) => of_point.push(figures.map_err(Failure::failed)?),
            News::Done(fraction) => {
                if let Some(signal) = interrupt.asked() {
                    return Err(table.interrupted(signal, plan.points.len()));
                }
                let text = format!("{} of {} points", table.rows(), plan.points.len());
                meter.update(fraction, left(start.elapsed(), fraction), &text);
            }
        }
        if of_point.len() == replications {
            let number = numbers.next().expect("there are as many rows as were asked for");
            let base = base.get_or_insert_with(|| means(&of_point));
            table.add(number, row(&plan.points[number], &of_point, base))?;
            of_point.clear();
        }
        Ok(())
    })?;
    table.finish()
}

/// What a run comes to; a number that is not known is none.
#[derive(Debug)]
struct Figures {
    requests: f64,
    failed: f64,
    cold: f64,
    /// Answers a second.
    rate: f64,
    /// Response time in seconds, as its quantiles.
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    replica_hours: f64,
    joules: f64,
}

/// The table on its way to where it belongs. Until it is whole, a file has another name, under which it stays if the
/// program is interrupted.
struct Table<'a> {
    /// Header and rows that were there, and then those that were added.
    lines: Vec<String>,
    /// How many lines were there.
    kept: usize,
    file: Option<(Draft, File)>,
    /// Where it belongs; standard output if nowhere.
    output: Option<&'a Path>,
    /// The name it has until it is whole.
    name: String,
    /// Whether that is a file of its own, and no pipe or device.
    is_file: bool,
    /// What is made of it when it is whole, if it is not what it is then.
    made: Option<(Made, &'a Path)>,
    plan: &'a Plan<'a>,
}

/// What a table is made into.
#[derive(Clone, Copy)]
enum Made {
    Parquet,
    /// A page with charts.
    Page,
}

impl<'a> Table<'a> {
    fn open(plan: &'a Plan<'a>) -> Outcome<Self> {
        let keys = plan.sweeps.iter().map(|sweep| quote(&sweep.key));
        let header = keys.chain(COLUMNS.map(str::to_owned)).collect::<Vec<_>>().join(",") + "\n";
        let mut table = Self {
            lines: vec![header],
            kept: 1,
            file: None,
            output: plan.output,
            name: String::new(),
            is_file: false,
            made: None,
            plan,
        };
        let Some(path) = plan.output else { return Ok(table) };
        table.made = made(path)?;
        let draft = Draft::name(path);
        table.name = draft.display().to_string();
        table.is_file = draft != path;
        if plan.resume && !table.is_file {
            let what = format!("{}: is no file that a sweep could go on with", table.name);
            return Err(Failure::usage(what).hint("leave out --resume"));
        }
        let mut length = 0;
        if plan.resume {
            length = table.take_up(&draft, &plan.points)?;
        }
        // What is no file of its own gets the whole in one piece.
        if table.made.is_some() && !table.is_file {
            return Ok(table);
        }
        let (draft, mut file) =
            if plan.resume { Draft::go_on(path, length)? } else { Draft::create(path)? };
        if length == 0 {
            file.write_all(table.lines[0].as_bytes())
                .map_err(|fault| Failure::of_writing(path, &fault))?;
        }
        table.file = Some((draft.keep(), file));
        Ok(table)
    }

    /// Reads what there is of a table that was not finished; how many bytes of it are whole lines.
    fn take_up(&mut self, draft: &Path, points: &[Vec<Override>]) -> Outcome<u64> {
        let text = match std::fs::read_to_string(draft) {
            Ok(text) => text,
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(fault) => return Err(Failure::of_reading(draft, &fault)),
        };
        // The last line may have been cut off.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        if whole.is_empty() {
            return Ok(0);
        }
        let mut rows = whole.split_inclusive('\n').map(str::to_owned);
        if rows.next().as_ref() != self.lines.first() {
            let what = format!("{}: it is of another sweep", self.name);
            return Err(Failure::usage(what).hint("leave out --resume to begin anew"));
        }
        for (number, row) in rows.enumerate() {
            if !points.get(number).is_some_and(|point| row.starts_with(&place(point))) {
                return Err(self.other(number));
            }
            self.lines.push(row);
        }
        self.kept = self.lines.len();
        Ok(whole.len() as u64)
    }

    /// How many points have theirs.
    fn rows(&self) -> usize {
        self.lines.len() - 1
    }

    fn add(&mut self, number: usize, row: String) -> Outcome<()> {
        if number + 1 < self.kept {
            return if self.lines[number + 1] == row { Ok(()) } else { Err(self.other(number)) };
        }
        if let Some((_, file)) = &mut self.file {
            let path = Path::new(&self.name);
            file.write_all(row.as_bytes()).map_err(|fault| Failure::of_writing(path, &fault))?;
        }
        self.lines.push(row);
        Ok(())
    }

    fn other(&self, number: usize) -> Failure {
        let what = format!("{}: row {} is not of this sweep", self.name, number + 1);
        Failure::usage(what)
            .hint("the scenario or the sweep has changed; leave out --resume to begin anew")
    }

    /// Says what is there when a signal ends the sweep; without a file, that is shown.
    fn interrupted(&self, signal: Signal, points: usize) -> Failure {
        if self.output.is_none()
            && let Err(failure) = output::data(&self.lines.concat())
        {
            return failure;
        }
        let hint = if self.is_file {
            format!("they are in {}; the same command with --resume goes on from there", self.name)
        } else {
            "with a file as --output, --resume can go on from there".to_owned()
        };
        let what = format!("interrupted after {} of {points} points", self.rows());
        Failure { exit: signal.exit(), ..Failure::failed(what) }.hint(hint)
    }

    fn finish(self) -> Outcome<()> {
        if let Some((made, path)) = self.made {
            let table = self.lines.concat();
            let bytes = match made {
                Made::Parquet => render::parquet_table(&table)?,
                Made::Page => {
                    let keys = self.plan.sweeps.iter().map(|sweep| sweep.key.as_str());
                    let keys: Vec<_> = keys.collect();
                    render::sweep_page(&self.plan.name, &keys, &table)?.into_bytes()
                }
            };
            return files::write_bytes(path, &bytes);
        }
        match self.file {
            None => output::data(&self.lines.concat()),
            Some((mut draft, _)) => {
                draft.complete().map_err(|fault| Failure::of_writing(Path::new(&self.name), &fault))
            }
        }
    }
}

/// What a table of this name is made into; nothing if it is CSV, as what is written to a pipe or device.
fn made(path: &Path) -> Outcome<Option<(Made, &Path)>> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "parquet" => Ok(Some((Made::Parquet, path))),
        "html" => Ok(Some((Made::Page, path))),
        "csv" => Ok(None),
        _ if Draft::name(path) == path => Ok(None),
        _ => Err(Failure::usage(format!("{}: its name says no format of tables", path.display()))
            .hint("end it in .csv, .parquet or .html")),
    }
}

impl Figures {
    fn of(report: &SimulationReport) -> Self {
        let run = report.summary().report();
        let seconds = |nanos: Option<u64>| nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e9);
        let replica_seconds = report.functions.iter().map(|one| one.replica_seconds).sum::<f64>();
        let joules = report.nodes.iter().filter_map(|node| node.joules);
        Self {
            requests: run.requests as f64,
            failed: run.statuses.failed() as f64,
            cold: run.cold as f64,
            rate: run.achieved_rate.unwrap_or(f64::NAN),
            mean: run.response_time.mean.unwrap_or(f64::NAN) / 1e9,
            p50: seconds(run.response_time.p50),
            p95: seconds(run.response_time.p95),
            p99: seconds(run.response_time.p99),
            replica_hours: replica_seconds / 3_600.0,
            joules: joules.reduce(|sum, one| sum + one).unwrap_or(f64::NAN),
        }
    }
}

fn means(runs: &[Figures]) -> Vec<f64> {
    runs.iter().map(|run| run.mean).collect()
}

/// The row of a point: its settings, then [`COLUMNS`] in order; empty where nothing is known, as a high quantile of few
/// requests. `base` has the means of the first point, seed by seed.
fn row(point: &[Override], runs: &[Figures], base: &[f64]) -> String {
    let average = |of: fn(&Figures) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let means = means(runs);
    let differences: Vec<f64> = means.iter().zip(base).map(|(own, first)| own - first).collect();
    let (mean, error) = estimate(&means);
    let (difference, difference_error) = estimate(&differences);
    let values = [
        runs.len() as f64,
        average(|run| run.requests),
        average(|run| run.failed),
        average(|run| run.cold),
        average(|run| run.rate),
        mean,
        error,
        average(|run| run.p50),
        average(|run| run.p95),
        average(|run| run.p99),
        average(|run| run.replica_hours),
        average(|run| run.joules),
        difference,
        difference_error,
    ];
    let known = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
    place(point) + &values.map(known).join(",") + "\n"
}

/// How the row of a point begins: with its settings.
fn place(point: &[Override]) -> String {
    point.iter().map(|one| quote(&one.value.to_string()) + ",").collect()
}

/// The mean of one value from each replication, and how far it may be off, which of one alone nobody knows.
fn estimate(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let estimate: Option<Estimate> = u32::try_from(values.len())
        .ok()
        .filter(|&count| count > 1)
        .and_then(|count| batch_means(values, count).ok());
    (mean, estimate.map_or(f64::NAN, |estimate| estimate.half_width(render::CONFIDENCE)))
}

fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_are_quoted() {
        assert_eq!(
            quote("{ policy = \"kpa\", target = 1 }"),
            "\"{ policy = \"\"kpa\"\", target = 1 }\""
        );
        assert_eq!(quote("3"), "3");
    }
}
