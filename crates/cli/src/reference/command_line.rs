use std::fmt::Write as _;

use clap::CommandFactory as _;

use crate::arguments::Cli;

const HEAD: &str = "\
# The command line

Made from the code by `gatewright generate docs/reference`; a test holds it to that.
";

/// Width of the help texts, in columns.
const WIDTH: usize = 100;

/// Markdown with the long help of every command.
pub(super) fn page() -> String {
    let mut root = Cli::command().term_width(WIDTH).color(clap::ColorChoice::Never);
    root.build();
    let mut root = without_values(root);
    let mut text = HEAD.to_owned();
    section(&mut root, "", &mut text);
    text
}

/// The same command without what the environment says just now: the page is the same everywhere.
fn without_values(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(without_values)
}

fn section(command: &mut clap::Command, parent: &str, text: &mut String) {
    let name = format!("{parent} {}", command.get_name()).trim().to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    write!(text, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end())
        .expect("a String takes everything");
    for subcommand in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        section(subcommand, &name, text);
    }
}
