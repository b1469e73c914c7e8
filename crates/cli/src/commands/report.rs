use std::path::PathBuf;

use clap::Args;

use crate::failure::{Exit, Outcome};
use crate::{files, output, reports};

/// Make a page with charts, or another format, of results of benchmarks.
///
/// The page is one file that needs no network: charts of latency over load, distributions, the course of a run,
/// tokens and errors. Several results are laid beside one another, the first one being what the others are compared
/// with.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright report result.json
  gatewright report before.json after.json --output compared.html
  gatewright report *.json --output all.csv")]
pub(crate) struct ReportCommand {
    /// Results, written by `gatewright bench --output`.
    #[arg(required = true)]
    results: Vec<PathBuf>,

    /// File to write: .html, .csv, .parquet, .json or .yaml.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

impl ReportCommand {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        reports::check_name(&self.output)?;
        let results = self.results.iter().map(|path| reports::read(path));
        let results = results.collect::<Outcome<Vec<_>>>()?;
        files::write_bytes(&self.output, &reports::render(&self.output, &results)?)?;
        if !quiet {
            output::note(&format!("wrote {}", self.output.display()));
        }
        Ok(Exit::Done)
    }
}
