use std::path::PathBuf;

use clap::Args;
use gatewright_control::config::{Override, read_with};
use gatewright_mock::{Config, MockError};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure, Outcome, reason};
use crate::output;
use crate::settings::{self, parse_set};

/// Stand in for a server, plain HTTP or a language model, with chosen delays and faults
///
/// Without a file it is an OpenAI server at 127.0.0.1:8000: chat, completions, responses, embeddings and models,
/// streaming or not. The same seed gives the same answers, delays and faults. SIGTERM or Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright mock
  gatewright mock --set openai.ttft.fixed=0.2 --set openai.itl.fixed=0.02 --set openai.slots=16
  gatewright mock --listen 127.0.0.1:9100 --set http.latency.exponential.mean=0.05 --set http.body_bytes=1024
  gatewright mock mock.toml --set faults.error_rate=0.01")]
pub(crate) struct Mock {
    /// File with the settings; every one of them has a default.
    file: Option<PathBuf>,

    /// Address to listen on, host:port. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Seed of every random number.
    #[arg(long)]
    seed: Option<u64>,

    /// Set a key of the settings, such as openai.slots=16.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,
}

impl Mock {
    pub(crate) fn run(self) -> Outcome {
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|fault| Failure::failed(format!("cannot start: {}", reason(&fault))))?;
        let mock = gatewright_mock::start(config).map_err(|error| explain(&error))?;
        output::note(&format!("listening on http://{}", mock.address()));
        runtime.block_on(stopped()).map_err(|fault| {
            Failure::failed(format!("cannot listen for signals: {}", reason(&fault)))
        })?;
        let summary = mock.stop().map_err(|error| explain(&error))?;
        output::note(&format!("{} requests", summary.requests));
        Ok(Exit::Done)
    }

    fn config(&self) -> Outcome<Config> {
        let text = match &self.file {
            Some(path) => settings::read(path)?,
            None => String::new(),
        };
        let named = |key: &str, value: String, flag: &str| Override::new(key, &value, flag);
        let listen =
            self.listen.as_ref().map(|address| named("listen", address.clone(), "--listen"));
        let seed = self.seed.map(|seed| named("seed", seed.to_string(), "--seed"));
        let overrides: Vec<_> = self.set.iter().cloned().chain(listen).chain(seed).collect();
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from("mock"));
        read_with(&text, &overrides).map_err(|mut fault| {
            let examples = || "`gatewright mock --help` has examples".to_owned();
            fault.hint = fault.hint.or_else(|| Some(examples()));
            Failure::of_config(&path, fault)
        })
    }
}

/// Waits for SIGTERM or Ctrl-C.
async fn stopped() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed,
    }
}

fn explain(error: &MockError) -> Failure {
    let failure = match error {
        MockError::Config { .. } | MockError::Bind { .. } => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
