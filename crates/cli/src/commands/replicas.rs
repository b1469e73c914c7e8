use clap::Args;
use serde::Deserialize;

use super::Format;
use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::render::{Table, count};

/// List the replicas of a function of a running gateway.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright replicas square
  gatewright replicas square --format json")]
pub(crate) struct Replicas {
    /// Name of the function.
    function: String,

    /// What the list is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replica {
    number: u64,
    state: String,
    in_flight: u64,
    joined: bool,
}

impl Replicas {
    pub(crate) fn run(self) -> Outcome {
        let mut function = super::describe::status(&self.admin, &self.function)?;
        let replicas = function["instances"].take();
        match self.format {
            Format::Json => output::json(&replicas)?,
            Format::Text => {
                let replicas: Vec<Replica> = serde_json::from_value(replicas).map_err(|fault| {
                    Failure::failed(format!("the answer is no list of replicas: {fault}"))
                })?;
                let mut table = Table::new(&["replica", "state", "in service", "started by"]);
                for replica in replicas {
                    let origin = if replica.joined { "itself" } else { "the gateway" };
                    table.row([
                        count(replica.number),
                        replica.state,
                        count(replica.in_flight),
                        origin.to_owned(),
                    ]);
                }
                output::data(&table.to_string())?;
            }
        }
        Ok(Exit::Done)
    }
}
