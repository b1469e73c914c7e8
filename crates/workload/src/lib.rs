//! Demand as values: how requests are offered ([`Strategy`]), when each one is due ([`Schedule`]) and when to
//! stop ([`Limits`]).
//!
//! The same values drive a benchmark over real sockets and a simulation in virtual time, so one seed gives both
//! the same arrivals to the nanosecond.

mod limits;
mod schedule;
mod span;
mod strategy;

pub use limits::{Limits, LimitsError};
pub use schedule::{Schedule, Share};
pub use strategy::{MAX_RATE, MAX_STREAMS, MIN_RATE, Pacing, Strategy, StrategyError};
