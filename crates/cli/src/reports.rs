//! Reports of benchmarks as files: read, and written in the format that their name's ending stands for.

use std::path::Path;

use gatewright_bench::{Report, SCHEMA};

use crate::failure::{Failure, Outcome};
use crate::{output, render, settings};

/// What a file's name says about what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Json,
    Yaml,
    Csv,
    Parquet,
    Html,
}

fn ending(path: &Path) -> Outcome<Ending> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "json" => Ok(Ending::Json),
        "yaml" | "yml" => Ok(Ending::Yaml),
        "csv" => Ok(Ending::Csv),
        "parquet" => Ok(Ending::Parquet),
        "html" => Ok(Ending::Html),
        _ => Err(Failure::usage(format!("{}: its name says no format of results", path.display()))
            .hint("end it in .html, .json, .yaml, .csv or .parquet")),
    }
}

/// Makes sure, before anything is measured, that the result can be written under this name.
pub(crate) fn check_name(path: &Path) -> Outcome<()> {
    ending(path).map(drop)
}

/// What a file of this name holds.
pub(crate) fn render(path: &Path, reports: &[Report]) -> Outcome<Vec<u8>> {
    match (ending(path)?, reports) {
        (Ending::Csv, _) => render::bench_csv(reports).map(String::into_bytes),
        (Ending::Parquet, _) => render::parquet_table(&render::bench_csv(reports)?),
        (Ending::Html, _) => render::report_page(reports).map(String::into_bytes),
        (Ending::Json, [only]) => output::to_json(only).map(String::into_bytes),
        (Ending::Yaml, [only]) => to_yaml(only).map(String::into_bytes),
        (Ending::Json | Ending::Yaml, _) => {
            Err(Failure::usage(format!("{}: holds one result", path.display()))
                .hint("give one, or a file that ends in .html, .csv or .parquet"))
        }
    }
}

pub(crate) fn to_yaml(report: &Report) -> Outcome<String> {
    serde_norway::to_string(report)
        .map_err(|fault| Failure::failed(format!("cannot write the result as YAML: {fault}")))
}

/// Reads a result that `bench` wrote.
pub(crate) fn read(path: &Path) -> Outcome<Report> {
    parse(path, &settings::read(path)?)
}

/// Understands the text of a result.
pub(crate) fn parse(path: &Path, text: &str) -> Outcome<Report> {
    let hint = "`gatewright bench --output result.json` writes results";
    let name = path.display();
    let is_yaml = matches!(ending(path), Ok(Ending::Yaml));
    let parsed: Result<Report, String> = if is_yaml {
        serde_norway::from_str(text).map_err(|fault| fault.to_string())
    } else {
        serde_json::from_str(text).map_err(|fault| fault.to_string())
    };
    let report = parsed.map_err(|fault| {
        Failure::usage(format!("{name}: is no result of a benchmark: {fault}")).hint(hint)
    })?;
    if report.schema != SCHEMA {
        let what = format!("{name}: is `{}`, not `{SCHEMA}`", report.schema);
        return Err(Failure::usage(what).hint("measure it again with this version"));
    }
    Ok(report)
}
