//! The reference pages that are made from the code.

mod command_line;
mod files;

use gatewright_bench::{Report, Scenario};
use gatewright_sim::Model;
use schemars::schema_for;

use crate::commands::config;
use crate::failure::{Failure, Outcome};

/// Name and text of each page.
pub(crate) fn pages() -> Outcome<[(&'static str, String); 10]> {
    let schema = config::schema();
    let json_of = |schema: schemars::Schema| {
        serde_json::to_string_pretty(&schema)
            .map(|text| text + "\n")
            .map_err(|fault| Failure::failed(format!("cannot write the schema: {fault}")))
    };
    Ok([
        ("bench.schema.json", json_of(schema_for!(Scenario))?),
        ("bench-result.schema.json", json_of(schema_for!(Report))?),
        ("cli.md", command_line::page()),
        ("gatewright-toml.md", files::system(schema.as_value())),
        ("gatewright.schema.json", json_of(schema)?),
        ("metrics.md", gatewright_serve::metrics_page()),
        ("model-toml.md", files::model(schema_for!(Model).as_value())),
        ("model.schema.json", json_of(schema_for!(Model))?),
        ("scenario-toml.md", files::scenario(schema_for!(gatewright_sim::Scenario).as_value())),
        ("scenario.schema.json", json_of(schema_for!(gatewright_sim::Scenario))?),
    ])
}
