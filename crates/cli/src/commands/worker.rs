use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::admin;
use crate::failure::{Failure, Outcome, reason};

/// Serve a Python class as a worker of a gateway elsewhere.
///
/// It joins the gateway at its `hub.listen`, answers requests of the function, and joins again whenever the gateway
/// comes back. SIGTERM lets it finish what it has. The class is looked for in the working directory.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright worker models:Square --hub 10.0.0.5:5019 --function square
  GATEWRIGHT_WORKER_TOKEN=... gatewright worker models:Square --hub 10.0.0.5:5019 --function square --window 4")]
pub(crate) struct Worker {
    /// What to serve, module:Class.
    class: String,

    /// Where the gateway lets workers in.
    #[arg(long, value_name = "HOST:PORT")]
    hub: String,

    /// Name of the function that it answers for.
    #[arg(long, value_name = "NAME")]
    function: String,

    /// Requests at a time; more than 1 uses threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,

    /// Requests in a batch, for a function with `batch`: one call with a list.
    #[arg(long, conflicts_with = "window")]
    batch: Option<u32>,

    /// Name of the worker in the gateway's log.
    #[arg(long, default_value = "worker")]
    name: String,

    /// The Python that runs it; it must have the package `gatewright`.
    #[arg(long, value_name = "PROGRAM", env = "GATEWRIGHT_PYTHON", default_value = "python3")]
    python: PathBuf,

    /// File with the token of workers; the variable GATEWRIGHT_WORKER_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE")]
    worker_token_file: Option<PathBuf>,
}

impl Worker {
    pub(crate) fn run(self) -> Outcome {
        let mut command = Command::new(&self.python);
        command.args(["-m", "gatewright.worker", &self.class, "--hub", &self.hub]).args([
            "--function",
            &self.function,
            "--name",
            &self.name,
        ]);
        match self.batch {
            Some(batch) => command.args(["--batch", &batch.to_string()]),
            None => command.args(["--window", &self.window.to_string()]),
        };
        if let Some(token) = admin::worker_token(self.worker_token_file.as_deref())? {
            command.env("GATEWRIGHT_WORKER_TOKEN", token);
        }
        // Python takes the place of this process: whoever stops it stops the worker.
        let fault = command.exec();
        let program = self.python.display();
        Err(Failure::failed(format!("cannot run {program}: {}", reason(&fault)))
            .hint("name a Python that exists with --python"))
    }
}
