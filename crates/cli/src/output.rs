//! The only place that prints. stdout is data, stderr is everything else. Colours are left out without a
//! terminal and with `NO_COLOR`.

use std::io::{self, Write as _};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::failure::{Exit, Failure, Outcome};

/// Prints a result. That nobody reads on (`gatewright ... | head`) is no failure.
pub(crate) fn data(text: &str) -> Outcome<()> {
    let mut stdout = anstream::stdout().lock();
    let newline = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    written(write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()))
}

/// Prints a result of bytes, as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Prints a result as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome<()> {
    data(&to_json(value)?)
}

/// A result as indented JSON, with a newline at its end.
pub(crate) fn to_json(value: &impl Serialize) -> Outcome<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|fault| Failure::failed(format!("cannot write the result as JSON: {fault}")))
}

fn written(result: io::Result<()>) -> Outcome<()> {
    match result {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("stdout: {fault}")))
        }
        _ => Ok(()),
    }
}

/// Tells the user something on the way.
pub(crate) fn note(text: &str) {
    to_stderr(&format!("{text}\n"));
}

/// Tells the user something to look at.
pub(crate) fn warning(text: &str) {
    to_stderr(&format!("{} {text}\n", "warning:".yellow().bold()));
}

/// Says why the command ended.
pub(crate) fn failure(failure: &Failure) -> Exit {
    let mut text = format!("{} {}\n", "error:".red().bold(), failure.what);
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("\n{} {hint}\n", "hint:".cyan().bold()));
    }
    to_stderr(&text);
    failure.exit
}

fn to_stderr(text: &str) {
    // There is nowhere left to report that stderr is closed.
    drop(anstream::stderr().lock().write_all(text.as_bytes()));
}
