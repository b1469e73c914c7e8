//! The reference pages that are made from the code.

mod command_line;
mod system_file;

use crate::commands::config;
use crate::failure::{Failure, Outcome};

/// Name and text of each page.
pub(crate) fn pages() -> Outcome<[(&'static str, String); 4]> {
    let schema = config::schema();
    let json = serde_json::to_string_pretty(&schema)
        .map_err(|fault| Failure::failed(format!("cannot write the schema: {fault}")))?;
    Ok([
        ("cli.md", command_line::page()),
        ("gatewright-toml.md", system_file::page(schema.as_value())),
        ("gatewright.schema.json", json + "\n"),
        ("metrics.md", gatewright_serve::metrics_page()),
    ])
}
