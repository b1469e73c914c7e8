use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gatewright_control::config::Override;
use schemars::schema_for;

use crate::failure::{Exit, Failure, Outcome};
use crate::settings::{self, SYSTEM_FILE};
use crate::{output, settings::parse_set};

/// Check or show the system file.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright config check
  gatewright config show --set function.square.replicas.max=16
  gatewright config schema > gatewright.schema.json")]
pub(crate) struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether the file is right, and if not, where.
    #[command(after_long_help = "\
Examples:
  gatewright config check
  gatewright config check examples/square/gatewright.toml && echo good")]
    Check(File),
    /// Print the settings that hold: the file with its defaults, variables and flags applied.
    #[command(after_long_help = "\
Examples:
  gatewright config show
  GATEWRIGHT_GATEWAY__LISTEN=0.0.0.0:80 gatewright config show --set gateway.drain=5s")]
    Show(File),
    /// Print the JSON Schema of the file, for editors.
    #[command(after_long_help = "\
Examples:
  gatewright config schema > gatewright.schema.json
  gatewright config schema scenario")]
    Schema {
        /// Which kind of file.
        #[arg(value_enum, default_value_t)]
        of: Kind,
    },
}

/// A kind of file.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Kind {
    /// A system: gatewright.toml.
    #[default]
    System,
    /// What is asked of it in a simulation.
    Scenario,
    /// What its functions are like.
    Model,
}

#[derive(Debug, Args)]
struct File {
    /// The system file.
    #[arg(default_value = SYSTEM_FILE)]
    file: PathBuf,

    /// Set a key of the file, such as function.square.replicas.max=16.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,
}

impl Config {
    pub(crate) fn run(self) -> Outcome {
        match self.action {
            Action::Check(File { file, set }) => {
                let loaded = settings::load(&file, &set)?;
                let (functions, routes) =
                    (loaded.system.function.len(), loaded.system.routes.len());
                output::data(&format!(
                    "{} is right: {}, {}",
                    loaded.path.display(),
                    counted(functions, "function"),
                    counted(routes, "route")
                ))?;
            }
            Action::Show(File { file, set }) => {
                let loaded = settings::load(&file, &set)?;
                let text = toml::to_string(&loaded.system).map_err(|fault| {
                    Failure::failed(format!("cannot write it as TOML: {fault}"))
                })?;
                output::data(&text)?;
            }
            Action::Schema { of } => output::json(&match of {
                Kind::System => schema(),
                Kind::Scenario => schema_for!(gatewright_sim::Scenario),
                Kind::Model => schema_for!(gatewright_sim::Model),
            })?,
        }
        Ok(Exit::Done)
    }
}

/// The JSON Schema of the system file.
pub(crate) fn schema() -> schemars::Schema {
    let mut schema = schema_for!(gatewright_control::config::SystemFile);
    schema.insert("title".to_owned(), "gatewright.toml".into());
    schema
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
