use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Schedule;

/// How requests are offered to a system.
///
/// *Closed loop*: a fixed number of streams, each of which asks again when it was answered; a slow server is
/// then asked less. *Open loop*: requests are due at their own times, whatever the server does, as with
/// independent users. At the same load the two give very different latencies (Schroeder, Wierman,
/// Harchol-Balter: "Open versus closed: a cautionary tale", NSDI 2006).
///
/// In configuration: `"synchronous"`, `{ concurrent = { streams = 8 } }`, `{ poisson = { rate = 120 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Closed loop, one stream: the next request follows the answer to the last one.
    Synchronous,
    /// Closed loop with a fixed number of streams.
    Concurrent {
        /// Streams, each with one request at a time: 1 to 1,000,000.
        #[schemars(range(min = 1, max = 1_000_000))]
        streams: u32,
    },
    /// Closed loop, as many requests in flight as allowed: how much the system can do.
    Throughput {
        /// Requests in flight at most: 1 to 1,000,000.
        #[schemars(range(min = 1, max = 1_000_000))]
        max_concurrency: u32,
    },
    /// Open loop, one request every 1/rate seconds, the first at the start.
    Constant {
        /// Requests per second: 0.000001 to 100,000,000.
        #[schemars(range(min = 1e-6, max = 1e8))]
        rate: f64,
    },
    /// Open loop with independent, exponentially distributed gaps: many users who know nothing of one another.
    Poisson {
        /// Mean requests per second: 0.000001 to 100,000,000.
        #[schemars(range(min = 1e-6, max = 1e8))]
        rate: f64,
    },
}

/// The lowest rate of a schedule, in requests per second: about one in twelve days.
pub const MIN_RATE: f64 = 1e-6;
/// The highest rate of a schedule, in requests per second: one every ten nanoseconds.
pub const MAX_RATE: f64 = 1e8;
/// The largest number of streams of a closed loop.
pub const MAX_STREAMS: u32 = 1_000_000;

/// What a [`Strategy`] comes to: who decides when the next request is sent.
#[derive(Clone, Debug)]
pub enum Pacing {
    /// The answers do: each of `streams` streams asks again when it was answered.
    Closed {
        /// Number of streams, at least 1.
        streams: u32,
    },
    /// The schedule does.
    Open(Schedule),
}

/// Why a [`Strategy`] cannot be run.
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
}

impl Strategy {
    /// Name of the strategy, as configuration and command line spell it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Concurrent { .. } => "concurrent",
            Self::Throughput { .. } => "throughput",
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
        }
    }

    /// Requests per second that it offers; none for a closed loop, whose rate is the server's doing.
    #[must_use]
    pub const fn rate(&self) -> Option<f64> {
        match *self {
            Self::Constant { rate } | Self::Poisson { rate } => Some(rate),
            Self::Synchronous | Self::Concurrent { .. } | Self::Throughput { .. } => None,
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A rate or a number of streams outside its range; the message says which and what is allowed.
    pub fn check(&self) -> Result<(), StrategyError> {
        let strategy = self.name();
        match *self {
            Self::Synchronous => Ok(()),
            Self::Concurrent { streams } => check_streams(strategy, "streams", streams),
            Self::Throughput { max_concurrency } => {
                check_streams(strategy, "max_concurrency", max_concurrency)
            }
            Self::Constant { rate } | Self::Poisson { rate } => {
                // A not-a-number is in no range.
                let usable = (MIN_RATE..=MAX_RATE).contains(&rate);
                usable.then_some(()).ok_or(StrategyError::Rate { strategy, rate })
            }
        }
    }

    /// Who decides when the next request is sent. `seed` is the run's, `demand` the number of this demand in
    /// it: two demands of one run draw independent arrivals.
    ///
    /// A strategy that does not pass [`Strategy::check`] is moved into range.
    #[must_use]
    pub fn pacing(&self, seed: u64, demand: u64) -> Pacing {
        match *self {
            Self::Synchronous => Pacing::Closed { streams: 1 },
            Self::Concurrent { streams: count } | Self::Throughput { max_concurrency: count } => {
                Pacing::Closed { streams: count.clamp(1, MAX_STREAMS) }
            }
            Self::Constant { rate } => Pacing::Open(Schedule::constant(rate)),
            Self::Poisson { rate } => Pacing::Open(Schedule::poisson(rate, seed, demand)),
        }
    }
}

fn check_streams(
    strategy: &'static str,
    name: &'static str,
    count: u32,
) -> Result<(), StrategyError> {
    let usable = (1..=MAX_STREAMS).contains(&count);
    usable.then_some(()).ok_or(StrategyError::Streams { strategy, name, count })
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synchronous => write!(f, "synchronous"),
            Self::Concurrent { streams } => write!(f, "concurrent, {streams} streams"),
            Self::Throughput { max_concurrency } => {
                write!(f, "throughput, at most {max_concurrency} in flight")
            }
            Self::Constant { rate } => write!(f, "constant, {rate}/s"),
            Self::Poisson { rate } => write!(f, "poisson, {rate}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Demand {
        arrival: Strategy,
    }

    fn read(arrival: &str) -> Result<Strategy, toml::de::Error> {
        toml::from_str::<Demand>(&format!("arrival = {arrival}")).map(|demand| demand.arrival)
    }

    #[test]
    fn configuration_spells_every_strategy() {
        let all = [
            ("\"synchronous\"", Strategy::Synchronous),
            ("{ concurrent = { streams = 8 } }", Strategy::Concurrent { streams: 8 }),
            (
                "{ throughput = { max_concurrency = 64 } }",
                Strategy::Throughput { max_concurrency: 64 },
            ),
            ("{ constant = { rate = 0.5 } }", Strategy::Constant { rate: 0.5 }),
            ("{ poisson = { rate = 120 } }", Strategy::Poisson { rate: 120.0 }),
        ];
        for (text, strategy) in all {
            assert_eq!(read(text).unwrap(), strategy, "{text}");
            let demand = Demand { arrival: strategy };
            let written = toml::to_string(&demand).unwrap();
            assert_eq!(toml::from_str::<Demand>(&written).unwrap(), demand, "{written}");
            let json = serde_json::to_string(&strategy).unwrap();
            assert_eq!(serde_json::from_str::<Strategy>(&json).unwrap(), strategy);
        }
    }

    #[test]
    fn configuration_refuses_what_it_does_not_know() {
        for text in [
            "{ poisson = { rate = 1, burst = 2 } }",
            "{ poisson = { ratee = 1 } }",
            "{ poison = { rate = 1 } }",
            "\"poisson\"",
            "{ concurrent = { streams = -1 } }",
            "{ constant = { rate = \"fast\" } }",
        ] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn the_schema_knows_every_strategy_and_its_ranges() {
        let schema = serde_json::to_string(&schemars::schema_for!(Strategy)).unwrap();
        for word in ["synchronous", "concurrent", "throughput", "constant", "poisson", "1000000"] {
            assert!(schema.contains(word), "{word} is not in {schema}");
        }
        assert!(schema.contains("\"additionalProperties\":false"), "{schema}");
    }

    #[test]
    fn check_refuses_what_cannot_be_run() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9, 1e-7] {
            assert!(Strategy::Constant { rate }.check().is_err(), "{rate} was taken");
            assert!(Strategy::Poisson { rate }.check().is_err(), "{rate} was taken");
        }
        for count in [0, MAX_STREAMS + 1] {
            assert!(Strategy::Concurrent { streams: count }.check().is_err());
            assert!(Strategy::Throughput { max_concurrency: count }.check().is_err());
        }
        let error = Strategy::Poisson { rate: 0.0 }.check().unwrap_err().to_string();
        assert!(error.starts_with("poisson: rate 0 is not usable; give"), "{error}");
        assert_eq!(Strategy::Synchronous.check(), Ok(()));
        assert_eq!(Strategy::Poisson { rate: MIN_RATE }.check(), Ok(()));
        assert_eq!(Strategy::Throughput { max_concurrency: MAX_STREAMS }.check(), Ok(()));
    }

    #[test]
    fn demands_of_one_run_draw_their_own_arrivals() {
        let times = |seed, demand| -> Vec<_> {
            match (Strategy::Poisson { rate: 10.0 }).pacing(seed, demand) {
                Pacing::Open(schedule) => schedule.take(20).collect(),
                Pacing::Closed { .. } => unreachable!("poisson is open"),
            }
        };
        assert_eq!(times(1, 0), times(1, 0));
        assert_ne!(times(1, 0), times(1, 1));
        assert_ne!(times(1, 0), times(2, 0));
    }
}
