//! `gatewright.toml`: its types, its defaults, and what is wrong with it.
//!
//! [`SystemFile::parse`] reads the text; an unknown key is an error with its line and the nearest known key.
//! Overrides (`--set`, environment variables, a scenario's `[change]`) are [`Override`]s applied to the text's
//! table before it is read, so that every key can be overridden and none twice in different ways.

mod access;
mod cache;
mod check;
mod cluster;
mod error;
mod gateway;
mod limit;
mod overrides;
mod quantities;
mod route;
mod tls;
mod upgrade;
mod upstreams;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{ApiKey, ProxyFields, SecretPlace, SentFields};
pub use cache::{Cache, Disk, SharedUrl};
pub use cluster::{
    Bucket, Build, Cluster, DataRule, Image, ImageDetail, ImageRule, NetworkLink, NodeGroup,
    Requests, Scene,
};
pub use error::{ConfigError, nearest};
pub use gateway::{Gateway, Hub};
pub use limit::{LimitBy, RateLimit};
pub use overrides::{Override, read_with};
pub use quantities::{Bandwidth, Cores};
pub use route::{Check, Route};
pub use tls::{ClientTls, ServerTls};
pub use upgrade::{Upgrade, UpgradeRules};
pub use upstreams::{HealthCheck, Timeouts, Upstream, Upstreams};
pub use values::{HumanDuration, HumanSize};

use crate::adapt::Adapt;
use crate::autoscale::Autoscale;
use crate::balance::Balance;
use crate::cache::PolicyError;
use crate::compress::Compress;
use crate::health::{BreakerRules, EjectRules, HealthRules};
use crate::keep_alive::KeepAlive;
use crate::{Deployment, Retries, Scale};

/// A whole system: the contents of `gatewright.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SystemFile {
    /// Where and within which bounds the gateway listens.
    pub gateway: Gateway,
    /// Where workers from elsewhere may join.
    pub hub: Hub,
    /// Where responses are stored.
    pub cache: Cache,
    /// API keys by name. Which of them are asked for, `keys` of the gateway, a function or a route says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub key: BTreeMap<String, ApiKey>,
    /// The functions by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub function: BTreeMap<String, Function>,
    /// Paths of the gateway and the functions that answer them. `/function/{name}` needs no route.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// What replicas on nodes run in a simulation, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub image: BTreeMap<String, Image>,
    /// The machines of a simulation, and the network between them.
    #[serde(skip_serializing_if = "is_default")]
    pub cluster: Cluster,
}

/// A function and how it is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Function {
    /// A Python class, "module:Class"; the module is looked for beside the system file. Each replica is a
    /// process with one instance of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// An HTTP upstream, "http://host:port/path" or "https://host/path"; or a list of several that answer alike:
    /// ["http://a:1", { url = "http://b:1", weight = 2 }].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Upstreams>,
    /// Whom an https upstream's certificate must come from, if not from the system's roots, and the certificate
    /// that is shown to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Whether upstreams are spoken to in HTTP/2 alone, also over plain TCP (prior knowledge), as gRPC needs it. Over
    /// TLS it is used wherever the upstream offers it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// How long the parts of an exchange with an upstream may take.
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// Stops requests to an upstream that fails, and tries it again with a few: `breaker = {}` for the usual
    /// settings. Not at all unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerRules>,
    /// Leaves out an upstream that does worse than the others. Not at all unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eject: Option<EjectRules>,
    /// Learns how many requests at a time an upstream takes; what is above that waits. `concurrency` alone limits
    /// them unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapt: Option<Adapt>,
    /// A program and its arguments, run without a shell. Its path is relative to the system file, or a name to be
    /// looked for; `mode` says how it is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Vec<String>>,
    /// How a `process` is run: once for each request ("fork", unless set), or as a server that goes on ("http").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProcessMode>,
    /// How upstreams are asked whether they are well: a path, or { path = "/", interval = "5s", ... }. They are not
    /// asked unless set. A `process` with mode = "http" is ready when it answers the path with 2xx, or, unless set,
    /// when its port takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Whether only workers answer that are started elsewhere and join at `hub.listen`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
    /// Positional arguments of the Python class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<serde_json::Value>,
    /// Keyword arguments of the Python class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kwargs: BTreeMap<String, serde_json::Value>,
    /// Additional environment variables of its processes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Bounds of the number of replicas.
    pub replicas: Replicas,
    /// Requests that one replica works on at a time. 1 for a Python class unless set; no limit for an upstream
    /// unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How many replicas there should be.
    pub autoscale: Autoscale,
    /// How long a replica stays that has nothing to do; never fewer than `replicas.min`.
    pub keep_alive: KeepAlive,
    /// Requests that wait.
    pub queue: Queue,
    /// How often each client may ask, by whichever route or name. As often as it likes unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
    /// Names of the API keys of which a request must present one, in place of the gateway's; [] for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// How long a request may take in all, waiting and retries included.
    pub timeout: HumanDuration,
    /// How long a replica may take to start.
    pub start_timeout: HumanDuration,
    /// How long one attempt may take: a replica that takes longer is taken to hang and is killed. No limit unless
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_execution: Option<HumanDuration>,
    /// How long a replica may go on with a request that nobody waits for before it is killed. As long as it likes
    /// unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_grace: Option<HumanDuration>,
    /// Memory that a worker process may have (resident). One that has more is replaced: it goes on until a new
    /// one is ready. No limit unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<HumanSize>,
    /// Whether the class takes a list of requests at a time, and of what length. One at a time unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// How requests are tried again when their replica is lost.
    pub retries: RetryRules,
    /// Which replica a request goes to: the name of an algorithm, or { policy = "...", ... } with its settings.
    pub balance: Balance,
    /// Whether the answer to an exception of the user's code has its traceback.
    pub expose_traceback: bool,
    /// JSON Schema that the body of a request must fit: "schema.json", or { schema = "schema.json", status = 400 }.
    /// One that does not fit is answered with 422, or that status, and goes no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Check>,
    /// JSON Schema that the body of a good answer must fit. One that does not fit is answered with 500, or the
    /// status given. Of a worker's answer that comes in pieces each must fit by itself: what a generator yields, as a
    /// value; the first one that does not breaks the answer off, or, as the very first piece, is answered like any
    /// other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Check>,
    /// What a replica takes of its node, in a simulation.
    #[serde(skip_serializing_if = "is_default")]
    pub requests: Requests,
    /// Images that replicas on nodes may run, the best first, in a simulation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageRule>,
    /// Labels that a node must have, in a simulation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_labels: BTreeMap<String, String>,
    /// Labels that a node had better have, for the priority `capability`, in a simulation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, String>,
    /// Data in the cluster that it reads and writes, in a simulation.
    #[serde(skip_serializing_if = "is_default")]
    pub data: DataRule,
}

/// How a program is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessMode {
    /// Once for each request: the body comes on its stdin, what it writes to stdout is the answer, and an exit status
    /// other than 0 is an error.
    #[default]
    Fork,
    /// As a server that goes on: each replica is one process, told by the environment variable PORT where to listen
    /// on 127.0.0.1, and requests are passed on to it. `{port}` in its arguments stands for the port, too.
    Http,
}

/// Bounds of the number of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replicas {
    /// Never fewer; 0 lets an autoscaler stop them all.
    pub min: u32,
    /// Never more. `min` unless set, and at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// Requests that wait for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// How many may wait; one more is refused with 429.
    pub capacity: u32,
}

/// How requests are tried again when their replica is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRules {
    /// Attempts in all; 1 means that no request is ever run twice.
    pub attempts: u32,
    /// Retries as a share of the requests of the last ten seconds.
    pub budget: f64,
    /// Pause before the second retry of a request, doubled for each further one. The first retry is at once.
    pub backoff: HumanDuration,
    /// Statuses of an upstream's answer that are worth another attempt, if the request may be sent twice: 429, 500 to
    /// 599. None unless set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Whether the next attempt waits as long as the upstream's `Retry-After` says. If that is longer than the
    /// request has left, there is none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry_after: bool,
}

/// Requests handed to a replica together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Requests in a batch at most.
    pub max_size: u32,
    /// How long the first request of a batch waits for others while a replica is free.
    pub max_wait: HumanDuration,
}

/// What the replicas of a function run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime<'a> {
    /// Python processes; "module:Class".
    Python(&'a str),
    /// Upstreams.
    Http(&'a Upstreams),
    /// The program and its arguments, and how it is run.
    Process(&'a [String], ProcessMode),
    /// Workers that are started elsewhere.
    Remote,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Function {
    fn default() -> Self {
        let deployment = Deployment::default();
        Self {
            python: None,
            http: None,
            tls: None,
            http2: false,
            timeouts: Timeouts::default(),
            breaker: None,
            eject: None,
            adapt: None,
            process: None,
            mode: None,
            health: None,
            remote: false,
            args: Vec::new(),
            kwargs: BTreeMap::new(),
            env: BTreeMap::new(),
            replicas: Replicas::default(),
            concurrency: None,
            autoscale: Autoscale::default(),
            keep_alive: KeepAlive::default(),
            queue: Queue::default(),
            limit: None,
            keys: None,
            timeout: HumanDuration::new(deployment.timeout),
            start_timeout: HumanDuration::from_secs(60),
            max_execution: None,
            cancel_grace: None,
            memory_limit: None,
            batch: None,
            retries: RetryRules::default(),
            balance: deployment.balance,
            expose_traceback: false,
            input: None,
            output: None,
            requests: Requests::default(),
            images: Vec::new(),
            node_labels: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            data: DataRule::default(),
        }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: 1, max: None }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { capacity: 1_000 }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_size: 8, max_wait: HumanDuration::new(Duration::from_millis(10)) }
    }
}

impl Default for RetryRules {
    fn default() -> Self {
        let Retries { attempts, budget, backoff } = Deployment::default().retries;
        let backoff = HumanDuration::new(backoff);
        Self { attempts, budget, backoff, statuses: Vec::new(), retry_after: false }
    }
}

impl Function {
    /// What the replicas run. Only called on a file that was checked.
    ///
    /// # Errors
    /// None or several are given.
    pub fn runtime(&self) -> Result<Runtime<'_>, &'static str> {
        match (&self.python, &self.http, &self.process, self.remote) {
            (Some(class), None, None, false) => Ok(Runtime::Python(class)),
            (None, Some(upstreams), None, false) => Ok(Runtime::Http(upstreams)),
            (None, None, Some(command), false) => {
                Ok(Runtime::Process(command, self.mode.unwrap_or_default()))
            }
            (None, None, None, true) => Ok(Runtime::Remote),
            (None, None, None, false) => {
                Err("it has nothing to run: give it `python`, `http`, `process` or `remote = true`")
            }
            _ => Err("it has more than one of `python`, `http`, `process` and `remote`"),
        }
    }

    /// Whether requests are passed on over HTTP as they are: to an upstream, or to a program that serves.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        self.http.is_some() || self.mode == Some(ProcessMode::Http)
    }

    /// What the decisions need to know of it.
    #[must_use]
    pub fn deployment(&self, name: &str) -> Deployment {
        let unlimited = self.http.is_some();
        let endpoints = self.http.as_ref().map(Upstreams::endpoints).unwrap_or_default();
        let most = self.replicas.max.unwrap_or_else(|| self.replicas.min.max(1));
        Deployment {
            name: name.to_owned(),
            scale: match endpoints.len() as u32 {
                _ if self.remote => Scale { min: 0, max: 0 },
                0 | 1 => Scale { min: self.replicas.min, max: most },
                several => Scale { min: several, max: several },
            },
            endpoints,
            concurrency: self.concurrency.or(if unlimited { None } else { Some(1) }),
            queue_capacity: self.queue.capacity as usize,
            timeout: self.timeout.get(),
            max_execution: self.max_execution.map(HumanDuration::get),
            cancel_grace: self.cancel_grace.map(HumanDuration::get),
            retries: Retries {
                attempts: self.retries.attempts,
                budget: self.retries.budget,
                backoff: self.retries.backoff.get(),
            },
            batch: self.batch.map(|batch| crate::Batch {
                max_size: batch.max_size,
                max_wait: batch.max_wait.get(),
            }),
            balance: self.balance.clone(),
            health: HealthRules {
                breaker: self.breaker,
                eject: self.eject,
                check: match &self.health {
                    Some(check) if self.http.is_some() => Some(check.check()),
                    _ => None,
                },
            },
            adapt: self.adapt.clone(),
            autoscale: self.autoscale.clone(),
            keep_alive: self.keep_alive.clone(),
            requests: self.requests.resources(),
            images: self.images.iter().map(|rule| rule.choice(&self.requests)).collect(),
            node_labels: self.node_labels.clone(),
            capabilities: self.capabilities.clone(),
            data: self.data.clone().into(),
        }
    }
}

impl SystemFile {
    /// Reads the text of a system file, with `overrides` applied in order, and checks it.
    ///
    /// # Errors
    /// The first thing wrong: syntax, an unknown key, a wrong type, a value out of range, a name that leads
    /// nowhere.
    pub fn parse(text: &str, overrides: &[Override]) -> Result<Self, ConfigError> {
        let file: Self = if overrides.is_empty() {
            toml::from_str(text).map_err(|fault| ConfigError::from_toml(text, &fault))?
        } else {
            // The text alone first, so that its own faults are reported with their lines.
            toml::from_str::<Self>(text).map_err(|fault| ConfigError::from_toml(text, &fault))?;
            read_with(text, overrides)?
        };
        file.check()?;
        Ok(file)
    }

    /// Threads that serve requests, on a machine with so many processors. Workers need processors too: with as many
    /// threads as processors the two would take turns on them.
    #[must_use]
    pub fn threads(&self, processors: usize) -> usize {
        let beside = |function: &Function| function.python.is_some() || function.process.is_some();
        match self.gateway.threads {
            Some(threads) => threads.get().into(),
            None if self.function.values().any(beside) => processors.div_ceil(2),
            None => processors,
        }
    }

    /// Checks what the types alone do not hold.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check_gateway(&self.gateway)?;
        check::check_hub(&self.hub)?;
        check::check_cache(&self.cache)?;
        self.check_access()?;
        for (name, function) in &self.function {
            check::check_function(name, function)?;
        }
        for route in &self.routes {
            self.check_route(route)?;
        }
        check::check_cluster(self)
    }

    fn check_route(&self, route: &Route) -> Result<(), ConfigError> {
        let at = format!("route `{}`", route.path);
        if !route.path.starts_with('/') {
            return Err(ConfigError::new(at, "its path does not begin with `/`", None));
        }
        let (name, path) = route.target();
        let Some(function) = self.function.get(name) else {
            let hint = nearest(name, self.function.keys().map(String::as_str));
            let what = format!("there is no function `{name}`");
            return Err(ConfigError::new(at, &what, hint));
        };
        if !function.passes_on() && path.is_some() {
            let what = format!("function `{name}` is called by its name and has no paths");
            return Err(ConfigError::new(at, &what, Some(format!("write to = \"{name}\""))));
        }
        if path.is_some_and(|path| !path.starts_with('/')) {
            let what = "the upstream's path in `to` does not begin with `/`";
            return Err(ConfigError::new(at, what, None));
        }
        if !function.passes_on() && route.cache.is_some() {
            let what = "only responses of an `http` function are cached";
            return Err(ConfigError::new(at, what, Some("leave `cache` out".to_owned())));
        }
        if let Some(policy) = &route.cache {
            let wrong =
                |error: PolicyError| ConfigError::new(&at, &format!("cache: {error}"), None);
            policy.clone().checked().map_err(wrong)?;
        }
        if let Some(upgrade) = &route.upgrade {
            if !function.passes_on() || function.http2 {
                let what = "only upstreams that speak HTTP/1.1 switch protocols";
                return Err(ConfigError::new(at, what, Some("leave `upgrade` out".to_owned())));
            }
            if let Some(fault) = upgrade.fault() {
                return Err(ConfigError::new(at, &fault, None));
            }
        }
        if let Some(fault) = route.compress.as_ref().and_then(Compress::fault) {
            return Err(ConfigError::new(at, fault, None));
        }
        if let Some(Err(what)) = route.limit.as_ref().map(RateLimit::check) {
            return Err(ConfigError::new(at, &format!("limit.{what}"), None));
        }
        if let Some(check) = &route.check {
            if !function.passes_on() {
                let what = "only responses that are passed on are checked by their route";
                let hint = Some(format!("give function `{name}` the key `output`"));
                return Err(ConfigError::new(at, what, hint));
            }
            if !check.is_status_of_error() {
                return Err(ConfigError::new(at, "check.status must be 400 to 599", None));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
