use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::FunctionKey;
use gatewright_control::balance::{Balance, ConsistentHash};
use gatewright_control::config::{self, ProcessMode, Runtime as Runs};
use gatewright_protocol::Arguments;

use crate::ServeError;
use crate::check::{Check, Side};
use crate::limits::Limit;
use crate::logs::Logs;
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
    /// What its replicas print.
    pub(crate) logs: Arc<Logs>,
    /// What the body of a request must look like.
    pub(crate) input: Option<Check>,
    /// What the body of a good answer must look like.
    pub(crate) output: Option<Check>,
    /// How often each client may ask.
    pub(crate) limit: Option<Limit>,
    /// The table of the system file that it was made of.
    pub(crate) config: config::Function,
}

/// What the replicas of a function run.
#[derive(Debug)]
pub(crate) enum Runtime {
    /// Processes with an instance of a Python class each.
    Python(PythonClass),
    /// A process for each request. Its replicas exist in the decisions only.
    Fork(Program),
    /// Processes that serve HTTP.
    Program(Box<Server>),
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

/// A program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

/// A program that serves HTTP.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) program: Program,
    /// Path that it answers with 2xx when it is ready.
    pub(crate) health: Option<String>,
    /// Where its requests go before it is known which process gets them.
    pub(crate) upstreams: Upstreams,
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
            Runs::Process(command, mode) => {
                let mut words = command.iter().cloned();
                let program = Program {
                    path: words.next().unwrap_or_default().into(),
                    args: words.collect(),
                    env: config.env.clone(),
                };
                let local = config::Upstreams::One("http://localhost".to_owned());
                match mode {
                    ProcessMode::Fork => Runtime::Fork(program),
                    ProcessMode::Http => Runtime::Program(Box::new(Server {
                        program,
                        health: config.health.as_ref().map(|check| check.path().to_owned()),
                        upstreams: upstreams(name, config, &local, base_dir)?,
                    })),
                }
            }
            Runs::Remote => Runtime::Remote,
            Runs::Http(upstreams) => {
                Runtime::Http(Box::new(self::upstreams(name, config, upstreams, base_dir)?))
            }
        };
        let check = |check: &Option<config::Check>, side| {
            let read = check.as_ref().map(|check| Check::read(check, base_dir, side));
            read.transpose().map_err(|what| wrong(format!("{side}: {what}")))
        };
        let name: Arc<str> = name.into();
        Ok(Self {
            input: check(&config.input, Side::Input)?,
            output: check(&config.output, Side::Output)?,
            limit: config.limit.as_ref().map(|limit| Limit::new(limit, "function")),
            config: config.clone(),
            logs: Logs::new(Arc::clone(&name)),
            name,
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

    /// Why it cannot take the place of this one while that serves; `None` if it can.
    pub(crate) fn cannot_become(&self, next: &Self) -> Option<&'static str> {
        let kind = std::mem::discriminant::<Runtime>;
        if kind(&self.runtime) != kind(&next.runtime) {
            Some("its replicas would be of another kind")
        } else if matches!(self.runtime, Runtime::Remote) && next.window > self.window {
            Some("its workers were let in for fewer requests at a time")
        } else {
            None
        }
    }

    /// The table of the system file that it is made of, without what is at its default.
    pub(crate) fn described(&self) -> serde_json::Value {
        let table = |config: &config::Function| serde_json::to_value(config).unwrap_or_default();
        let default = table(&config::Function::default());
        let mut own = table(&self.config);
        if let serde_json::Value::Object(keys) = &mut own {
            keys.retain(|key, value| default.get(key) != Some(value));
            // It may hold secrets.
            keys.remove("env");
        }
        own
    }

    /// Whether its replicas are workers.
    pub(crate) fn runs_workers(&self) -> bool {
        matches!(self.runtime, Runtime::Python(_) | Runtime::Remote)
    }

    /// Where its requests are passed on to, if they are.
    pub(crate) fn upstreams(&self) -> Option<&Upstreams> {
        match &self.runtime {
            Runtime::Http(upstreams) => Some(upstreams),
            Runtime::Program(server) => Some(&server.upstreams),
            Runtime::Python(_) | Runtime::Fork(_) | Runtime::Remote => None,
        }
    }

    /// What it runs, as the system file says it.
    pub(crate) fn runs(&self) -> String {
        match &self.runtime {
            Runtime::Python(class) => class.target.clone(),
            Runtime::Fork(program) => program.path.display().to_string(),
            Runtime::Program(server) => server.program.path.display().to_string(),
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
    let client = Client::new(tls, &config.timeouts, config.http2);
    let retries = &config.retries;
    Ok(Upstreams {
        endpoints,
        client,
        hash,
        check: config.health.as_ref().map(config::HealthCheck::check),
        retry_statuses: retries.statuses.clone(),
        retry_after: retries.retry_after,
    })
}
