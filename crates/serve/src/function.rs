use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::FunctionKey;
use gatewright_control::balance::{Balance, ConsistentHash};
use gatewright_control::config::{self, Runtime as Runs};
use gatewright_protocol::Arguments;

use crate::ServeError;
use crate::metrics::FunctionMetrics;
use crate::upstream::{Client, Endpoint, Upstreams};

/// A function and what its replicas run: what the decisions need not know.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Arc<str>,
    /// Its key in the system, once it is deployed.
    pub(crate) key: OnceLock<FunctionKey>,
    pub(crate) timeout: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) expose_traceback: bool,
    /// What its workers construct their object with.
    pub(crate) init: Arguments,
    /// Requests at a time in one replica, or in a batch.
    pub(crate) window: u32,
    /// Whether its workers get lists of requests.
    pub(crate) batches: bool,
    /// Memory of a worker in bytes above which it is replaced.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) runtime: Runtime,
    pub(crate) metrics: FunctionMetrics,
}

/// What the replicas of a function run.
#[derive(Debug)]
pub(crate) enum Runtime {
    /// Processes with an instance of a Python class each.
    Python(PythonClass),
    /// A process for each request. Its replicas exist in the decisions only.
    Process(Program),
    /// Workers that were started elsewhere and join.
    Remote,
    /// Upstreams. Its replicas exist in the decisions only: each stands for one of them.
    Http(Box<Upstreams>),
}

/// A Python class and where it runs.
#[derive(Debug)]
pub(crate) struct PythonClass {
    /// "module:Class".
    pub(crate) target: String,
    pub(crate) env: BTreeMap<String, String>,
}

/// A program that is run for each request.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Function {
    pub(crate) fn new(
        name: &str,
        config: &config::Function,
        base_dir: &Path,
        metrics: FunctionMetrics,
    ) -> Result<Self, ServeError> {
        let wrong = |what: String| ServeError::Function { function: name.to_owned(), what };
        let runtime = match config.runtime().map_err(|what| wrong(what.to_owned()))? {
            Runs::Python(target) => {
                Runtime::Python(PythonClass { target: target.to_owned(), env: config.env.clone() })
            }
            Runs::Process(command) => {
                let mut words = command.iter().cloned();
                Runtime::Process(Program {
                    path: words.next().unwrap_or_default().into(),
                    args: words.collect(),
                    env: config.env.clone(),
                })
            }
            Runs::Remote => Runtime::Remote,
            Runs::Http(upstreams) => {
                Runtime::Http(Box::new(self::upstreams(name, config, upstreams, base_dir)?))
            }
        };
        Ok(Self {
            name: name.into(),
            key: OnceLock::new(),
            timeout: config.timeout.get(),
            start_timeout: config.start_timeout.get(),
            expose_traceback: config.expose_traceback,
            init: init(config).map_err(|error| wrong(format!("args and kwargs: {error}")))?,
            window: match config.batch {
                Some(batch) => batch.max_size,
                None => config.concurrency.unwrap_or(1),
            },
            batches: config.batch.is_some(),
            memory_limit: config.memory_limit.map(config::HumanSize::bytes),
            runtime,
            metrics,
        })
    }

    /// Whether its replicas are workers.
    pub(crate) fn runs_workers(&self) -> bool {
        matches!(self.runtime, Runtime::Python(_) | Runtime::Remote)
    }

    /// What it runs, as the system file says it.
    pub(crate) fn runs(&self) -> String {
        match &self.runtime {
            Runtime::Python(class) => class.target.clone(),
            Runtime::Process(program) => program.path.display().to_string(),
            Runtime::Remote => "workers from elsewhere".to_owned(),
            Runtime::Http(upstreams) => {
                let urls: Vec<_> = upstreams.endpoints.iter().map(|at| at.url.as_str()).collect();
                urls.join(", ")
            }
        }
    }
}

/// Constructor arguments as a worker gets them.
fn init(config: &config::Function) -> Result<Arguments, Box<dyn std::error::Error>> {
    let pack = |json: Vec<u8>| Arguments::json(&json);
    let args = if config.args.is_empty() {
        Arguments::none().args
    } else {
        pack(serde_json::to_vec(&config.args)?)?.args
    };
    let kwargs: Bytes = if config.kwargs.is_empty() {
        Arguments::none().kwargs
    } else {
        pack(serde_json::to_vec(&config.kwargs)?)?.kwargs
    };
    Ok(Arguments { args, kwargs })
}

/// The upstreams of a function, and a client for them.
fn upstreams(
    name: &str,
    config: &config::Function,
    upstreams: &config::Upstreams,
    base_dir: &Path,
) -> Result<Upstreams, ServeError> {
    let wrong = |what: String| ServeError::Function { function: name.to_owned(), what };
    let tls = || {
        crate::tls::client(config.tls.as_ref(), base_dir)
            .map_err(|source| ServeError::Tls { at: format!("function `{name}`"), source })
    };
    let endpoints = upstreams.endpoints();
    let endpoints = endpoints.iter().map(|endpoint| Endpoint::parse(&endpoint.url));
    let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>().map_err(wrong)?;
    let secure = endpoints.iter().any(Endpoint::is_secure);
    let tls = secure.then(tls).transpose()?;
    let hash = match &config.balance {
        Balance::ConsistentHash(ConsistentHash { key, .. }) => Some(key.clone()),
        _ => None,
    };
    Ok(Upstreams { endpoints, client: Client::new(tls, &config.timeouts, config.http2), hash })
}
