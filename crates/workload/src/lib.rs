//! Demand as values: how requests are offered ([`Strategy`]), when each one is due ([`Schedule`], [`Sessions`]),
//! what was asked for elsewhere ([`trace`]) and when to stop ([`Limits`], [`constraint`]).
//!
//! The same values drive a benchmark over real sockets and a simulation in virtual time, so one seed gives both
//! the same arrivals to the nanosecond.

pub mod constraint;
mod gaps;
mod intensity;
mod limits;
pub mod profile;
mod schedule;
mod sessions;
pub mod span;
mod strategy;
pub mod trace;

pub use gaps::{Gaps, MAX_CV, MIN_CV};
pub use limits::{Limits, LimitsError};
pub use schedule::{Moments, Schedule, Share};
pub use sessions::{SessionStarts, Sessions, Think, Turns};
pub use strategy::{
    MAX_RATE, MAX_STREAMS, MIN_PIECE, MIN_RATE, Pacing, RandomWalk, Replay, Spike, Step, Strategy,
    StrategyError, Timing,
};
