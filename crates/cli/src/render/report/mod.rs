//! Results as one page with charts, which needs no network.

use gatewright_bench::{ComparisonRow, Report, compare};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

const PAGE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const CHARTS: &str = include_str!("charts.js");
const SCRIPT: &str = include_str!("report.js");
const SWEEP: &str = include_str!("sweep.js");

/// What the script of a benchmark's page finds in it.
#[derive(Serialize)]
struct Data<'a> {
    reports: &'a [Report],
    /// Each report but the first, beside the first.
    comparison: Vec<Comparison>,
}

#[derive(Serialize)]
struct Comparison {
    rows: Vec<ComparisonRow>,
}

/// What the script of a sweep's page finds in it.
#[derive(Serialize)]
struct Points<'a> {
    /// The scenario.
    name: &'a str,
    version: &'static str,
    /// The settings that were swept: the first columns.
    keys: &'a [&'a str],
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The page of benchmarks.
pub(crate) fn page(reports: &[Report]) -> Outcome<String> {
    let rows =
        |after: &Report| Comparison { rows: compare(&reports[..1], std::slice::from_ref(after)) };
    let data = Data { reports, comparison: reports.iter().skip(1).map(rows).collect() };
    filled("Benchmark", SCRIPT, &data)
}

/// The page of a sweep, from its table as CSV.
pub(crate) fn sweep_page(name: &str, keys: &[&str], table: &str) -> Outcome<String> {
    let broken = |fault: csv::Error| Failure::failed(format!("cannot write the page: {fault}"));
    let texts = |row: &csv::StringRecord| row.iter().map(str::to_owned).collect::<Vec<_>>();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let columns = texts(reader.headers().map_err(broken)?);
    let rows = reader.records().map(|row| row.map(|row| texts(&row)));
    let rows = rows.collect::<Result<_, _>>().map_err(broken)?;
    let version = env!("CARGO_PKG_VERSION");
    filled("Sweep", SWEEP, &Points { name, version, keys, columns, rows })
}

fn filled(title: &str, script: &str, data: &impl Serialize) -> Outcome<String> {
    let json = serde_json::to_string(data)
        .map_err(|fault| Failure::failed(format!("cannot write the page: {fault}")))?;
    // Nothing in the data may end the element that it is in.
    let json = json.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let parts = [
        ("/*TITLE*/", title),
        ("/*STYLE*/", STYLE),
        ("/*CHARTS*/", CHARTS),
        ("/*SCRIPT*/", script),
        ("/*DATA*/", json.as_str()),
    ];
    let page = parts.into_iter().fold(PAGE.to_owned(), |page, (mark, text)| {
        // Once: the data, which comes last, may hold a mark.
        page.replacen(mark, text, 1)
    });
    Ok(page)
}
