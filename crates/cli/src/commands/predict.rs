use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;
use gatewright_control::config::Override;
use gatewright_twin::{
    Band, CalibrateOptions, PredictError, PredictOptions, Prediction, predict, refits,
};
use serde::{Deserialize, Serialize};

use super::Format;
use crate::failure::{Exit, Failure, Outcome};
use crate::rehearsal::Rehearsal;
use crate::render::{Table, duration, rate};
use crate::settings::parse_set;
use crate::{files, output};

/// Say what a scenario will come to, and how sure that is.
///
/// It simulates the scenario many times, with other luck each time; with --records also with models refitted on
/// resampled records, so that what the records leave open is in the bands. Nine in ten simulations lie in them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright predict scenario.toml --model measured.model.toml --output prediction.json
  gatewright predict scenario.toml --model measured.model.toml --records served.jsonl --records seen.jsonl")]
pub(crate) struct Predict {
    /// The scenario: the system, its models, and who asks for what.
    scenario: PathBuf,

    /// Model file, instead of those that the scenario names; may be given again.
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,

    /// File of the records that the model was made from; may be given again.
    #[arg(long, value_name = "FILE")]
    records: Vec<PathBuf>,

    /// Simulations.
    #[arg(long, value_name = "N", default_value_t = 40)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replications: u32,

    /// Seed of every random number [default: the scenario's].
    #[arg(long)]
    seed: Option<u64>,

    /// Set a key of the system file, such as function.square.replicas.max=16: what if?
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,

    /// File for the prediction as JSON, to be compared with a measurement later.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What the prediction on stdout is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A prediction as JSON. Times are in seconds, rates per second, shares from 0 to 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) schema: String,
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    pub(crate) prediction: Prediction,
}

pub(crate) const SCHEMA: &str = "gatewright.prediction/1";
/// Models refitted on resampled records.
const REFITS: u32 = 20;

impl Predict {
    pub(crate) fn run(self) -> Outcome {
        let mut rehearsal = Rehearsal::load(&self.scenario, &self.model, &self.set)?;
        // Found wrong before records are read and refitted.
        rehearsal.simulation(&self.scenario)?;
        let scenario = &mut rehearsal.scenario;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let refitted = self.refitted(scenario.seed)?;
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let options = PredictOptions {
            replications: self.replications,
            threads: u32::try_from(threads).unwrap_or(1),
        };
        let Rehearsal { scenario, system, model, .. } = &rehearsal;
        let prediction =
            predict(system, model, &refitted, scenario, options).map_err(|fault| match fault {
                PredictError::Config(fault) => Failure::of_config(&self.scenario, fault),
                PredictError::Simulation(fault) => Failure::failed(fault),
            })?;
        prediction.warnings.iter().for_each(|text| output::warning(text));
        let document = Document {
            schema: SCHEMA.to_owned(),
            scenario: self.scenario.display().to_string(),
            seed: scenario.seed,
            prediction,
        };
        if let Some(path) = &self.output {
            files::write(path, &output::to_json(&document)?)?;
        }
        match self.format {
            Format::Json => output::json(&document)?,
            Format::Text => output::data(&table(&document.prediction))?,
        }
        Ok(Exit::Done)
    }

    fn refitted(&self, seed: u64) -> Outcome<Vec<gatewright_sim::Model>> {
        if self.records.is_empty() {
            return Ok(Vec::new());
        }
        let runs = self
            .records
            .iter()
            .map(|path| super::calibrate::read(path))
            .collect::<Outcome<Vec<_>>>()?;
        refits(&runs, &CalibrateOptions::default(), REFITS, seed)
            .map_err(|fault| Failure::usage(&fault).hint(fault.hint()))
    }
}

fn table(prediction: &Prediction) -> String {
    let mut table = Table::new(&["", "predicted", "from", "to"]);
    let mut row = |name: &str, band: Band, text: fn(f64) -> String| {
        table.row([name.to_owned(), text(band.median), text(band.low), text(band.high)]);
    };
    row("response time p50", prediction.p50, seconds);
    row("response time p95", prediction.p95, seconds);
    row("response time p99", prediction.p99, seconds);
    row("throughput", prediction.throughput, rate);
    row("failed", prediction.failed, percent);
    if let Some(hits) = prediction.hits {
        row("cache hits", hits, percent);
    }
    table.to_string()
}

pub(crate) fn seconds(seconds: f64) -> String {
    duration(seconds * 1e9)
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
