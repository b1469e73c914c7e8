use std::path::{Path, PathBuf};

use clap::Args;
use gatewright_sim::{FunctionModel, Law, Model};
use gatewright_twin::{CalibrateOptions, RecordedRun, calibrate};

use crate::failure::{Exit, Failure, Outcome};
use crate::render::{count, duration, rate};
use crate::{files, output, records};

/// Make a model of functions from records of how they were served.
///
/// Best are the records of a gateway together with those of the load generator that asked it: the first tell how
/// long functions take, the second what a client sees beyond that.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright calibrate served.jsonl seen.jsonl --output measured.model.toml
  gatewright calibrate served.jsonl --start '{ fixed = 0.4 }'
  gatewright calibrate simulated.csv")]
pub(crate) struct Calibrate {
    /// Files of records, .csv, .jsonl or .parquet, or folders that a gateway wrote; each is of one run.
    #[arg(required = true)]
    records: Vec<PathBuf>,

    /// File for the model [default: stdout].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Which function the load generator asked for, where the gateway's records are of several.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,

    /// How long replicas take to start, in seconds or as a law [default: as seen in the records].
    #[arg(long, value_name = "LAW", value_parser = parse_law)]
    start: Option<Law>,
}

/// A law as a model file spells it, or seconds.
fn parse_law(text: &str) -> Result<Law, String> {
    #[derive(serde::Deserialize)]
    struct Line {
        law: Law,
    }
    if let Ok(seconds) = text.parse() {
        return Ok(Law::Fixed(seconds));
    }
    toml::from_str::<Line>(&format!("law = {text}")).map(|line| line.law).map_err(|_| {
        "write seconds, or a law such as { log_normal = { mean = 0.5, cv = 0.2 } }".to_owned()
    })
}

impl Calibrate {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let runs = self.records.iter().map(|path| read(path)).collect::<Outcome<Vec<_>>>()?;
        let options = CalibrateOptions { start: self.start, function: self.function, at: None };
        let model = calibrate(&runs, &options)
            .map_err(|fault| Failure::usage(&fault).hint(fault.hint()))?;
        for (name, function) in model.function.iter().filter(|_| !quiet) {
            output::note(&format!("function `{name}`: {}", about(function)));
            for note in function.fitted.iter().flat_map(|fitted| &fitted.notes) {
                output::note(&format!("  {note}"));
            }
        }
        write(&model, self.output.as_deref(), quiet)?;
        Ok(Exit::Done)
    }
}

/// Reads a file or a folder of records as one run.
pub(crate) fn read(path: &Path) -> Outcome<RecordedRun> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let source = name.to_string_lossy().into_owned();
    let mut run = RecordedRun { source, ..RecordedRun::default() };
    if !path.is_dir() {
        records::each(path, |record| run.records.push(record))?;
        return Ok(run);
    }
    records::each(&path.join("invocations.jsonl"), |record| run.records.push(record))?;
    run.replicas = records::lives(&path.join("replicas.jsonl"))?;
    Ok(run)
}

fn write(model: &Model, path: Option<&Path>, quiet: bool) -> Outcome<()> {
    match path {
        Some(path) => {
            files::write(path, &model.to_toml())?;
            if !quiet {
                output::note(&format!("wrote {}", path.display()));
            }
            Ok(())
        }
        None => output::data(&model.to_toml()),
    }
}

/// A model in a line.
fn about(function: &FunctionModel) -> String {
    let mut parts = Vec::new();
    if let Some(mean) = function.service.mean() {
        parts.push(format!("service time {} on average", duration(mean * 1e9)));
    }
    if let Some(fitted) = &function.fitted {
        parts.push(format!("from {} requests", count(fitted.requests)));
        if let Some(range) = fitted.rate {
            parts.push(format!("fitted on {} to {}", rate(range.min), rate(range.max)));
        }
    }
    parts.join(", ")
}
