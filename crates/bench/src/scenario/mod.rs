//! A whole benchmark as a value: the contents of a scenario file, and what a report keeps of its run.

mod builtin;
mod check;
mod models;
mod prepare;
mod target;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gatewright_workload::constraint::{Constraint, Window};
use gatewright_workload::profile::{Profile, Slo};
use gatewright_workload::{Limits, Strategy, span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use builtin::{BUILTIN, Builtin};
pub use prepare::{Prepared, ScenarioError, open_trace};
pub use target::{OpenAiTarget, TargetSpec};

use crate::gate::Gate;
use crate::{
    AtEnd, DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTION_STREAMS, DEFAULT_MAX_CONNECTIONS,
    DEFAULT_TIMEOUT, DataSpec, Trust,
};

/// A benchmark: who is asked, how, for how long, and what has to hold.
///
/// Demands are made one after the other; a profile chooses its steps by what the steps before came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Name of the run, in its records and request ids: 1 to 64 letters, digits and `-_.`.
    pub name: String,
    /// Seed of the arrivals and of everything else that is drawn.
    pub seed: u64,
    /// Words for reports, such as the version of what is measured.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is asked for; of several, each request's is drawn by weight.
    pub target: Vec<TargetSpec>,
    /// What places like `{{prompt}}` in URL, headers and body are filled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSpec>,
    /// How requests are offered, one demand after the other. Give this or `profile`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub demand: Vec<Demand>,
    /// A series of steps, each chosen by what those before it came to. Give this or `demand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Ends of every step, where its demand does not set them.
    pub limits: Limits,
    /// Which part of every step is measured.
    pub window: Window,
    /// What ends a step besides its limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraint: Vec<Constraint>,
    /// What becomes of requests in flight at the end of a step.
    pub at_end: AtEnd,
    /// What each request has to meet, and how many of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// What the numbers of every step have to meet, such as `"response p99 <= 200ms"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<Gate>,
    /// The load generator itself.
    pub client: Client,
}

/// How requests are offered, and how long: the same words as in a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// How requests are offered.
    pub arrival: Strategy,
    /// How long requests are offered.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "span")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Duration>,
    /// Requests offered at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The demand stops when this many of its requests have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
}

/// The load generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Before the run, the first request of each target is made, and again until it is answered well, for so long: `0s`
    /// asks once. Without a good answer the run is not begun.
    #[serde(skip_serializing_if = "Option::is_none", with = "span")]
    #[schemars(with = "Option<String>")]
    pub check: Option<Duration>,
    /// A target whose first request is redirected is asked where that leads to: found out once, before the run.
    #[serde(skip_serializing_if = "is_false")]
    pub follow_redirects: bool,
    /// How long a connection may take to be made.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// How long a request may take, from its scheduled moment (its sending, in a closed loop).
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Connections at most in an open loop: 1 to 65,536. A closed loop has one a stream.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_connections: u32,
    /// Whether requests are made by HTTP/2: over TLS as agreed there (ALPN), else without asking (prior knowledge).
    #[serde(skip_serializing_if = "is_false")]
    pub http2: bool,
    /// Requests at a time on a connection of HTTP/2; the server may allow fewer. Another connection is opened when all
    /// are full.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams_per_connection: u32,
    /// Threads that make the load; as many as it needs if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
    /// Unix socket on which the server listens; URLs then only tell host header and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix_socket: Option<String>,
    /// File of certificates (PEM) that are trusted instead of the system's, seen from the scenario's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The server need not prove who it is: whoever is in between can read along.
    #[serde(skip_serializing_if = "is_false")]
    pub insecure: bool,
    /// How often a request is made once more whose connection broke or which was answered with 429, 502, 503 or 504.
    pub retries: u32,
    /// Whether each request carries a header `x-request-id`, by which the server's records can be matched.
    pub request_ids: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "bench".to_owned(),
            seed: 1,
            labels: BTreeMap::new(),
            target: Vec::new(),
            data: None,
            demand: Vec::new(),
            profile: None,
            limits: Limits::default(),
            window: Window::default(),
            constraint: Vec::new(),
            at_end: AtEnd::Drain,
            slo: None,
            gate: Vec::new(),
            client: Client::default(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            check: None,
            follow_redirects: false,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            timeout: DEFAULT_TIMEOUT,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            http2: false,
            streams_per_connection: DEFAULT_CONNECTION_STREAMS,
            threads: None,
            unix_socket: None,
            ca: None,
            insecure: false,
            retries: 0,
            request_ids: true,
        }
    }
}

impl Client {
    /// How a secure server proves who it is; paths begin in `folder`.
    pub(crate) fn trust(&self, folder: &Path) -> Trust {
        Trust { ca: self.ca.as_ref().map(|path| folder.join(path)), insecure: self.insecure }
    }
}

impl Demand {
    /// A demand that ends with the limits of its scenario.
    #[must_use]
    pub const fn new(arrival: Strategy) -> Self {
        Self { arrival, duration: None, requests: None, errors: None }
    }

    /// When it ends: its own limits, and where it has none those of the scenario.
    pub(crate) fn limits(&self, scenario: &Limits) -> Limits {
        let own = self.duration.is_some() || self.requests.is_some();
        Limits {
            requests: if own { self.requests } else { scenario.requests },
            duration: if own { self.duration } else { scenario.duration },
            errors: self.errors.or(scenario.errors),
        }
    }
}
