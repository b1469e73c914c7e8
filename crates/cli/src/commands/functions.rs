use clap::Args;
use http::Method;
use serde::Deserialize;

use super::Format;
use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::render::{Table, count};

/// List the functions of a running gateway.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright functions
  gatewright functions --format json
  GATEWRIGHT_TOKEN=... gatewright functions --admin http://10.0.0.5:8081")]
pub(crate) struct Functions {
    /// What the list is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

/// A function, in OpenFaaS's words; what else the gateway tells of it is left out of the table.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Function {
    name: String,
    replicas: u64,
    available_replicas: u64,
    min_replicas: u64,
    max_replicas: u64,
    in_flight: u64,
    queued: u64,
    invocation_count: u64,
}

impl Functions {
    pub(crate) fn run(self) -> Outcome {
        let answer = self.admin.ask(Method::GET, "/system/functions", Vec::new())?;
        let not_a_list = |fault: serde_json::Error| {
            Failure::failed(format!("the answer is no list of functions: {fault}"))
                .hint("does --admin name the admin address of a gateway?")
        };
        match self.format {
            Format::Json => {
                let list: serde_json::Value =
                    serde_json::from_slice(&answer.body).map_err(not_a_list)?;
                output::json(&list)?;
            }
            Format::Text => {
                let list: Vec<Function> =
                    serde_json::from_slice(&answer.body).map_err(not_a_list)?;
                output::data(&table(&list))?;
            }
        }
        Ok(Exit::Done)
    }
}

fn table(functions: &[Function]) -> String {
    let mut table = Table::new(&[
        "function",
        "replicas",
        "running",
        "min",
        "max",
        "in service",
        "waiting",
        "invocations",
    ]);
    for function in functions {
        table.row([
            function.name.clone(),
            count(function.replicas),
            count(function.available_replicas),
            count(function.min_replicas),
            count(function.max_replicas),
            count(function.in_flight),
            count(function.queued),
            count(function.invocation_count),
        ]);
    }
    table.to_string()
}

/// A function's name as a segment of a path.
pub(crate) fn path_segment(name: &str) -> Outcome<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(allowed) {
        return Ok(name);
    }
    Err(Failure::usage(format!("`{name}` is no name of a function"))
        .hint("names have letters, digits, `-`, `_` and `.`; `gatewright functions` lists them"))
}
