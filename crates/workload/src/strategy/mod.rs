mod display;
mod error;
mod replay;
mod shapes;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::StrategyError;
pub use replay::{Replay, Timing};
pub use shapes::{RandomWalk, Spike, Step};

use crate::sessions::check_turns;
use crate::{Gaps, Schedule, Sessions, Think, Turns, span};
use shapes::{check_between, check_cv, check_gaps, check_level, check_span};

/// How requests are offered to a system.
///
/// *Closed loop*: a fixed number of streams, each of which asks again when it was answered; a slow server is
/// then asked less. *Open loop*: requests are due at their own times, whatever the server does, as with
/// independent users. At the same load the two give very different latencies (Schroeder, Wierman,
/// Harchol-Balter: "Open versus closed: a cautionary tale", NSDI 2006). *Partly open*: users come at their own
/// times, and ask some times before they go.
///
/// In configuration: `"synchronous"`, `{ concurrent = { streams = 8 } }`, `{ poisson = { rate = 120 } }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Open loop with independent, gamma distributed gaps: more or less bursty than Poisson.
    Gamma {
        /// Mean requests per second: 0.000001 to 100,000,000.
        #[schemars(range(min = 1e-6, max = 1e8))]
        rate: f64,
        /// Coefficient of variation of the gaps, 0.01 to 30: 1 is Poisson, more is burstier. What others call
        /// burstiness is 1 / cv^2.
        #[schemars(range(min = 0.01, max = 30.0))]
        cv: f64,
    },
    /// Open loop whose rate goes from one to another in a straight line, and stays there.
    Ramp {
        /// Mean requests per second at the start: 0 to 100,000,000.
        #[schemars(range(min = 0.0, max = 1e8))]
        from: f64,
        /// Mean requests per second at the end: 0 to 100,000,000.
        #[schemars(range(min = 0.0, max = 1e8))]
        to: f64,
        /// How long it takes.
        #[serde(with = "span::required")]
        #[schemars(with = "String")]
        over: Duration,
        /// How the gaps vary.
        #[serde(default)]
        gaps: Gaps,
    },
    /// Open loop with one rate after the other.
    Steps {
        /// The rates, 1 to 10,000 of them.
        steps: Vec<Step>,
        /// Whether the first step follows the last; else it is over then.
        #[serde(default)]
        repeat: bool,
        /// How the gaps vary.
        #[serde(default)]
        gaps: Gaps,
    },
    /// Open loop with a low rate and a high one in between, once or again and again.
    Spike(Spike),
    /// Open loop whose rate swings as a sine does, upwards first.
    Sine {
        /// Mean requests per second over a period: 0.000001 to 100,000,000.
        #[schemars(range(min = 1e-6, max = 1e8))]
        rate: f64,
        /// How far it swings to both sides, at most as much as the rate, in requests per second.
        #[schemars(range(min = 0.0, max = 1e8))]
        amplitude: f64,
        /// Time from one peak to the next.
        #[serde(with = "span::required")]
        #[schemars(with = "String")]
        period: Duration,
        /// How the gaps vary.
        #[serde(default)]
        gaps: Gaps,
    },
    /// Open loop whose rate takes a random step every so often, between two bounds.
    RandomWalk(RandomWalk),
    /// Closed loop of users who think between an answer and their next request.
    Users {
        /// Users: 1 to 1,000,000.
        #[schemars(range(min = 1, max = 1_000_000))]
        users: u32,
        /// How long they think; not at all if absent.
        #[serde(default)]
        think: Think,
        /// Time over which they come, evenly; all at once if absent.
        #[serde(default, skip_serializing_if = "Duration::is_zero", with = "span::required")]
        #[schemars(with = "String")]
        ramp_up: Duration,
    },
    /// Partly open: users come at random moments, ask some times and think in between, and go.
    Sessions {
        /// Mean number of users who come per second: 0.000001 to 100,000,000.
        #[schemars(range(min = 1e-6, max = 1e8))]
        rate: f64,
        /// How often each asks.
        turns: Turns,
        /// How long they think between an answer and the next request; not at all if absent.
        #[serde(default)]
        think: Think,
        /// How the gaps between users vary.
        #[serde(default)]
        gaps: Gaps,
    },
    /// The requests of a trace once more, at their own times or with their own pauses.
    Replay(Replay),
}

/// The lowest rate of a schedule, in requests per second: about one in twelve days.
pub const MIN_RATE: f64 = 1e-6;
/// The highest rate of a schedule, in requests per second: one every ten nanoseconds.
pub const MAX_RATE: f64 = 1e8;
/// The largest number of streams of a closed loop.
pub const MAX_STREAMS: u32 = 1_000_000;
/// The shortest part of a rate that changes in time.
pub const MIN_PIECE: Duration = Duration::from_millis(1);

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
    /// Users do, who come, ask, think and ask again.
    Sessions(Sessions),
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
            Self::Gamma { .. } => "gamma",
            Self::Ramp { .. } => "ramp",
            Self::Steps { .. } => "steps",
            Self::Spike(_) => "spike",
            Self::Sine { .. } => "sine",
            Self::RandomWalk(_) => "random_walk",
            Self::Users { .. } => "users",
            Self::Sessions { .. } => "sessions",
            Self::Replay(_) => "replay",
        }
    }

    /// Requests per second that it offers in the long run; none for a closed loop, whose rate is the server's
    /// doing, and for a trace that is not in hand.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Constant { rate }
            | Self::Poisson { rate }
            | Self::Gamma { rate, .. }
            | Self::Sine { rate, .. } => Some(*rate),
            Self::Ramp { to, .. } => Some(*to),
            Self::Steps { steps, .. } => Some(shapes::mean_of_steps(steps)),
            Self::Spike(spike) => Some(spike.mean_rate()),
            // A walk between reflecting barriers is anywhere as often as anywhere else.
            Self::RandomWalk(walk) => Some(0.5 * (walk.min + walk.max)),
            Self::Sessions { rate, turns, .. } => Some(rate * turns.mean()),
            Self::Replay(replay) if replay.timing == Timing::Timestamps => replay.rate(),
            Self::Synchronous
            | Self::Concurrent { .. }
            | Self::Throughput { .. }
            | Self::Users { .. }
            | Self::Replay(_) => None,
        }
    }

    /// Requests per second that it offers at its height; none where [`Strategy::rate`] is none.
    #[must_use]
    pub fn peak_rate(&self) -> Option<f64> {
        match self {
            Self::Ramp { from, to, .. } => Some(from.max(*to)),
            Self::Steps { steps, .. } => {
                Some(steps.iter().fold(0.0, |most, step| step.rate.max(most)))
            }
            Self::Spike(spike) => Some(spike.rate.max(spike.peak)),
            Self::Sine { rate, amplitude, .. } => Some(rate + amplitude),
            Self::RandomWalk(walk) => Some(walk.max),
            _ => self.rate(),
        }
    }

    /// Whether every request has its own moment, whatever the answers do.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Synchronous
            | Self::Concurrent { .. }
            | Self::Throughput { .. }
            | Self::Users { .. }
            | Self::Sessions { .. } => false,
            Self::Replay(replay) => replay.timing == Timing::Timestamps,
            _ => true,
        }
    }

    /// Whether its requests have a place in a session of somebody who asks several times.
    #[must_use]
    pub fn has_turns(&self) -> bool {
        match self {
            Self::Users { .. } | Self::Sessions { .. } => true,
            Self::Replay(replay) => replay.timing == Timing::IdleGaps,
            _ => false,
        }
    }

    /// Whether it comes to an end by itself.
    #[must_use]
    pub const fn is_finite(&self) -> bool {
        matches!(self, Self::Steps { repeat: false, .. } | Self::Replay(_))
    }

    /// Requests in flight at most, where the strategy bounds them.
    #[must_use]
    pub fn concurrency(&self) -> Option<u32> {
        match self {
            Self::Synchronous => Some(1),
            Self::Concurrent { streams: count }
            | Self::Throughput { max_concurrency: count }
            | Self::Users { users: count, .. } => Some(*count),
            _ => None,
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A rate, a span or a number outside its range; the message says which and what is allowed.
    pub fn check(&self) -> Result<(), StrategyError> {
        let strategy = self.name();
        match self {
            Self::Synchronous => Ok(()),
            Self::Concurrent { streams } => check_streams(strategy, "streams", *streams),
            Self::Throughput { max_concurrency } => {
                check_streams(strategy, "max_concurrency", *max_concurrency)
            }
            Self::Constant { rate } | Self::Poisson { rate } => check_rate(strategy, *rate),
            Self::Gamma { rate, cv } => {
                check_rate(strategy, *rate)?;
                check_cv(strategy, *cv)
            }
            Self::Ramp { from, to, over, gaps } => {
                check_level(strategy, "from", *from)?;
                check_level(strategy, "to", *to)?;
                check_span(strategy, "over", *over)?;
                if from + to <= 0.0 {
                    return Err(StrategyError::Nothing { strategy });
                }
                check_gaps(strategy, *gaps)
            }
            Self::Steps { steps, gaps, .. } => shapes::check_steps(steps, *gaps),
            Self::Spike(spike) => spike.check(),
            Self::Sine { rate, amplitude, period, gaps } => {
                check_rate(strategy, *rate)?;
                check_between(strategy, "amplitude", *amplitude, 0.0, *rate)?;
                check_span(strategy, "period", *period)?;
                check_gaps(strategy, *gaps)
            }
            Self::RandomWalk(walk) => walk.check(),
            Self::Users { users, think, .. } => {
                check_streams(strategy, "users", *users)?;
                think.check(strategy)
            }
            Self::Sessions { rate, turns, think, gaps } => {
                check_rate(strategy, *rate)?;
                check_turns(strategy, *turns)?;
                check_gaps(strategy, *gaps)?;
                think.check(strategy)
            }
            Self::Replay(replay) => replay.check(),
        }
    }

    /// Whether nothing is missing to run it: a trace has to be read before.
    ///
    /// # Errors
    /// The trace was not read.
    pub const fn ready(&self) -> Result<(), StrategyError> {
        match self {
            Self::Replay(Replay { recorded: None, streamed: None, .. }) => {
                Err(StrategyError::Unread)
            }
            _ => Ok(()),
        }
    }

    /// Who decides when the next request is sent. `seed` is the run's, `demand` the number of this demand in
    /// it: two demands of one run draw independent arrivals.
    ///
    /// To be called with what passed [`Strategy::check`]; otherwise rates and numbers are moved into range.
    #[must_use]
    pub fn pacing(&self, seed: u64, demand: u64) -> Pacing {
        let modulated =
            |intensity, gaps| Pacing::Open(Schedule::modulated(intensity, gaps, seed, demand));
        match self {
            Self::Synchronous => Pacing::Closed { streams: 1 },
            Self::Concurrent { streams: count } | Self::Throughput { max_concurrency: count } => {
                Pacing::Closed { streams: (*count).clamp(1, MAX_STREAMS) }
            }
            Self::Constant { rate } => Pacing::Open(Schedule::constant(*rate)),
            Self::Poisson { rate } => Pacing::Open(Schedule::poisson(*rate, seed, demand)),
            Self::Gamma { rate, cv } => {
                let gaps = Gaps::Gamma { cv: *cv };
                Pacing::Open(Schedule::renewal(*rate, gaps, seed, demand))
            }
            Self::Ramp { from, to, over, gaps } => {
                modulated(shapes::ramp(*from, *to, *over), *gaps)
            }
            Self::Steps { steps, repeat, gaps } => modulated(shapes::steps(steps, *repeat), *gaps),
            Self::Spike(spike) => modulated(spike.intensity(), spike.gaps),
            Self::Sine { rate, amplitude, period, gaps } => {
                modulated(shapes::sine(*rate, *amplitude, *period), *gaps)
            }
            Self::RandomWalk(walk) => modulated(walk.intensity(seed, demand), walk.gaps),
            Self::Users { users, think, ramp_up } => {
                let users = (*users).clamp(1, MAX_STREAMS);
                Pacing::Sessions(Sessions::of_users(users, *ramp_up, *think, seed, demand))
            }
            Self::Sessions { rate, turns, think, gaps } => {
                let starts = Schedule::renewal(*rate, *gaps, seed, demand);
                Pacing::Sessions(Sessions::of_visits(starts, *turns, *think, seed, demand))
            }
            Self::Replay(replay) if replay.timing == Timing::Timestamps => {
                Pacing::Open(replay.schedule())
            }
            Self::Replay(replay) => {
                let recorded = replay.recorded.clone().unwrap_or_default();
                Pacing::Sessions(Sessions::of_recorded(recorded, replay.time_scale))
            }
        }
    }
}

fn check_rate(strategy: &'static str, rate: f64) -> Result<(), StrategyError> {
    // A not-a-number is in no range.
    let usable = (MIN_RATE..=MAX_RATE).contains(&rate);
    usable.then_some(()).ok_or(StrategyError::Rate { strategy, rate })
}

fn check_streams(
    strategy: &'static str,
    name: &'static str,
    count: u32,
) -> Result<(), StrategyError> {
    let usable = (1..=MAX_STREAMS).contains(&count);
    usable.then_some(()).ok_or(StrategyError::Streams { strategy, name, count })
}

#[cfg(test)]
mod tests;
