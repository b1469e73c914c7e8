use std::time::Duration;

use super::{MAX_STREAMS, MIN_PIECE};

/// Why a [`Strategy`](crate::Strategy) cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum StrategyError {
    /// A rate that is not a number, not positive, or out of range.
    #[error(
        "{strategy}: rate {rate} is not usable; give requests per second, more than 0 (0.000001 to 100000000)"
    )]
    Rate {
        /// Name of the strategy.
        strategy: &'static str,
        /// The rate that was given.
        rate: f64,
    },
    /// A number of streams that is zero or too large.
    #[error("{strategy}: {name} = {count} is not usable; give 1 to {MAX_STREAMS}")]
    Streams {
        /// Name of the strategy.
        strategy: &'static str,
        /// Name of its parameter.
        name: &'static str,
        /// The number that was given.
        count: u32,
    },
    /// A rate that may be zero, but is not a number, negative, or out of range.
    #[error(
        "{strategy}: {name} = {rate} is not usable; give requests per second, {least} to {most}"
    )]
    Bounded {
        /// Name of the strategy.
        strategy: &'static str,
        /// Name of its parameter.
        name: &'static str,
        /// The rate that was given.
        rate: f64,
        /// Smallest usable rate.
        least: f64,
        /// Largest usable rate.
        most: f64,
    },
    /// A coefficient of variation out of range.
    #[error(
        "{strategy}: {name} = {cv} is not usable; give 0.01 to 30 (1 is like poisson, more is burstier)"
    )]
    Variation {
        /// Name of the strategy.
        strategy: &'static str,
        /// Name of its parameter.
        name: &'static str,
        /// What was given.
        cv: f64,
    },
    /// A span of time that is too short.
    #[error("{strategy}: {name} = {span:?} is too short; give at least {MIN_PIECE:?}")]
    Short {
        /// Name of the strategy.
        strategy: &'static str,
        /// Name of its parameter.
        name: &'static str,
        /// What was given.
        span: Duration,
    },
    /// The rate is zero all the time.
    #[error("{strategy}: the rate is 0 all the time; give a rate above 0 somewhere")]
    Nothing {
        /// Name of the strategy.
        strategy: &'static str,
    },
    /// No step is given, or too many.
    #[error("steps: {count} steps are not usable; give 1 to 10000")]
    Steps {
        /// How many were given.
        count: usize,
    },
    /// The spike does not end before the next one.
    #[error("spike: it lasts until {end:?} and comes every {every:?}; give a longer `every`")]
    Overlap {
        /// End of the spike.
        end: Duration,
        /// Time from one round to the next.
        every: Duration,
    },
    /// A number of turns out of range.
    #[error("{strategy}: {turns} turns are not usable; give 1 to 1000000")]
    Turns {
        /// Name of the strategy.
        strategy: &'static str,
        /// Mean number of turns.
        turns: f64,
    },
    /// A factor of time out of range.
    #[error(
        "replay: time_scale = {scale} is not usable; give 0.000001 to 1000000 (0.5 is twice as fast)"
    )]
    TimeScale {
        /// What was given.
        scale: f64,
    },
    /// A trace that nobody has read.
    #[error("replay: the trace was not read")]
    Unread,
    /// A trace without a request.
    #[error("replay: nothing of the trace is left to replay; check `function` and the file")]
    Empty,
}

impl StrategyError {
    pub(crate) const fn variation(strategy: &'static str, name: &'static str, cv: f64) -> Self {
        Self::Variation { strategy, name, cv }
    }
}
