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
  GATEWRIGHT_WORKER_TOKEN=... gatewright worker models:Square --hub 10.0.0.5:5019 --function square --window 4
  gatewright worker models:Square --hub hub.example:5019 --function square --tls --label zone=a")]
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

    /// Label of this machine, shown by `gatewright describe`. Can be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<String>,

    /// Speak TLS with a gateway that has `hub.tls` and whose certificate this system's roots vouch for.
    #[arg(long)]
    tls: bool,

    /// Speak TLS, and trust the roots in this file in their place. PEM.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Certificate for a gateway with `hub.tls.client_ca`. PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// Key of that certificate. PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,

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
        for label in &self.labels {
            command.args(["--label", label]);
        }
        if self.tls {
            command.arg("--tls");
        }
        let files = [
            ("--tls-ca", &self.tls_ca),
            ("--tls-certificate", &self.tls_certificate),
            ("--tls-key", &self.tls_key),
        ];
        for (flag, file) in files {
            if let Some(file) = file {
                command.arg(flag).arg(file);
            }
        }
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

/// A label as it was given, if it is one.
fn label(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("it is not of the form KEY=VALUE"),
    }
}
