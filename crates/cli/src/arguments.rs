use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    bench, cache, calibrate, compare, config, data, deploy, describe, functions, generate, invoke,
    logs, mock, predict, reload, remove, replicas, report, scale, serve, simulate, suspend, worker,
};
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Serves functions, loads them, and rehearses them. One file, gatewright.toml, describes a system of
/// functions: Python classes in worker processes, and HTTP upstreams behind a cache. The same file is served
/// live, and simulated in virtual time by the same decision code.
#[derive(Debug, Parser)]
#[command(
    name = "gatewright",
    version,
    about = "Serves functions, loads them, and rehearses them: one file, the same decisions.",
    long_about,
    after_help = TOUR,
    after_long_help = TOUR_AND_RULES,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// Show neither progress nor notes on stderr; warnings and errors stay.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What one does with the commands, in order.
macro_rules! tour {
    () => {
        "\
A tour, in the folder examples/square:
  gatewright serve --records served.jsonl                 serve the functions of gatewright.toml
  gatewright invoke square 3                              ask one of them, from another terminal
  gatewright bench http://127.0.0.1:8080/function/square --body 3 --rate 8 --records seen.jsonl
                                                          load it, and see how it takes that
  gatewright calibrate served.jsonl seen.jsonl --output measured.model.toml
                                                          make a model of what was measured
  gatewright simulate scenario.toml --model measured.model.toml
                                                          ask the model about another load

`gatewright COMMAND --help` has examples of each command."
    };
}

const TOUR: &str = tour!();

const TOUR_AND_RULES: &str = concat!(
    tour!(),
    "

Settings: the file, over it variables like GATEWRIGHT_GATEWAY__LISTEN (two underscores are a
dot), over them flags like --set gateway.listen=127.0.0.1:9000.

Output: results go to stdout, everything else to stderr; NO_COLOR is honoured.

Exit status: 0 done; 1 failed; 2 wrong usage or settings; 3 an objective did not hold; 4 the
measurement is not valid, because the load generator was the limit; 130 and 143 SIGINT
and SIGTERM ended a sweep early."
);

/// In the order in which one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Serve),
    Bench(Box<bench::Bench>),
    Report(report::ReportCommand),
    Calibrate(calibrate::Calibrate),
    Simulate(simulate::Simulate),
    Predict(predict::Predict),
    Compare(compare::Compare),
    Mock(mock::Mock),
    Data(data::DataCommand),
    Config(config::Config),
    Functions(functions::Functions),
    Invoke(invoke::Invoke),
    Scale(scale::Scale),
    Deploy(deploy::Deploy),
    Reload(reload::Reload),
    Suspend(suspend::Suspend),
    Describe(describe::Describe),
    Replicas(replicas::Replicas),
    Logs(logs::Logs),
    Worker(worker::Worker),
    Remove(remove::Remove),
    Cache(cache::Cache),
    Generate(generate::Generate),
}

/// Says what is wrong with the arguments as every other error is said: one line, then a hint. Help and version
/// are data.
pub(crate) fn explain(fault: &clap::Error) -> Outcome {
    match fault.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::data(&fault.render().ansi().to_string())?;
            return Ok(Exit::Done);
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::note(fault.render().ansi().to_string().trim_end());
            return Ok(Exit::Usage);
        }
        _ => {}
    }
    let text = fault.render().to_string();
    // clap's first paragraph is the error, the ones after it are tips and the usage.
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error:");
    let what = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tip = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    let possible = what.find(" [possible values:").map(|at| what[at..].trim().to_owned());
    let what = possible.as_ref().map_or(what.as_str(), |values| what.trim_end_matches(values));
    let hint = match (tip, possible) {
        (Some(tip), _) => tip.lines().next().unwrap_or(tip).to_owned(),
        (None, Some(values)) => values.trim_matches(['[', ']']).to_owned(),
        (None, None) => format!("`{} --help` shows how it is used", command_asked_for()),
    };
    Err(Failure::usage(what.trim()).hint(hint))
}

/// The command that was asked for.
fn command_asked_for() -> String {
    let root = Cli::command();
    let known = |word: &String| root.find_subcommand(word).is_some();
    match std::env::args().skip(1).find(known) {
        Some(name) => format!("gatewright {name}"),
        None => "gatewright".to_owned(),
    }
}
