//! Series of strategies: each step is chosen by what the steps before it came to.
//!
//! A [`Profile`] is a value in configuration, a [`ProfileRun`] its state: whoever runs the steps asks it for the
//! next one and tells it the result, live or in a simulation.

mod goodput;
mod isotonic;
mod knee;
mod search;
mod slo;
mod sweep;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use goodput::{Goodput, GoodputEnd, GoodputReason};
pub use knee::{Knee, KneeFit};
pub use search::{Search, SearchEnd, SearchResult};
pub use slo::{Attainment, Slo, SloError, wilson};
pub use sweep::Sweep;

use crate::{Gaps, Replay, Strategy, StrategyError};

/// A series of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Profile {
    /// One stream.
    Synchronous,
    /// One step for each number of streams.
    Concurrent {
        /// Numbers of streams.
        streams: Vec<u32>,
    },
    /// As much as the server can do.
    Throughput {
        /// Requests in flight at most.
        max_concurrency: u32,
    },
    /// One step for each rate, evenly spaced requests.
    Constant {
        /// Requests per second.
        rate: Vec<f64>,
    },
    /// One step for each rate, requests at random.
    Poisson {
        /// Requests per second.
        rate: Vec<f64>,
    },
    /// Any strategies, one after the other.
    Series {
        /// The strategies.
        strategies: Vec<Strategy>,
    },
    /// From one request at a time to as much as the server can do, and rates in between.
    Sweep(Sweep),
    /// A trace once more.
    Replay(Replay),
    /// The largest number of streams with which the server meets an objective.
    Goodput(Goodput),
    /// The number of streams from which on more of them bring no more throughput.
    Knee(Knee),
    /// The highest rate, in an open loop, at which the server meets an objective.
    Search(Search),
}

/// What a step came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// Requests that ended well, per second.
    pub rate: f64,
    /// Mean number of requests in flight.
    pub concurrency: f64,
    /// Mean response time of requests that ended well, in seconds.
    pub mean_response: f64,
    /// Tokens of answers per second, where the target tells them.
    pub output_tokens_rate: Option<f64>,
    /// How many requests met the objective, if there is one.
    pub attainment: Attainment,
    /// Whether the server fell behind: a constraint against that ended the step, or it answered clearly less
    /// than was offered.
    pub overloaded: bool,
    /// Whether a constraint ended the whole profile.
    pub ends_all: bool,
}

/// What a profile as a whole came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Of [`Profile::Goodput`].
    Goodput(GoodputEnd),
    /// Of [`Profile::Knee`]; none if no knee was found.
    Knee(Option<KneeFit>),
    /// Of [`Profile::Search`].
    Search(SearchResult),
}

/// Why a [`Profile`] cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// A strategy of it is out of range.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// There is no step.
    #[error("{profile}: give at least one of {name}")]
    Nothing {
        /// Name of the profile.
        profile: &'static str,
        /// Name of its parameter.
        name: &'static str,
    },
    /// A parameter is out of range.
    #[error("{profile}: {name} = {value} is not usable; give {wanted}")]
    Parameter {
        /// Name of the profile.
        profile: &'static str,
        /// Name of its parameter.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What is allowed.
        wanted: &'static str,
    },
}

/// A profile that is being run.
#[derive(Debug)]
pub struct ProfileRun {
    state: State,
    ended: bool,
}

#[derive(Debug)]
enum State {
    Listed(std::vec::IntoIter<Strategy>),
    Sweep(sweep::Run),
    Goodput(goodput::Run),
    Knee(knee::Run),
    Search(Box<search::Run>),
}

impl Profile {
    /// Name of the profile, as configuration and command line spell it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Concurrent { .. } => "concurrent",
            Self::Throughput { .. } => "throughput",
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
            Self::Series { .. } => "series",
            Self::Sweep(_) => "sweep",
            Self::Replay(_) => "replay",
            Self::Goodput(_) => "goodput",
            Self::Knee(_) => "knee",
            Self::Search(_) => "search",
        }
    }

    /// The objective that each request of its steps is to be measured by, if the profile has one.
    #[must_use]
    pub const fn slo(&self) -> Option<&Slo> {
        match self {
            Self::Goodput(goodput) => Some(&goodput.slo),
            Self::Search(search) => Some(&search.slo),
            _ => None,
        }
    }

    fn listed(&self) -> Option<Vec<Strategy>> {
        let listed = match self {
            Self::Synchronous => vec![Strategy::Synchronous],
            Self::Concurrent { streams } => {
                streams.iter().map(|&streams| Strategy::Concurrent { streams }).collect()
            }
            Self::Throughput { max_concurrency } => {
                vec![Strategy::Throughput { max_concurrency: *max_concurrency }]
            }
            Self::Constant { rate } => {
                rate.iter().map(|&rate| Strategy::Constant { rate }).collect()
            }
            Self::Poisson { rate } => rate.iter().map(|&rate| Strategy::Poisson { rate }).collect(),
            Self::Series { strategies } => strategies.clone(),
            Self::Replay(replay) => vec![Strategy::Replay(replay.clone())],
            Self::Sweep(_) | Self::Goodput(_) | Self::Knee(_) | Self::Search(_) => return None,
        };
        Some(listed)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// A parameter out of range, or nothing to do.
    pub fn check(&self) -> Result<(), ProfileError> {
        match self {
            Self::Sweep(sweep) => sweep.check(),
            Self::Goodput(goodput) => goodput.check(),
            Self::Knee(knee) => knee.check(),
            Self::Search(search) => search.check(),
            _ => {
                let listed = self.listed().unwrap_or_default();
                if listed.is_empty() {
                    return Err(ProfileError::Nothing { profile: self.name(), name: "its values" });
                }
                Ok(listed.iter().try_for_each(Strategy::check)?)
            }
        }
    }

    /// The profile at its beginning. To be called with what passed [`Profile::check`].
    #[must_use]
    pub fn begin(&self) -> ProfileRun {
        let state = match self {
            Self::Sweep(sweep) => State::Sweep(sweep::Run::new(*sweep)),
            Self::Goodput(goodput) => State::Goodput(goodput::Run::new(*goodput)),
            Self::Knee(knee) => State::Knee(knee::Run::new(knee)),
            Self::Search(search) => State::Search(Box::new(search::Run::new(*search))),
            _ => State::Listed(self.listed().unwrap_or_default().into_iter()),
        };
        ProfileRun { state, ended: false }
    }
}

impl ProfileRun {
    /// The next step. `last`: what the step before it came to; none before the first.
    pub fn next_step(&mut self, last: Option<&StepResult>) -> Option<Strategy> {
        if self.ended {
            return None;
        }
        let next = match &mut self.state {
            State::Listed(strategies) => strategies.next(),
            State::Sweep(run) => run.next_step(last),
            State::Goodput(run) => run.next_step(last),
            State::Knee(run) => run.next_step(last),
            State::Search(run) => run.next_step(last),
        };
        // What was learned from the last step counts, even if it is the last one of all.
        self.ended = next.is_none() || last.is_some_and(|last| last.ends_all);
        next.filter(|_| !self.ended)
    }

    /// What the steps so far come to, for a profile that looks for something.
    #[must_use]
    pub fn conclusion(&self) -> Option<Conclusion> {
        match &self.state {
            State::Listed(_) | State::Sweep(_) => None,
            State::Goodput(run) => Some(Conclusion::Goodput(run.end())),
            State::Knee(run) => Some(Conclusion::Knee(run.fit())),
            State::Search(run) => Some(Conclusion::Search(run.result())),
        }
    }
}

/// Requests at `rate` with these gaps.
pub(crate) const fn open(rate: f64, gaps: Gaps) -> Strategy {
    match gaps {
        Gaps::Constant => Strategy::Constant { rate },
        Gaps::Poisson => Strategy::Poisson { rate },
        Gaps::Gamma { cv } => Strategy::Gamma { rate, cv },
    }
}

pub(crate) fn check(
    profile: &'static str,
    name: &'static str,
    value: f64,
    (least, most): (f64, f64),
    wanted: &'static str,
) -> Result<(), ProfileError> {
    let usable = (least..=most).contains(&value);
    usable.then_some(()).ok_or(ProfileError::Parameter { profile, name, value, wanted })
}
