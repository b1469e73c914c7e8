//! A scenario at many points of its settings.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use gatewright_control::config::Override;
use gatewright_record::{Estimate, batch_means};
use gatewright_sim::{Simulation, SimulationReport};

use crate::design::Sweep;
use crate::failure::{Failure, Outcome};
use crate::files::{self, Draft};
use crate::progress::Meter;
use crate::rehearsal::Rehearsal;
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
    pub(crate) scenario: &'a Path,
    pub(crate) models: &'a [PathBuf],
    /// Settings of all points.
    pub(crate) set: &'a [Override],
    pub(crate) sweeps: &'a [Sweep],
    pub(crate) points: Vec<Vec<Override>>,
    pub(crate) seed: Option<u64>,
    pub(crate) warm_up: Option<gatewright_control::config::HumanDuration>,
    pub(crate) replications: u32,
    /// Standard output if there is none.
    pub(crate) output: Option<&'a Path>,
    /// Whether to go on with a table that was not finished.
    pub(crate) resume: bool,
}

/// Runs the scenario at every point, each with the same seeds, so that the differences between points are not those
/// between seeds. Writes a table: a row for each point, with its differences in mean response time from the first
/// point, seed by seed. A row is in the file as soon as its runs are done; a file of Parquet is CSV until it is whole.
pub(crate) fn run(plan: &Plan<'_>, quiet: bool) -> Outcome<()> {
    // Everything that is wrong anywhere is said before the first run.
    let mut ready = Vec::new();
    for point in &plan.points {
        let settings: Vec<_> = plan.set.iter().chain(point).cloned().collect();
        let mut rehearsal = Rehearsal::load(plan.scenario, plan.models, &settings)?;
        rehearsal.scenario.warm_up = plan.warm_up.or(rehearsal.scenario.warm_up);
        let simulation = rehearsal.simulation(plan.scenario)?;
        ready.push((simulation, plan.seed.unwrap_or(rehearsal.scenario.seed)));
    }
    let keys = plan.sweeps.iter().map(|sweep| quote(&sweep.key));
    let header = keys.chain(COLUMNS.map(str::to_owned)).collect::<Vec<_>>().join(",") + "\n";
    let mut table = Table::open(plan, &header)?;
    let mut meter = Meter::new("simulate", quiet);
    let mut first: Option<Vec<f64>> = None;
    let count = plan.points.len();
    for (number, (point, (simulation, seed))) in plan.points.iter().zip(&ready).enumerate() {
        let cells = point.iter().map(|one| quote(&one.value.to_string()));
        let cells: Vec<String> = cells.collect();
        if number > 0 && table.has(number, &cells)? {
            continue;
        }
        let fraction = number as f64 / count as f64;
        meter.update(fraction, None, &format!("point {} of {count}", number + 1));
        let row = row(cells, simulation, *seed, plan.replications, &mut first)?;
        table.add(number, row)?;
    }
    table.finish()
}

/// A row of the table; `first` has the means of the first point, seed by seed, once that is known.
fn row(
    mut cells: Vec<String>,
    simulation: &Simulation,
    seed: u64,
    replications: u32,
    first: &mut Option<Vec<f64>>,
) -> Outcome<String> {
    let reports = replicate::all(simulation, seed, replications, true)?;
    let means: Vec<f64> = reports.iter().map(mean_response).collect();
    let base = first.get_or_insert_with(|| means.clone());
    cells.extend(self::cells(&reports, &means, base));
    Ok(cells.join(",") + "\n")
}

/// The table on its way to where it belongs. Until it is whole, a file has another name, under which it stays if the
/// program is interrupted.
struct Table<'a> {
    /// Header and rows that were there, and then those that were added.
    lines: Vec<String>,
    /// How many lines were there.
    kept: usize,
    file: Option<(Draft, File)>,
    name: String,
    /// Where it belongs if that is a file of Parquet.
    parquet: Option<&'a Path>,
}

impl<'a> Table<'a> {
    fn open(plan: &Plan<'a>, header: &str) -> Outcome<Self> {
        let mut lines = vec![header.to_owned()];
        let parquet = plan.output.map(parquet).transpose()?.flatten();
        let Some(path) = plan.output else {
            return Ok(Self { kept: 1, lines, file: None, name: String::new(), parquet });
        };
        let draft = Draft::name(path);
        let name = draft.display().to_string();
        if plan.resume {
            lines = kept(&draft, header, plan.points.len())?;
        }
        // What is no file of its own gets the whole in one piece.
        if parquet.is_some() && draft == path {
            return Ok(Self { kept: lines.len(), lines, file: None, name, parquet });
        }
        let (draft, mut file) = Draft::create(path)?;
        let text = lines.concat();
        file.write_all(text.as_bytes()).map_err(|fault| Failure::of_writing(path, &fault))?;
        Ok(Self { kept: lines.len(), lines, file: Some((draft.keep(), file)), name, parquet })
    }

    /// Whether the row of a point is there already.
    fn has(&self, number: usize, cells: &[String]) -> Outcome<bool> {
        if number + 1 >= self.kept {
            return Ok(false);
        }
        if self.lines[number + 1].starts_with(&(cells.join(",") + ",")) {
            return Ok(true);
        }
        Err(self.other(number))
    }

    fn add(&mut self, number: usize, row: String) -> Outcome<()> {
        if number + 1 < self.kept {
            // The first point is run again, for the others' differences from it.
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

    fn finish(self) -> Outcome<()> {
        if let Some(path) = self.parquet {
            return files::write_bytes(path, &render::parquet_table(&self.lines.concat())?);
        }
        match self.file {
            None => output::data(&self.lines.concat()),
            Some((mut draft, _)) => {
                draft.complete().map_err(|fault| Failure::of_writing(Path::new(&self.name), &fault))
            }
        }
    }
}

/// The path itself if a table of this name is Parquet; nothing if it is CSV, as what is written to a pipe or device.
fn parquet(path: &Path) -> Outcome<Option<&Path>> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "parquet" => Ok(Some(path)),
        "csv" => Ok(None),
        _ if Draft::name(path) == path => Ok(None),
        _ => Err(Failure::usage(format!("{}: its name says no format of tables", path.display()))
            .hint("end it in .csv or .parquet")),
    }
}

/// The lines of a table that was not finished, its header first.
fn kept(draft: &Path, header: &str, points: usize) -> Outcome<Vec<String>> {
    let text = match std::fs::read_to_string(draft) {
        Ok(text) => text,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => header.to_owned(),
        Err(fault) => return Err(Failure::of_reading(draft, &fault)),
    };
    // The last line may have been cut off.
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let lines: Vec<String> = whole.split_inclusive('\n').map(str::to_owned).collect();
    match lines.first() {
        None => Ok(vec![header.to_owned()]),
        Some(first) if first == header && lines.len() <= points + 1 => Ok(lines),
        Some(_) => Err(Failure::usage(format!("{}: it is of another sweep", draft.display()))
            .hint("leave out --resume to begin anew")),
    }
}

fn mean_response(report: &SimulationReport) -> f64 {
    report.summary().report().response_time.mean.unwrap_or(f64::NAN) / 1e9
}

/// The cells of a row, [`COLUMNS`] in order; empty where nothing is known, as a high quantile of few requests.
fn cells(reports: &[SimulationReport], means: &[f64], base: &[f64]) -> Vec<String> {
    let runs: Vec<_> = reports.iter().map(|report| report.summary().report()).collect();
    let average =
        |of: &dyn Fn(usize) -> f64| (0..reports.len()).map(of).sum::<f64>() / reports.len() as f64;
    let seconds = |nanos: Option<u64>| nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e9);
    let replica_hours = |run: usize| {
        reports[run].functions.iter().map(|one| one.replica_seconds).sum::<f64>() / 3_600.0
    };
    let joules = |run: usize| {
        let of_nodes = reports[run].nodes.iter().filter_map(|node| node.joules);
        of_nodes.reduce(|sum, one| sum + one).unwrap_or(f64::NAN)
    };
    let differences: Vec<f64> = means.iter().zip(base).map(|(own, first)| own - first).collect();
    let (mean, error) = estimate(means);
    let (difference, difference_error) = estimate(&differences);
    [
        reports.len() as f64,
        average(&|run| runs[run].requests as f64),
        average(&|run| runs[run].statuses.failed() as f64),
        average(&|run| runs[run].cold as f64),
        average(&|run| runs[run].achieved_rate.unwrap_or(f64::NAN)),
        mean,
        error,
        average(&|run| seconds(runs[run].response_time.p50)),
        average(&|run| seconds(runs[run].response_time.p95)),
        average(&|run| seconds(runs[run].response_time.p99)),
        average(&replica_hours),
        average(&joules),
        difference,
        difference_error,
    ]
    .map(|value| if value.is_nan() { String::new() } else { value.to_string() })
    .to_vec()
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
