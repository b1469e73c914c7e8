use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, HumanSize, ProxyFields, SentFields, ServerTls, is_default};

/// Where and within which bounds the gateway listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Address of the data plane, "host:port". Port 0 takes a free one.
    pub listen: String,
    /// Address of operations and metrics, "host:port". Off loopback it needs a token.
    pub admin: String,
    /// The data plane speaks TLS (1.2 or 1.3; HTTP/2 where the client offers it) with this certificate. Plain HTTP
    /// unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// The admin API speaks TLS with this certificate. Plain HTTP unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_tls: Option<ServerTls>,
    /// Largest request body that is taken; a longer one is answered with 413.
    pub max_body: HumanSize,
    /// Connections at a time; one more waits to be accepted.
    pub max_connections: u32,
    /// Memory for request bodies that are held whole, all together; a request beyond it is answered with 503.
    pub body_memory: HumanSize,
    /// How long a client may take to send a request's head.
    pub header_timeout: HumanDuration,
    /// How long a connection may be silent between two requests.
    pub idle_timeout: HumanDuration,
    /// How long a stopping gateway waits for the requests that it has taken.
    pub drain: HumanDuration,
    /// Threads that serve requests, at most 1024. Unless set: one for each processor, or for every second one where
    /// Python workers or programs run on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroU16>,
    /// Proxies before the gateway, addresses or networks such as "10.0.0.0/8", that are believed about where a request
    /// comes from. None unless set: what clients say of that themselves is dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
    /// Which fields of a trusted proxy say where a request comes from. Only these are believed: a proxy passes on what
    /// clients wrote into others.
    #[serde(skip_serializing_if = "is_default")]
    pub proxy_fields: ProxyFields,
    /// Which fields tell an upstream where a request comes from.
    #[serde(skip_serializing_if = "is_default")]
    pub sent_fields: SentFields,
    /// Names of the API keys of which every request must present one, as `Authorization: Bearer` or `X-API-Key`;
    /// "*" stands for all of them. `keys` of a function or a route takes its place. Anybody may ask unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// Whether upstreams get to see the API keys of this gateway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pass_keys: bool,
}

/// Where workers that the gateway did not start may join, over TCP, and how long any worker may be silent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hub {
    /// Address for workers, "host:port"; port 0 takes a free one. No worker can join unless set. Off loopback it
    /// needs a worker token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Hosts that may connect: addresses, or networks such as "10.0.0.0/8". All of them if the list is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Workers at a time.
    pub max_workers: u32,
    /// How long a worker that the gateway has started may be silent, pings unanswered, before it is killed and
    /// replaced: this, or up to a fifth more. A worker answers from a thread of its own, so a long computation is no
    /// silence; a process that is stopped is. At least 500ms.
    pub liveness: HumanDuration,
    /// The same for a worker that has joined over TCP: after so long its connection counts as cut, and what it worked
    /// on may be tried elsewhere. Longer than its code ever keeps Python's interpreter lock. At least 500ms.
    pub remote_liveness: HumanDuration,
    /// Workers speak TLS, and are shown this certificate. Without it, what they say can be read on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            admin: "127.0.0.1:8081".to_owned(),
            tls: None,
            admin_tls: None,
            max_body: HumanSize::from_mib(16),
            max_connections: 10_000,
            body_memory: HumanSize::from_mib(512),
            header_timeout: HumanDuration::from_secs(10),
            idle_timeout: HumanDuration::from_secs(75),
            drain: HumanDuration::from_secs(30),
            threads: None,
            trusted_proxies: Vec::new(),
            proxy_fields: ProxyFields::default(),
            sent_fields: SentFields::default(),
            keys: None,
            pass_keys: false,
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            listen: None,
            allow: Vec::new(),
            max_workers: 1_000,
            liveness: HumanDuration::from_secs(30),
            remote_liveness: HumanDuration::from_secs(10),
            tls: None,
        }
    }
}
