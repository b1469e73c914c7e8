//! Keep-alive: how long a replica stays that has nothing to do.
//!
//! One file per policy. To add one: write the file, implement [`KeepAliveRule`], and add its line to the table below;
//! configuration, command line and reports take the name from there.

mod fixed;
mod greedy_dual;
mod hybrid_histogram;
mod lru;
mod none;

use std::fmt;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fixed::Fixed;
pub use greedy_dual::GreedyDual;
pub use hybrid_histogram::HybridHistogram;
pub use lru::Lru;
pub use none::NoKeepAlive;

/// Says how long an idle replica of one function stays, and how much it would be missed.
pub trait KeepAliveRule: fmt::Debug + Send {
    /// A request came. `idle` is how long the function had had nothing to do, if it had.
    fn arrived(&mut self, _idle: Option<Duration>) {}

    /// A replica has nothing to do from now on.
    fn idle(&mut self) -> Plan;

    /// How much a replica would be missed that was last used at `used`: when room is needed, the least goes first.
    /// `pressure` is that of the last one that had to go.
    fn worth(&self, used: Time, about: &Worth, pressure: f64) -> f64;
}

/// What to do with a replica that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// It goes when it has had nothing to do for so long; never, if there is no such time.
    pub keep: Option<Duration>,
    /// When all have gone, one is started so long after they had nothing to do, and stays for the second span.
    pub prewarm: Option<(Duration, Duration)>,
}

/// What is known of a function whose replica may have to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worth {
    /// Requests so far.
    pub requests: u64,
    /// How long a replica took to start, in seconds, on average.
    pub start_seconds: f64,
    /// Bytes that a replica takes of its node.
    pub memory: u64,
}

/// Defines the table of policies: name in configuration, settings, rule.
macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $name:ident($settings:ty),)+) => {
        /// The keep-alive policies by name, with their settings.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
        pub enum KeepAlive {
            /// Replicas stay until the autoscaler or an operator wants fewer.
            #[default]
            Always,
            $($(#[doc = $doc])+ $name($settings),)+
        }

        impl KeepAlive {
            /// A fresh rule of this kind; `None` if replicas always stay.
            #[must_use]
            pub fn build(&self) -> Option<Box<dyn KeepAliveRule>> {
                match self {
                    Self::Always => None,
                    $(Self::$name(settings) => Some(settings.rule()),)+
                }
            }

            /// What is wrong with the settings, if anything, as "key: explanation".
            ///
            /// # Errors
            /// The first setting out of range.
            pub fn check(&self) -> Result<(), String> {
                match self {
                    Self::Always => Ok(()),
                    $(Self::$name(settings) => settings.check(),)+
                }
            }
        }
    };
}

policies! {
    /// An idle replica goes after a fixed time; when room is needed, the one that was used longest ago.
    Fixed(Fixed),
    /// Replicas stay until room is needed; then goes the one that is worth least by FaaSCache's greedy-dual rule.
    GreedyDual(GreedyDual),
    /// Learns when the function is asked for, and keeps or pre-warms a replica for then: "Serverless in the Wild".
    HybridHistogram(HybridHistogram),
    /// Replicas stay until room is needed; then goes the one that was used longest ago.
    Lru(Lru),
    /// A replica goes as soon as it has nothing to do.
    None(NoKeepAlive),
}

impl Plan {
    /// Goes after so long, without a pre-warmed one.
    const fn keep(span: Option<Duration>) -> Self {
        Self { keep: span, prewarm: None }
    }
}

#[cfg(test)]
mod tests;
