use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HumanDuration;
use crate::Endpoint;
use crate::health::ActiveCheck;

/// Where an `http` function's requests go: one upstream, or several that answer alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Upstreams {
    /// "http://host:port/path" or "https://host/path".
    One(String),
    /// Several, balanced by `balance`.
    Several(Vec<Upstream>),
}

/// One of several upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Upstream {
    /// "http://host:port/path" or "https://host/path".
    Url(String),
    /// The same, and its share of the requests.
    Weighted {
        /// "http://host:port/path" or "https://host/path".
        url: String,
        /// 1 to 1000; one without has 1.
        weight: u32,
    },
}

/// How upstreams are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HealthCheck {
    /// At this path, in the usual way.
    Path(String),
    /// In this way.
    Check(ActiveCheck),
}

impl HealthCheck {
    /// What is asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Check(check) => &check.path,
        }
    }

    /// How it is asked for.
    #[must_use]
    pub fn check(&self) -> ActiveCheck {
        match self {
            Self::Path(path) => ActiveCheck { path: path.clone(), ..ActiveCheck::default() },
            Self::Check(check) => check.clone(),
        }
    }
}

/// How long the parts of an exchange with an upstream may take. `timeout` bounds them all, retries included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until there is a TCP connection, the look-up of the name included.
    pub connect: HumanDuration,
    /// The TLS handshake.
    pub tls: HumanDuration,
    /// From the request to the head of its answer, connecting included. No limit of its own unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<HumanDuration>,
    /// Silence between two pieces of the answer's body. No limit of its own unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<HumanDuration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let five = HumanDuration::from_secs(5);
        Self { connect: five, tls: five, head: None, idle: None }
    }
}

impl Timeouts {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let spans = [Some(self.connect), Some(self.tls), self.head, self.idle];
        let zero = spans.into_iter().flatten().any(|span| span.get().is_zero());
        if zero { Err("connect, tls, head and idle must be above 0") } else { Ok(()) }
    }
}

impl Upstreams {
    /// Every one of them.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Self::One(url) => vec![Endpoint { url: url.clone(), weight: 1 }],
            Self::Several(several) => several.iter().map(Upstream::endpoint).collect(),
        }
    }

    /// What is wrong with them, if anything, and what to write instead.
    pub(super) fn check(&self) -> Result<(), (&'static str, Option<String>)> {
        let endpoints = self.endpoints();
        if endpoints.is_empty() || endpoints.len() > 1_000 {
            return Err(("`http` must name 1 to 1000 upstreams", None));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let secure = endpoint.url.strip_prefix("https://");
            let rest = secure.or_else(|| endpoint.url.strip_prefix("http://"));
            if !rest.is_some_and(|rest| !rest.starts_with(['/', ':']) && !rest.is_empty()) {
                let hint = Some("write http = \"http://host:port\"".to_owned());
                return Err(("`http` is no http:// or https:// URL", hint));
            }
            if !(1..=1_000).contains(&endpoint.weight) {
                return Err(("the `weight` of an upstream must be 1 to 1000", None));
            }
            if endpoints[..index].iter().any(|other| other.url == endpoint.url) {
                let hint = Some(format!("{} is named twice; give it a weight", endpoint.url));
                return Err(("`http` must name different upstreams", hint));
            }
        }
        Ok(())
    }

    /// Whether some of them are asked over TLS.
    pub(super) fn any_secure(&self) -> bool {
        self.endpoints().iter().any(|endpoint| endpoint.url.starts_with("https://"))
    }
}

impl Upstream {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Url(url) => Endpoint { url: url.clone(), weight: 1 },
            Self::Weighted { url, weight } => Endpoint { url: url.clone(), weight: *weight },
        }
    }
}
