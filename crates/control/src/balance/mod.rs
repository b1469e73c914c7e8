//! Dispatch: which replica a request goes to.
//!
//! One file per algorithm. To add one: write the file, implement [`Balancer`], and add its line to the table
//! below; configuration, command line and reports take the name from there.

mod consistent_hash;
mod hash;
mod least_outstanding;
mod peak_ewma;
mod pool;
mod power_of_two;
mod round_robin;
#[cfg(test)]
mod tests;
mod written;

use std::fmt;

use gatewright_determinism::{Stream, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use consistent_hash::{ConsistentHash, HashKey};
pub use hash::hash;
pub use peak_ewma::PeakEwma;
pub use pool::{Member, Pool, Position};

/// Chooses one of the replicas that have a free slot.
pub trait Balancer: fmt::Debug + Send {
    /// A replica of `pool` with a free slot, or `None` if there is none. `stream` is the request's own luck.
    fn pick(&mut self, pool: &Pool, asks: Asks, stream: &mut Stream) -> Option<Position>;

    /// A replica has joined at this place, in place of whoever was there before.
    fn joined(&mut self, pool: &Pool, position: Position, now: Time) {
        let _ = (pool, position, now);
    }

    /// A replica has left its place.
    fn left(&mut self, position: Position) {
        let _ = position;
    }

    /// A request that was given to a replica at `started` has ended there.
    fn ended(&mut self, position: Position, started: Time, now: Time) {
        let _ = (position, started, now);
    }
}

/// What a balancer may know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asks {
    /// When it is given to a replica.
    pub now: Time,
    /// Hash of what the request is for; see [`hash`]. Only [`ConsistentHash`] looks at it.
    pub key: u64,
}

/// Defines the table of algorithms: name in configuration, settings if it has any, balancer.
macro_rules! balancers {
    (
        $($(#[doc = $doc:literal])+ $name:ident => $plain:expr,)+
        ;
        $($(#[doc = $set_doc:literal])+ $set_name:ident($settings:ty) => $set:path,)+
    ) => {
        /// The balancing algorithms by name, with their settings.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "policy", rename_all = "snake_case", remote = "Self")]
        #[schemars(transform = written::or_a_name)]
        pub enum Balance {
            $($(#[doc = $doc])+ $name,)+
            $($(#[doc = $set_doc])+ $set_name($settings),)+
        }

        impl Balance {
            /// Every algorithm, with the settings that hold unless others are given.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name,)+ $(Self::$set_name(<$settings>::default()),)+]
            }

            /// A fresh balancer of this kind.
            #[must_use]
            pub fn build(&self) -> Box<dyn Balancer> {
                match self {
                    $(Self::$name => Box::new($plain),)+
                    $(Self::$set_name(settings) => Box::new(<$set>::new(settings)),)+
                }
            }

            /// What is wrong with the settings, if anything, as "key: explanation".
            ///
            /// # Errors
            /// The first setting out of range.
            pub fn check(&self) -> Result<(), &'static str> {
                match self {
                    $(Self::$name)|+ => Ok(()),
                    $(Self::$set_name(settings) => settings.check(),)+
                }
            }
        }
    };
}

balancers! {
    /// The replica with the fewest requests in flight, its weight considered; ties are drawn.
    LeastOutstanding => least_outstanding::LeastOutstanding,
    /// Of two replicas drawn at random, the one with fewer requests in flight, its weight considered.
    PowerOfTwo => power_of_two::PowerOfTwo,
    /// Each replica in turn, as often as its weight says, skipping those without a free slot.
    RoundRobin => round_robin::RoundRobin::default(),
    ;
    /// The replica that the hash of the request's key leads to, unless it has much more than its share.
    ConsistentHash(ConsistentHash) => consistent_hash::Ring,
    /// Of two replicas drawn at random, the one with the lower product of requests in flight and recent response
    /// time, of which peaks count at once and are forgotten slowly.
    PeakEwma(PeakEwma) => peak_ewma::PeakEwmaBalancer,
}
