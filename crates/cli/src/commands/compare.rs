use std::path::{Path, PathBuf};

use clap::Args;
use gatewright_bench::{
    Change, ComparisonRow, RunRecords, SCHEMA as BENCH, compare as compare_benchmarks,
    compare_records,
};
use gatewright_record::RunSummary;
use gatewright_twin::{Comparison, compare};
use serde::{Deserialize, Serialize};

use super::Format;
use super::predict::{Document as Predicted, SCHEMA as PREDICTION, percent, seconds};
use crate::failure::{Exit, Failure, Outcome};
use crate::render::{self, By, Table, rate};
use crate::{output, records, reports, settings};

/// Lay results of benchmarks beside one another, or a measurement beside a prediction.
///
/// Of benchmarks, every number gets its difference with a 95 % interval. With several runs on each side, that is
/// Welch's over runs; with one, it comes from what is inside of the run and knows nothing of how runs differ. Of records,
/// it comes of drawing them again and again (bootstrap). An interval that holds 0 shows no difference.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright compare before.json after.json
  gatewright compare before-1.json,before-2.json,before-3.json after-1.json,after-2.json,after-3.json
  gatewright compare before.json after.json --tolerance 5
  gatewright compare before.parquet after.parquet
  gatewright compare prediction.json seen.csv --tolerance 10

Exit status: 3 if something is worse, for certain and by more than --tolerance; of a prediction, if an error is
beyond --tolerance.")]
pub(crate) struct Compare {
    /// Results of the benchmarks before, or records of their requests, with commas between several; or a prediction, written by `gatewright
    /// predict --output`.
    #[arg(value_name = "BEFORE", required = true, value_delimiter = ',', num_args = 1)]
    before: Vec<PathBuf>,

    /// The same of the benchmarks after; or records of what was predicted, .csv, .jsonl or .parquet.
    #[arg(value_name = "AFTER", required = true, value_delimiter = ',', num_args = 1)]
    after: Vec<PathBuf>,

    /// How much worse a result may be, in percent; how far a prediction may be off.
    #[arg(long, value_name = "PERCENT")]
    tolerance: Option<f64>,

    /// What the comparison is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The comparison as JSON. With a prediction: times in seconds, errors as a share of what was measured. Of
/// benchmarks: times in nanoseconds, differences as a part of what was before.
#[derive(Debug, Serialize)]
struct Document<'a, R> {
    schema: &'static str,
    tolerance: Option<f64>,
    holds: bool,
    rows: &'a [R],
}

const SCHEMA: &str = "gatewright.comparison/1";
const BENCHMARKS: &str = "gatewright.bench-comparison/1";

/// What every document says of itself.
#[derive(Deserialize)]
struct Schema {
    schema: String,
}

impl Compare {
    pub(crate) fn run(self) -> Outcome {
        let (first, second) = (&self.before[0], &self.after[0]);
        if records::are_in(first) {
            return self.records();
        }
        let text = settings::read(first)?;
        let schema = serde_json::from_str::<Schema>(&text).ok().map(|named| named.schema);
        match schema.as_deref() {
            Some(PREDICTION) => self.with_prediction(&text, first, second),
            Some(BENCH) => self.benchmarks(),
            Some(schema) => {
                let what =
                    format!("{}: is `{schema}`, not `{BENCH}` or `{PREDICTION}`", first.display());
                Err(Failure::usage(what).hint("make it again with this version"))
            }
            None => {
                let what = format!("{}: is neither a result nor a prediction", first.display());
                Err(Failure::usage(what).hint(
                    "`gatewright bench --output` and `gatewright predict --output` write them",
                ))
            }
        }
    }

    fn benchmarks(&self) -> Outcome {
        let read = |paths: &[PathBuf]| {
            paths.iter().map(|path| reports::read(path)).collect::<Outcome<Vec<_>>>()
        };
        let rows = compare_benchmarks(&read(&self.before)?, &read(&self.after)?);
        if rows.is_empty() {
            return Err(Failure::usage("they have no step in common")
                .hint("compare benchmarks with the same strategies and rates"));
        }
        let runs = (self.before.len(), self.after.len());
        self.judge(&rows, if runs.0.min(runs.1) > 1 { By::Runs } else { By::Insides })
    }

    /// Requests beside requests.
    fn records(&self) -> Outcome {
        let read = |paths: &[PathBuf]| {
            let one = |path: &PathBuf| {
                let mut run = RunRecords::default();
                records::each(path, |record| run.add(&record)).map(|()| run)
            };
            paths.iter().map(one).collect::<Outcome<Vec<_>>>()
        };
        let rows = compare_records(&read(&self.before)?, &read(&self.after)?);
        if rows.is_empty() {
            return Err(Failure::usage("one of them has no request that ended well")
                .hint("records are written by `bench` and `serve` with --records"));
        }
        self.judge(&rows, By::Records)
    }

    fn judge(&self, rows: &[ComparisonRow], by: By) -> Outcome {
        let allowed = self.tolerance.unwrap_or_default() / 100.0;
        let is_worse =
            |row: &&ComparisonRow| row.verdict == Change::Worse && row.difference.abs() > allowed;
        let worse = rows.iter().filter(is_worse).count();
        match self.format {
            Format::Json => {
                let (tolerance, holds) = (self.tolerance, worse == 0);
                output::json(&Document { schema: BENCHMARKS, tolerance, holds, rows })?;
            }
            Format::Text => {
                let runs = (self.before.len(), self.after.len());
                output::data(&render::comparison(rows, runs, by).to_string())?;
            }
        }
        Ok(if worse == 0 { Exit::Done } else { Exit::NotMet })
    }

    fn with_prediction(&self, text: &str, path: &Path, records: &Path) -> Outcome {
        let predicted: Predicted = serde_json::from_str(text).map_err(|fault| {
            Failure::usage(format!("{}: is no prediction: {fault}", path.display()))
                .hint("`gatewright predict --output` writes them")
        })?;
        let mut measured = RunSummary::new();
        records::each(records, |record| measured.add(&record))?;
        let rows = compare(&predicted.prediction, &measured);
        let allowed = self.tolerance.map_or(f64::INFINITY, |percent| percent / 100.0);
        // What has no error, because nothing was measured, does not hold.
        let holds = self.tolerance.is_none()
            || rows.iter().all(|row| row.error.is_some_and(|error| error.abs() <= allowed));
        match self.format {
            Format::Json => {
                let tolerance = self.tolerance;
                output::json(&Document { schema: SCHEMA, tolerance, holds, rows: &rows })?;
            }
            Format::Text => output::data(&table(&rows))?,
        }
        if holds {
            return Ok(Exit::Done);
        }
        let percent = self.tolerance.unwrap_or_default();
        output::note(&format!("a prediction is off by more than {percent} %"));
        Ok(Exit::NotMet)
    }
}

fn table(rows: &[Comparison]) -> String {
    let mut table = Table::new(&["", "predicted", "from", "to", "measured", "error", "in band"]);
    for row in rows {
        let text: fn(f64) -> String = match row.unit {
            "s" => seconds,
            "1/s" => rate,
            _ => percent,
        };
        table.row([
            row.quantity.to_owned(),
            text(row.predicted.median),
            text(row.predicted.low),
            text(row.predicted.high),
            text(row.measured),
            row.error.map_or_else(|| "-".to_owned(), |error| format!("{:+.1} %", error * 100.0)),
            if row.within { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.to_string()
}
