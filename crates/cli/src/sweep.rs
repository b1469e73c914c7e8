//! A scenario at every point of a grid of settings.

use std::path::Path;
use std::str::FromStr;

use gatewright_control::config::Override;
use gatewright_record::{Estimate, batch_means};
use gatewright_sim::SimulationReport;

use crate::failure::{Failure, Outcome};
use crate::progress::Meter;
use crate::rehearsal::Rehearsal;
use crate::replicate;

/// A key of the system file and the values it is given, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    key: String,
    values: Vec<toml::Value>,
}

/// Points of the grid at most.
const MAX_POINTS: usize = 100_000;
const CONFIDENCE: f64 = 0.95;
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

impl FromStr for Sweep {
    type Err = String;

    /// `KEY=[VALUE, VALUE]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write key=[value, value], such as function.square.replicas.max=[4, 8]";
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        match toml::Value::from_str(values.trim()) {
            Ok(toml::Value::Array(values)) if !values.is_empty() && !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_owned(), values })
            }
            _ => Err(wrong().to_owned()),
        }
    }
}

/// Runs the scenario at every point, each with the same seeds, so that the differences between points are not those
/// between seeds. Gives a table as CSV: a row for each point, with its differences in mean response time from the first
/// point, seed by seed.
pub(crate) fn run(
    path: &Path,
    models: &[std::path::PathBuf],
    set: &[Override],
    sweeps: &[Sweep],
    seed: Option<u64>,
    replications: u32,
    quiet: bool,
) -> Outcome<String> {
    let points = grid(sweeps)?;
    // Everything that is wrong anywhere is said before the first run.
    let mut ready = Vec::new();
    for point in &points {
        let settings: Vec<_> = set.iter().chain(point).cloned().collect();
        let rehearsal = Rehearsal::load(path, models, &settings)?;
        let simulation = rehearsal.simulation(path)?;
        ready.push((simulation, seed.unwrap_or(rehearsal.scenario.seed)));
    }
    let keys = sweeps.iter().map(|sweep| quote(&sweep.key));
    let mut table: String =
        keys.chain(COLUMNS.map(str::to_owned)).collect::<Vec<_>>().join(",") + "\n";
    let mut meter = Meter::new("simulate", quiet);
    let mut first: Option<Vec<f64>> = None;
    for (number, (point, (simulation, seed))) in points.iter().zip(&ready).enumerate() {
        let fraction = number as f64 / points.len() as f64;
        meter.update(fraction, None, &format!("point {} of {}", number + 1, points.len()));
        let reports = replicate::all(simulation, *seed, replications, true)?;
        let means: Vec<f64> = reports.iter().map(mean_response).collect();
        let base = first.get_or_insert_with(|| means.clone());
        let values = point.iter().map(|value| quote(&value.value.to_string()));
        let cells = cells(&reports, &means, base);
        table.push_str(&(values.chain(cells).collect::<Vec<_>>().join(",") + "\n"));
    }
    Ok(table)
}

/// All combinations, the last key changing fastest.
fn grid(sweeps: &[Sweep]) -> Outcome<Vec<Vec<Override>>> {
    let count = sweeps.iter().try_fold(1usize, |all, one| all.checked_mul(one.values.len()));
    if count.is_none_or(|count| count > MAX_POINTS) {
        let what = format!("the sweeps have more than {MAX_POINTS} points together");
        return Err(Failure::usage(what));
    }
    let mut points = vec![Vec::new()];
    for sweep in sweeps {
        let further = |point: &Vec<Override>| {
            let point = point.clone();
            sweep.values.iter().map(move |value| {
                let mut point = point.clone();
                let (key, value) = (sweep.key.clone(), value.clone());
                point.push(Override { key, value, source: "--sweep".to_owned() });
                point
            })
        };
        points = points.iter().flat_map(further).collect();
    }
    Ok(points)
}

fn mean_response(report: &SimulationReport) -> f64 {
    report.summary().report().response_time.mean.unwrap_or(0.0) / 1e9
}

fn cells(reports: &[SimulationReport], means: &[f64], base: &[f64]) -> Vec<String> {
    let runs: Vec<_> = reports.iter().map(|report| report.summary().report()).collect();
    let average =
        |of: &dyn Fn(usize) -> f64| (0..reports.len()).map(of).sum::<f64>() / reports.len() as f64;
    let seconds = |nanos: Option<u64>| nanos.map_or(0.0, |nanos| nanos as f64 / 1e9);
    let replica_hours = |run: usize| {
        reports[run].functions.iter().map(|one| one.replica_seconds).sum::<f64>() / 3_600.0
    };
    let joules = |run: usize| reports[run].nodes.iter().filter_map(|node| node.joules).sum::<f64>();
    let differences: Vec<f64> = means.iter().zip(base).map(|(own, first)| own - first).collect();
    let (mean, error) = estimate(means);
    let (difference, difference_error) = estimate(&differences);
    [
        reports.len() as f64,
        average(&|run| runs[run].requests as f64),
        average(&|run| runs[run].statuses.failed() as f64),
        average(&|run| runs[run].cold as f64),
        average(&|run| runs[run].achieved_rate.unwrap_or(0.0)),
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
    .map(|value| format!("{value}"))
    .to_vec()
}

/// The mean of one value from each replication, and how far it may be off, which of one alone nobody knows.
fn estimate(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let estimate: Option<Estimate> = u32::try_from(values.len())
        .ok()
        .filter(|&count| count > 1)
        .and_then(|count| batch_means(values, count).ok());
    (mean, estimate.map_or(f64::NAN, |estimate| estimate.half_width(CONFIDENCE)))
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
    fn grids_have_every_combination() {
        let sweeps = ["a.b=[1, 2]", "c=[\"x\", \"y\", \"z\"]"].map(|text| text.parse().unwrap());
        let points = grid(&sweeps).unwrap();
        let text: Vec<String> = points
            .iter()
            .map(|point| point.iter().map(|one| one.value.to_string()).collect())
            .collect();
        assert_eq!(text, ["1\"x\"", "1\"y\"", "1\"z\"", "2\"x\"", "2\"y\"", "2\"z\""]);
        assert!("a=1".parse::<Sweep>().is_err());
        assert!("a=[]".parse::<Sweep>().is_err());
        let wide = format!("a=[{}]", vec!["1"; 400].join(","));
        let wide: Vec<Sweep> = (0..2).map(|_| wide.parse().unwrap()).collect();
        assert!(grid(&wide).is_err());
    }

    #[test]
    fn cells_with_commas_are_quoted() {
        assert_eq!(
            quote("{ policy = \"kpa\", target = 1 }"),
            "\"{ policy = \"\"kpa\"\", target = 1 }\""
        );
        assert_eq!(quote("3"), "3");
    }
}
