use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::{Purpose, Stream, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gaps::{Gamma, MAX_CV, MIN_CV};
use crate::trace::Recorded;
use crate::{Schedule, Share, StrategyError, span};

/// The time that a user takes between an answer and the next request: fixed, or gamma distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Think {
    /// Mean, such as `"10s"`.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub mean: Duration,
    /// Coefficient of variation (standard deviation over mean): 0 is always the mean, 1 exponential.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 30.0))]
    pub cv: f64,
}

/// How many requests a session has.
///
/// In configuration: `{ fixed = 5 }` or `{ mean = 5 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Turns {
    /// Always this many: 1 to 1,000,000.
    Fixed(#[schemars(range(min = 1, max = 1_000_000))] u32),
    /// Geometrically distributed with this mean, 1 to 1,000,000: after each answer the user stays with the same
    /// probability, 1 - 1/mean.
    Mean(#[schemars(range(min = 1.0, max = 1e6))] f64),
}

/// Users who ask, read the answer, think, and ask again.
///
/// How long a user thinks after which request is drawn from the session's own number, so it is the same whatever
/// thread runs the session and however long the answers take.
#[derive(Clone, Debug)]
pub struct Sessions {
    law: Law,
    seed: u64,
    demand: u64,
}

#[derive(Clone, Debug)]
enum Law {
    /// So many users, who stay.
    Users { users: u32, ramp_up: u64, think: Pause },
    /// Users who come and go.
    Visits { starts: Schedule, turns: Turns, think: Pause },
    /// What was recorded: pauses are those between the end of a request and the next one.
    Recorded { recorded: Arc<Recorded>, time_scale: f64 },
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    mean_nanos: f64,
    gamma: Option<Gamma>,
}

/// One thread's part of the sessions: number of each and the moment of its first request.
#[derive(Clone, Debug)]
pub struct SessionStarts {
    law: StartLaw,
}

#[derive(Clone, Debug)]
enum StartLaw {
    Listed { sessions: Sessions, next: u64, step: u64, count: u64 },
    Scheduled(Share),
}

impl Turns {
    /// Mean number of requests.
    #[must_use]
    pub fn mean(self) -> f64 {
        match self {
            Self::Fixed(turns) => f64::from(turns),
            Self::Mean(mean) => mean,
        }
    }

    fn is_usable(self) -> bool {
        (1.0..=1e6).contains(&self.mean())
    }
}

impl Think {
    pub(crate) fn check(&self, strategy: &'static str) -> Result<(), StrategyError> {
        if self.cv == 0.0 || (MIN_CV..=MAX_CV).contains(&self.cv) {
            return Ok(());
        }
        Err(StrategyError::variation(strategy, "think.cv", self.cv))
    }

    fn pause(self) -> Pause {
        let gamma = (self.cv > 0.0).then(|| Gamma::with_cv(self.cv));
        Pause { mean_nanos: span::nanos(self.mean) as f64, gamma }
    }
}

pub(crate) fn check_turns(strategy: &'static str, turns: Turns) -> Result<(), StrategyError> {
    let usable = turns.is_usable();
    usable.then_some(()).ok_or_else(|| StrategyError::Turns { strategy, turns: turns.mean() })
}

impl Sessions {
    pub(crate) fn of_users(
        users: u32,
        ramp_up: Duration,
        think: Think,
        seed: u64,
        demand: u64,
    ) -> Self {
        let law = Law::Users { users, ramp_up: span::nanos(ramp_up), think: think.pause() };
        Self { law, seed, demand }
    }

    pub(crate) fn of_visits(
        starts: Schedule,
        turns: Turns,
        think: Think,
        seed: u64,
        demand: u64,
    ) -> Self {
        Self { law: Law::Visits { starts, turns, think: think.pause() }, seed, demand }
    }

    pub(crate) const fn of_recorded(recorded: Arc<Recorded>, time_scale: f64) -> Self {
        Self { law: Law::Recorded { recorded, time_scale }, seed: 0, demand: 0 }
    }

    /// Sessions that may go on at once at most, where there is a bound.
    #[must_use]
    pub fn at_most(&self) -> Option<u64> {
        match &self.law {
            Law::Users { users, .. } => Some(u64::from(*users)),
            Law::Visits { .. } => None,
            Law::Recorded { recorded, .. } => Some(recorded.chains() as u64),
        }
    }

    /// The sessions that thread `nth` of `of` owns, in the order in which they begin: sessions nth, nth + of, ...
    #[must_use]
    pub fn starts(&self, nth: u32, of: u32) -> SessionStarts {
        let law = match &self.law {
            Law::Visits { starts, .. } => StartLaw::Scheduled(starts.clone().share(nth, of)),
            Law::Users { .. } | Law::Recorded { .. } => StartLaw::Listed {
                sessions: self.clone(),
                next: u64::from(nth),
                step: u64::from(of.max(1)),
                count: self.at_most().unwrap_or(0),
            },
        };
        SessionStarts { law }
    }

    /// When `session` asks again whose request number `turn` (from 0) was answered, well or not, at `ended`;
    /// none if that was its last one.
    #[must_use]
    pub fn next_turn(&self, session: u64, turn: u64, ended: Time) -> Option<Time> {
        match &self.law {
            Law::Users { think, .. } => {
                let pause = think.draw(&mut self.luck(session, turn));
                Some(ended.plus_nanos(pause))
            }
            Law::Visits { turns, think, .. } => {
                let mut luck = self.luck(session, turn);
                let stays = match *turns {
                    Turns::Fixed(turns) => turn + 1 < u64::from(turns),
                    Turns::Mean(mean) => luck.unit() * mean >= 1.0,
                };
                stays.then(|| ended.plus_nanos(think.draw(&mut luck)))
            }
            Law::Recorded { recorded, time_scale } => {
                let pause = recorded.pause_after(session, turn)?;
                Some(ended.plus_nanos((pause as f64 * time_scale) as u64))
            }
        }
    }

    /// Number in the trace of a session's request, where a trace is replayed.
    #[must_use]
    pub fn recorded_number(&self, session: u64, turn: u64) -> Option<u64> {
        match &self.law {
            Law::Recorded { recorded, .. } => recorded.number_of(session, turn),
            Law::Users { .. } | Law::Visits { .. } => None,
        }
    }

    fn start_of(&self, session: u64) -> Time {
        match &self.law {
            // Nobody has thought before the first request: they are spread over the ramp-up.
            Law::Users { users, ramp_up, .. } => {
                let part = u128::from(*ramp_up) * u128::from(session) / u128::from(*users).max(1);
                Time::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
            }
            Law::Recorded { recorded, time_scale } => {
                let first = recorded.number_of(session, 0).and_then(|number| recorded.at(number));
                let nanos = first.unwrap_or_default().as_nanos() as f64 * time_scale;
                Time::from_nanos(nanos as u64)
            }
            Law::Visits { .. } => Time::ZERO,
        }
    }

    const fn luck(&self, session: u64, turn: u64) -> Stream {
        let demand = Stream::new(self.seed, Purpose::Jitter, self.demand).bits();
        let session = Stream::new(demand, Purpose::Jitter, session).bits();
        Stream::new(session, Purpose::Jitter, turn)
    }
}

impl Pause {
    fn draw(&self, luck: &mut Stream) -> u64 {
        let factor = self.gamma.map_or(1.0, |gamma| gamma.draw(luck));
        (self.mean_nanos * factor) as u64
    }
}

impl Iterator for SessionStarts {
    type Item = (u64, Time);

    fn next(&mut self) -> Option<(u64, Time)> {
        match &mut self.law {
            StartLaw::Scheduled(share) => share.next(),
            StartLaw::Listed { sessions, next, step, count } => {
                let session = *next;
                if session >= *count {
                    return None;
                }
                *next += *step;
                Some((session, sessions.start_of(session)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn visits(turns: Turns, think: Think) -> Sessions {
        Sessions::of_visits(Schedule::poisson(10.0, 1, 0), turns, think, 1, 0)
    }

    #[test]
    fn users_come_over_the_ramp_up_and_stay() {
        let think = Think { mean: SECOND, cv: 0.0 };
        let sessions = Sessions::of_users(4, SECOND, think, 1, 0);
        let starts: Vec<_> =
            sessions.starts(0, 1).map(|(_, at)| at.as_nanos() / 1_000_000).collect();
        assert_eq!(starts, [0, 250, 500, 750]);
        let ended = Time::from_nanos(5);
        assert_eq!(sessions.next_turn(3, 1_000_000, ended), Some(ended + SECOND));
        assert_eq!(sessions.at_most(), Some(4));
    }

    #[test]
    fn visits_have_the_number_of_turns_they_claim() {
        let think = Think { mean: SECOND, cv: 1.0 };
        let count = |sessions: &Sessions, session| {
            let mut turn = 0;
            while sessions.next_turn(session, turn, Time::ZERO).is_some() {
                turn += 1;
            }
            turn + 1
        };
        let fixed = visits(Turns::Fixed(3), think);
        assert!((0..100).all(|session| count(&fixed, session) == 3));
        assert_eq!(count(&visits(Turns::Mean(1.0), think), 0), 1);
        let geometric = visits(Turns::Mean(4.0), think);
        let n = 40_000;
        let counts: Vec<f64> = (0..n).map(|session| count(&geometric, session) as f64).collect();
        let mean = counts.iter().sum::<f64>() / n as f64;
        // A geometric law of mean m has a variance of m (m - 1).
        assert!((mean - 4.0).abs() < 4.0 * (12.0 / n as f64).sqrt(), "{mean}");
        let ones = counts.iter().filter(|&&count| count == 1.0).count() as f64 / n as f64;
        assert!((ones - 0.25).abs() < 4.0 * (0.25 * 0.75 / n as f64).sqrt(), "{ones}");
    }

    #[test]
    fn thinking_has_its_mean_and_does_not_hang_on_threads() {
        let sessions = visits(Turns::Fixed(u32::MAX), Think { mean: SECOND, cv: 2.0 });
        let n = 100_000u64;
        let pause = |i| sessions.next_turn(i % 100, i / 100, Time::ZERO).unwrap().as_secs_f64();
        let mean = (0..n).map(pause).sum::<f64>() / n as f64;
        assert!((mean - 1.0).abs() < 4.0 * 2.0 / (n as f64).sqrt(), "{mean}");
        let whole: Vec<_> = sessions.starts(0, 1).take(90).collect();
        let mut merged: Vec<_> = (0..3).flat_map(|nth| sessions.starts(nth, 3).take(30)).collect();
        merged.sort_unstable();
        assert_eq!(merged, whole);
    }
}
