use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gatewright_control::config::Override;
use gatewright_serve::{Options, ServeError, Shutdown};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::admin;
use crate::failure::{Exit, Failure, Outcome, reason};
use crate::settings::{self, SYSTEM_FILE, parse_set};

/// Serve the functions of a system file over HTTP.
///
/// A gateway with worker processes, a caching relay and an admin API. It starts the first replicas of every function, and then takes requests. SIGTERM or Ctrl-C drains: what was
/// taken is answered, then it ends; a second one ends it at once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright serve
  gatewright serve examples/lunch/gatewright.toml --set gateway.listen=127.0.0.1:9000
  gatewright serve --records served.jsonl --log-format json
  GATEWRIGHT_TOKEN=... gatewright serve --set gateway.admin=0.0.0.0:8081")]
pub(crate) struct Serve {
    /// The system file.
    #[arg(default_value = SYSTEM_FILE)]
    file: PathBuf,

    /// Set a key of the file, such as gateway.listen=127.0.0.1:9000.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,

    /// File for a record of every request, one JSON object a line (.jsonl); or a folder for those and what happens to
    /// replicas (invocations.jsonl, replicas.jsonl, scaling.jsonl).
    #[arg(long, value_name = "FILE|FOLDER")]
    records: Option<PathBuf>,

    /// The Python that runs workers; it must have the package `gatewright`.
    #[arg(long, value_name = "PROGRAM", env = "GATEWRIGHT_PYTHON", default_value = "python3")]
    python: PathBuf,

    /// File with the token that the admin API asks for; the variable GATEWRIGHT_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// File with the token of workers that join at hub.listen; the variable GATEWRIGHT_WORKER_TOKEN holds the token
    /// itself.
    #[arg(long, value_name = "FILE")]
    worker_token_file: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, trace, also by module (info,gatewright_serve=debug).
    #[arg(long, value_name = "LEVEL", env = "GATEWRIGHT_LOG", default_value = "info")]
    log: String,

    /// What log lines are written as.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON object a line
    Json,
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        let loaded = settings::load(&self.file, &self.set)?;
        let wrong =
            |path: &PathBuf| path.extension().is_some_and(|end| end != "jsonl") && !path.is_dir();
        if self.records.as_ref().is_some_and(wrong) {
            return Err(Failure::usage("--records: a gateway writes one JSON object a line")
                .hint("give it a name that ends in .jsonl, or a folder"));
        }
        let options = Options {
            records: self.records.clone(),
            token: admin::token(self.token_file.as_deref())?,
            token_file: self.token_file.clone(),
            worker_token: admin::worker_token(self.worker_token_file.as_deref())?,
            worker_token_file: self.worker_token_file.clone(),
            python: self.python.clone(),
            ..Options::default()
        };
        self.open_log()?;
        let folder = match self.file.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(loaded.system.threads(processors))
            .enable_all()
            .build()
            .map_err(|fault| Failure::failed(format!("cannot start: {}", reason(&fault))))?;
        runtime.block_on(async {
            let shutdown = Shutdown::on_signals().map_err(|fault| {
                Failure::failed(format!("cannot listen for signals: {}", reason(&fault)))
            })?;
            let served = gatewright_serve::run(loaded.system, folder, options, shutdown).await;
            served.map_err(|error| explain(&self.file, &error))
        })?;
        Ok(Exit::Done)
    }

    fn open_log(&self) -> Outcome<()> {
        let wrong = |what: &str| {
            Failure::usage(format!("--log `{}`: {what}", self.log)).hint(
                "write a level (error, warn, info, debug, trace), or module=level, with commas",
            )
        };
        // A word that is no level would be taken for a module, all of whose lines are wanted.
        let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
        if let Some(word) = self.log.split(',').find(|word| !word.contains('=') && !is_level(word))
        {
            return Err(wrong(&format!("`{word}` is no level")));
        }
        let filter = EnvFilter::try_new(&self.log).map_err(|fault| wrong(&fault.to_string()))?;
        let colours =
            anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(colours);
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        Ok(())
    }
}

/// What the gateway could not do; most of it is a matter of the system file.
fn explain(file: &Path, error: &ServeError) -> Failure {
    let failure = match error {
        ServeError::Hub(_) | ServeError::Interrupted => Failure::failed(error),
        ServeError::Bind { key, address, source } => {
            Failure::usage(format!("cannot listen on {address} ({key}): {}", reason(source)))
        }
        ServeError::Records { path, source } => Failure::of_writing(path, source),
        _ => Failure::usage(format!("{}: {error}", file.display())),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
