//! Results as text for people. Nothing here prints, and nothing here knows of a terminal: colours are codes in
//! the text, which the output leaves out where they have no place.

mod bench;
mod bench_csv;
mod comparison;
mod parquet_table;
mod report;
mod sheet;
mod table;
mod units;

pub(crate) use bench::BenchSheet;
pub(crate) use bench_csv::bench_csv;
pub(crate) use comparison::{By, comparison};
pub(crate) use parquet_table::parquet_table;
pub(crate) use report::{page as report_page, sweep_page};
pub(crate) use sheet::{Level, Sheet};
pub(crate) use table::Table;
pub(crate) use units::{CONFIDENCE, Unit, count, duration, rate};
