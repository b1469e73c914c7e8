//! Rates that change in time, and what they need to be usable.

use std::time::Duration;

use gatewright_determinism::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MAX_RATE, MIN_PIECE, MIN_RATE, StrategyError};
use crate::gaps::{MAX_CV, MIN_CV};
use crate::intensity::{FOREVER, Intensity, Piece, Shape, Walk};
use crate::{Gaps, span};

/// A time with one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Mean requests per second: 0 to 100,000,000.
    #[schemars(range(min = 0.0, max = 1e8))]
    pub rate: f64,
    /// How long.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub duration: Duration,
}

/// A low rate with a high one in between.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// Mean requests per second before and after: 0 to 100,000,000.
    #[schemars(range(min = 0.0, max = 1e8))]
    pub rate: f64,
    /// Mean requests per second in the spike: 0 to 100,000,000.
    #[schemars(range(min = 0.0, max = 1e8))]
    pub peak: f64,
    /// When it begins.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub at: Duration,
    /// How long it is.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub lasting: Duration,
    /// The whole comes again after this time; once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub every: Option<Duration>,
    /// How the gaps vary.
    #[serde(default)]
    pub gaps: Gaps,
}

/// A rate that takes a random step every so often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomWalk {
    /// Mean requests per second at the start: `min` to `max`.
    pub rate: f64,
    /// Standard deviation of a step, in requests per second: 0 to 100,000,000. Steps are normally distributed.
    #[schemars(range(min = 0.0, max = 1e8))]
    pub deviation: f64,
    /// Time between two steps.
    #[serde(with = "span::required")]
    #[schemars(with = "String")]
    pub every: Duration,
    /// The walk turns back here: 0.000001 to 100,000,000.
    #[schemars(range(min = 1e-6, max = 1e8))]
    pub min: f64,
    /// And here.
    #[schemars(range(min = 1e-6, max = 1e8))]
    pub max: f64,
    /// How the gaps vary.
    #[serde(default)]
    pub gaps: Gaps,
}

const MAX_STEPS: usize = 10_000;

impl Spike {
    pub(super) fn check(&self) -> Result<(), StrategyError> {
        check_level("spike", "rate", self.rate)?;
        check_level("spike", "peak", self.peak)?;
        check_gaps("spike", self.gaps)?;
        check_span("spike", "lasting", self.lasting)?;
        if self.rate + self.peak <= 0.0 {
            return Err(StrategyError::Nothing { strategy: "spike" });
        }
        let end = self.at.saturating_add(self.lasting);
        match self.every {
            Some(every) if every < end => Err(StrategyError::Overlap { end, every }),
            _ => Ok(()),
        }
    }

    pub(super) fn mean_rate(&self) -> f64 {
        let part = self.every.map_or(0.0, |every| self.lasting.as_secs_f64() / every.as_secs_f64());
        self.rate + (self.peak - self.rate) * part.min(1.0)
    }

    pub(super) fn intensity(&self) -> Intensity {
        let (at, lasting) = (span::nanos(self.at), span::nanos(self.lasting));
        let mut pieces = vec![Piece::flat(at, self.rate), Piece::flat(lasting, self.peak)];
        match self.every {
            Some(every) => {
                let rest = span::nanos(every).saturating_sub(at).saturating_sub(lasting);
                pieces.push(Piece::flat(rest, self.rate));
                Intensity::repeated(pieces)
            }
            None => {
                pieces.push(Piece::flat(FOREVER, self.rate));
                Intensity::once(pieces)
            }
        }
    }
}

impl RandomWalk {
    pub(super) fn check(&self) -> Result<(), StrategyError> {
        let strategy = "random_walk";
        check_level(strategy, "deviation", self.deviation)?;
        check_between(strategy, "min", self.min, MIN_RATE, MAX_RATE)?;
        check_between(strategy, "max", self.max, self.min, MAX_RATE)?;
        check_between(strategy, "rate", self.rate, self.min, self.max)?;
        check_span(strategy, "every", self.every)?;
        check_gaps(strategy, self.gaps)
    }

    pub(super) fn intensity(&self, seed: u64, demand: u64) -> Intensity {
        // A stream of its own: the walk is the same whatever the gaps are.
        let walk = Stream::new(seed, Purpose::Arrival, demand).bits();
        Intensity::Walk(Walk {
            rate: self.rate,
            deviation: self.deviation,
            min: self.min,
            max: self.max,
            nanos: span::nanos(self.every),
            steps: Stream::new(walk, Purpose::Jitter, demand),
        })
    }
}

pub(super) fn ramp(from: f64, to: f64, over: Duration) -> Intensity {
    Intensity::once(vec![Piece::line(span::nanos(over), from, to), Piece::flat(FOREVER, to)])
}

pub(super) fn steps(steps: &[Step], repeat: bool) -> Intensity {
    let pieces = steps.iter().map(|step| Piece::flat(span::nanos(step.duration), step.rate));
    let pieces = pieces.collect();
    if repeat { Intensity::repeated(pieces) } else { Intensity::once(pieces) }
}

pub(super) fn sine(rate: f64, amplitude: f64, period: Duration) -> Intensity {
    let shape = Shape::Wave { mean: rate, amplitude };
    Intensity::repeated(vec![Piece { nanos: span::nanos(period), shape }])
}

pub(super) fn mean_of_steps(steps: &[Step]) -> f64 {
    let seconds: f64 = steps.iter().map(|step| step.duration.as_secs_f64()).sum();
    let requests: f64 = steps.iter().map(|step| step.rate * step.duration.as_secs_f64()).sum();
    if seconds > 0.0 { requests / seconds } else { 0.0 }
}

pub(super) fn check_steps(steps: &[Step], gaps: Gaps) -> Result<(), StrategyError> {
    if !(1..=MAX_STEPS).contains(&steps.len()) {
        return Err(StrategyError::Steps { count: steps.len() });
    }
    for step in steps {
        check_level("steps", "rate", step.rate)?;
        check_span("steps", "duration", step.duration)?;
    }
    if steps.iter().all(|step| step.rate <= 0.0) {
        return Err(StrategyError::Nothing { strategy: "steps" });
    }
    check_gaps("steps", gaps)
}

pub(super) fn check_gaps(strategy: &'static str, gaps: Gaps) -> Result<(), StrategyError> {
    match gaps {
        Gaps::Gamma { cv } => check_cv(strategy, cv),
        Gaps::Constant | Gaps::Poisson => Ok(()),
    }
}

pub(super) fn check_cv(strategy: &'static str, cv: f64) -> Result<(), StrategyError> {
    let usable = (MIN_CV..=MAX_CV).contains(&cv);
    usable.then_some(()).ok_or(StrategyError::Variation { strategy, name: "cv", cv })
}

pub(super) fn check_span(
    strategy: &'static str,
    name: &'static str,
    span: Duration,
) -> Result<(), StrategyError> {
    let usable = span >= MIN_PIECE;
    usable.then_some(()).ok_or(StrategyError::Short { strategy, name, span })
}

/// A rate that may be zero for a while.
pub(super) fn check_level(
    strategy: &'static str,
    name: &'static str,
    rate: f64,
) -> Result<(), StrategyError> {
    check_between(strategy, name, rate, 0.0, MAX_RATE)
}

pub(super) fn check_between(
    strategy: &'static str,
    name: &'static str,
    rate: f64,
    least: f64,
    most: f64,
) -> Result<(), StrategyError> {
    // A not-a-number is in no range.
    let usable = (least..=most).contains(&rate);
    usable.then_some(()).ok_or(StrategyError::Bounded { strategy, name, rate, least, most })
}
