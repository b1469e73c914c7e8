use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::FunctionKey;
use gatewright_control::config::{self, Runtime as Runs};
use gatewright_protocol::Arguments;
use http::uri::{Authority, Scheme};

use crate::ServeError;
use crate::metrics::FunctionMetrics;
use crate::upstream::Client;

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
    /// An upstream. Its replicas exist in the decisions only.
    Http(Box<Upstream>),
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

/// An upstream: where it is, and the connections to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Path before every path, without a slash at its end.
    pub(crate) path: String,
    pub(crate) client: Client,
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
            Runs::Http(url) => {
                let tls = || {
                    crate::tls::client(config.tls.as_ref(), base_dir).map_err(|source| {
                        ServeError::Tls { at: format!("function `{name}`"), source }
                    })
                };
                let (scheme, authority, path) = whereabouts(url).map_err(wrong)?;
                let client = Client::new((scheme == Scheme::HTTPS).then(tls).transpose()?);
                Runtime::Http(Box::new(Upstream { scheme, authority, path, client }))
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
            Runtime::Http(base) => format!("{}://{}{}", base.scheme, base.authority, base.path),
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

/// Scheme, host and path of an upstream's URL.
fn whereabouts(url: &str) -> Result<(Scheme, Authority, String), String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("http = \"{url}\": {error}"))?;
    let parts = uri.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(format!("http = \"{url}\" names no host"));
    };
    let path = parts.path_and_query.map_or(String::new(), |path| path.path().to_owned());
    Ok((scheme, authority, path.trim_end_matches('/').to_owned()))
}
