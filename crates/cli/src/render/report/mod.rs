//! Results of benchmarks as one page with charts, which needs no network.

use gatewright_bench::{ComparisonRow, Report, compare};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

const PAGE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// What the script of the page finds in it.
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

/// The page.
pub(crate) fn page(reports: &[Report]) -> Outcome<String> {
    let rows =
        |after: &Report| Comparison { rows: compare(&reports[..1], std::slice::from_ref(after)) };
    let data = Data { reports, comparison: reports.iter().skip(1).map(rows).collect() };
    let json = serde_json::to_string(&data)
        .map_err(|fault| Failure::failed(format!("cannot write the page: {fault}")))?;
    // Nothing in the data may end the element that it is in.
    let json = json.replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let parts = [("/*STYLE*/", STYLE), ("/*SCRIPT*/", SCRIPT), ("/*DATA*/", json.as_str())];
    let page = parts.into_iter().fold(PAGE.to_owned(), |page, (mark, text)| {
        // Once: the data, which comes last, may hold a mark.
        page.replacen(mark, text, 1)
    });
    Ok(page)
}
