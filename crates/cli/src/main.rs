//! The command `gatewright`. It reads arguments, files and the environment, runs the other crates, and renders
//! what they say. It decides nothing itself.
//!
//! Results go to stdout, everything else to stderr ([`output`]); how a command ends is its exit status
//! ([`failure::Exit`]).

mod admin;
mod arguments;
mod batches;
mod commands;
mod design;
mod failure;
mod files;
mod frames;
mod interrupt;
mod output;
mod progress;
mod records;
mod reference;
mod rehearsal;
mod render;
mod replicate;
mod reports;
mod settings;
mod sweep;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Cli;

/// A cache that is full for days frees and takes pieces of all lengths from many threads: the system's allocator then
/// holds a third more than is in use, and threads wait for one another when ten thousand answers leave at once
/// (`benchmarks/relay/million.py` and `herd.py` show both).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        Err(fault) => arguments::explain(&fault),
    };
    let exit = outcome.unwrap_or_else(|failure| output::failure(&failure));
    ExitCode::from(exit as u8)
}
