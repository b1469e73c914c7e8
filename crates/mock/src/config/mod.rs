//! The `[mock]` table: what the server pretends to be. All durations of the pretence are in seconds.

mod faults;
mod http;
mod limits;
mod openai;

use std::net::{SocketAddr, ToSocketAddrs as _};

use gatewright_sim::Law;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MockError;

pub use faults::{Faults, SlowStart};
pub use http::HttpConfig;
pub use limits::Limits;
pub use openai::{OpenAiConfig, PrefixCache};

/// What a mock server pretends to be.
///
/// With `openai` it answers OpenAI's paths, with `http` every other path; with neither it is an OpenAI server
/// with the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: String,
    /// Names the random numbers: the same seed gives request number n the same answer, latency and faults.
    pub seed: u64,
    /// Threads that serve, 1 to 64. Connections are dealt out to them in turn.
    pub threads: usize,
    /// Most microseconds, 0 to 1000, by which the server wakes up before an answer is due. It learns how long
    /// waking takes on this machine, starts so much earlier, and waits what is left without sleeping. It buys
    /// precision with some processor time; 0 never does it.
    pub wake_early_micros: u64,
    /// A server that answers any request with the same body after a random time.
    pub http: Option<HttpConfig>,
    /// A language model behind OpenAI's API.
    pub openai: Option<OpenAiConfig>,
    /// What goes wrong.
    pub faults: Faults,
    /// What is too much.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".to_owned(),
            seed: 42,
            threads: 1,
            wake_early_micros: 200,
            http: None,
            openai: None,
            faults: Faults::default(),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Whether a server can be made of it.
    ///
    /// # Errors
    /// [`MockError::Config`] names the first key that is wrong and says what is allowed.
    pub fn check(&self) -> Result<(), MockError> {
        check_range("threads", self.threads as f64, 1.0, 64.0)?;
        check_range("wake_early_micros", self.wake_early_micros as f64, 0.0, 1000.0)?;
        if let Some(http) = &self.http {
            http.check()?;
        }
        if let Some(openai) = &self.openai {
            openai.check()?;
        }
        self.faults.check()?;
        self.limits.check()
    }

    /// The address that `listen` names.
    pub(crate) fn address(&self) -> Result<SocketAddr, MockError> {
        let bad = |what: &str| MockError::Config {
            key: "listen".to_owned(),
            what: format!("\"{}\" is not an address: {what}", self.listen),
        };
        let found = self.listen.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
        found.into_iter().next().ok_or_else(|| bad("the name has none"))
    }
}

fn check_range(key: &str, value: f64, low: f64, high: f64) -> Result<(), MockError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let what = format!("{value} is out of range; give {low} to {high}");
    Err(MockError::Config { key: key.to_owned(), what })
}

fn check_law(key: &str, law: &Law) -> Result<(), MockError> {
    law.check().map_err(|error| MockError::Config { key: key.to_owned(), what: error.to_string() })
}
