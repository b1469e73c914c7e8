//! Adaptive concurrency: how many requests at a time a replica is given, learned from how long they take.
//!
//! One file per algorithm, after Netflix' concurrency-limits. To add one: write the file, implement [`Limiter`], and
//! add its line to the table below.

mod aimd;
mod gradient2;

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use aimd::Aimd;
pub use gradient2::Gradient2;

/// Learns how many requests at a time something can take.
pub trait Limiter: fmt::Debug + Send {
    /// Takes in a request that has ended.
    fn ended(&mut self, sample: &Sample);

    /// Requests at a time, at least 1.
    fn limit(&self) -> u32;
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How long it took.
    pub took: Duration,
    /// Requests in flight when it ended, itself included.
    pub in_flight: u32,
    /// Whether it was refused or lost because there were too many: 429, 503, no answer in time.
    pub dropped: bool,
}

/// Defines the table of algorithms: name in configuration, settings, limiter.
macro_rules! limiters {
    ($($(#[doc = $doc:literal])+ $name:ident($settings:ty) => $limiter:path,)+) => {
        /// The algorithms of adaptive concurrency by name, with their settings.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "policy", rename_all = "snake_case")]
        pub enum Adapt {
            $($(#[doc = $doc])+ $name($settings),)+
        }

        impl Adapt {
            /// A fresh limiter of this kind.
            #[must_use]
            pub fn build(&self) -> Box<dyn Limiter> {
                match self { $(Self::$name(settings) => Box::new(<$limiter>::new(settings)),)+ }
            }

            /// What is wrong with the settings, if anything.
            ///
            /// # Errors
            /// The first setting out of range.
            pub fn check(&self) -> Result<(), &'static str> {
                match self { $(Self::$name(settings) => settings.check(),)+ }
            }
        }
    };
}

limiters! {
    /// One more while it goes well, a share fewer when a request is dropped or takes too long.
    Aimd(Aimd) => aimd::AimdLimiter,
    /// Fewer as requests take longer than they did on average, more while they do not.
    Gradient2(Gradient2) => gradient2::Gradient2Limiter,
}
