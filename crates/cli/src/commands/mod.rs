//! One file a command: its arguments, and what it does.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod calibrate;
pub(crate) mod compare;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod deploy;
pub(crate) mod describe;
pub(crate) mod functions;
pub(crate) mod generate;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod mock;
pub(crate) mod predict;
pub(crate) mod reload;
pub(crate) mod remove;
pub(crate) mod replicas;
pub(crate) mod report;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod suspend;
pub(crate) mod worker;

use clap::ValueEnum;

use crate::arguments::{Cli, Command};
use crate::failure::Outcome;

/// What a result is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

pub(crate) fn run(cli: Cli) -> Outcome {
    let quiet = cli.quiet;
    match cli.command {
        Command::Serve(command) => command.run(),
        Command::Bench(command) => command.run(quiet),
        Command::Calibrate(command) => command.run(quiet),
        Command::Predict(command) => command.run(),
        Command::Report(command) => command.run(quiet),
        Command::Data(command) => command.run(quiet),
        Command::Compare(command) => command.run(),
        Command::Simulate(command) => command.run(quiet),
        Command::Mock(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Functions(command) => command.run(),
        Command::Invoke(command) => command.run(),
        Command::Scale(command) => command.run(quiet),
        Command::Deploy(command) => command.run(quiet),
        Command::Reload(command) => command.run(quiet),
        Command::Suspend(command) => command.run(quiet),
        Command::Describe(command) => command.run(),
        Command::Replicas(command) => command.run(),
        Command::Logs(command) => command.run(),
        Command::Worker(command) => command.run(),
        Command::Remove(command) => command.run(quiet),
        Command::Cache(command) => command.run(quiet),
        Command::Generate(command) => command.run(),
    }
}
