use std::path::PathBuf;

use clap::Args;
use gatewright_record::RunSummary;
use gatewright_twin::{Comparison, compare};
use serde::Serialize;

use super::Format;
use super::predict::{Document as Predicted, SCHEMA as PREDICTION, percent, seconds};
use crate::failure::{Exit, Failure, Outcome};
use crate::render::{Table, rate};
use crate::{output, records, settings};

/// Lay a measurement beside a prediction, with signed errors.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright compare prediction.json seen.csv
  gatewright compare prediction.json seen.csv --tolerance 10

Exit status: 3 if an error is beyond --tolerance.")]
pub(crate) struct Compare {
    /// A prediction, written by `gatewright predict --output`.
    prediction: PathBuf,

    /// Records of the measurement, .csv or .jsonl.
    measured: PathBuf,

    /// How far predictions may be off, in percent of what was measured.
    #[arg(long, value_name = "PERCENT")]
    tolerance: Option<f64>,

    /// What the comparison is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The comparison as JSON. Times are in seconds, rates per second, errors as a share of what was measured.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    tolerance: Option<f64>,
    holds: bool,
    rows: &'a [Comparison],
}

const SCHEMA: &str = "gatewright.comparison/1";

impl Compare {
    pub(crate) fn run(self) -> Outcome {
        let text = settings::read(&self.prediction)?;
        let predicted: Predicted = serde_json::from_str(&text).map_err(|fault| {
            Failure::usage(format!("{}: is no prediction: {fault}", self.prediction.display()))
                .hint("`gatewright predict --output` writes them")
        })?;
        if predicted.schema != PREDICTION {
            let (path, schema) = (self.prediction.display(), &predicted.schema);
            return Err(Failure::usage(format!("{path}: is `{schema}`, not `{PREDICTION}`"))
                .hint("make it again with `gatewright predict`"));
        }
        let mut measured = RunSummary::new();
        records::each(&self.measured, |record| measured.add(&record))?;
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
