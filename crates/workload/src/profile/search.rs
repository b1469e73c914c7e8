use gatewright_determinism::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::isotonic::{crossing, non_increasing};
use super::slo::normal_quantile;
use super::{Attainment, ProfileError, Slo, StepResult, check, open, wilson};
use crate::{Gaps, MAX_RATE, MIN_RATE, Strategy};

/// The highest rate, in an open loop, at which the server meets an objective.
///
/// 1. One request at a time tells where to begin, and whether the objective can be met at all.
/// 2. The rate is doubled until the objective is missed (or halved until it is met): a bracket.
/// 3. The bracket is halved until its ends are near enough.
/// 4. What is left of the steps goes to where the curve crosses the objective, until its interval is small.
///
/// The answer is not the last step that met it, which would be a matter of luck, but where a fit through all steps
/// crosses the objective: the part of requests that meet it cannot grow with the rate (isotonic regression). Its
/// interval comes from resampling the parts of each step (bootstrap).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// The objective.
    pub slo: Slo,
    /// How gaps vary.
    #[serde(default)]
    pub gaps: Gaps,
    /// Rate to begin with; half of what one stream gets if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_rate: Option<f64>,
    /// No higher rate is tried.
    #[serde(default = "max_rate")]
    pub max_rate: f64,
    /// How near the ends of the bracket, and of the interval, shall be to one another, as a part of the rate.
    #[serde(default = "resolution")]
    pub resolution: f64,
    /// Steps at most.
    #[serde(default = "max_steps")]
    pub max_steps: u32,
    /// Confidence of the interval.
    #[serde(default = "confidence")]
    pub confidence: f64,
}

const fn max_rate() -> f64 {
    1e6
}

const fn resolution() -> f64 {
    0.05
}

const fn max_steps() -> u32 {
    20
}

const fn confidence() -> f64 {
    0.95
}

/// What a [`Search`] came to; rates in requests per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// The highest rate at which the objective is met: where the fit crosses it; at `max_rate_reached`, the
    /// highest rate that was tried. None if no rate met it.
    pub rate: Option<f64>,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end of its interval.
    pub high: Option<f64>,
    /// Highest rate of a step that met the objective.
    pub met: Option<f64>,
    /// Lowest rate of a step that missed it.
    pub missed: Option<f64>,
    /// Steps with a rate that were made.
    pub steps: usize,
    /// Why it ended.
    pub reason: SearchEnd,
}

/// Why a [`Search`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// Bracket and interval are small enough.
    Converged,
    /// The objective is met at the highest rate that is allowed.
    MaxRateReached,
    /// No more steps are allowed.
    MaxStepsReached,
    /// The objective is missed with one request at a time, or at every rate.
    ObjectiveUnmet,
    /// A constraint ended it, or it goes on.
    Stopped,
}

/// Samples of the bootstrap.
const SAMPLES: u64 = 400;
/// Halvings of the first rate before the objective is given up.
const MAX_HALVINGS: i32 = 10;

impl Search {
    /// A search for this objective.
    #[must_use]
    pub const fn new(slo: Slo) -> Self {
        Self {
            slo,
            gaps: Gaps::Poisson,
            start_rate: None,
            max_rate: max_rate(),
            resolution: resolution(),
            max_steps: max_steps(),
            confidence: confidence(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let profile = "search";
        if self.slo.check().is_err() {
            return Err(ProfileError::Nothing { profile, name: "slo.response, slo.ttft, slo.itl" });
        }
        let rates = (MIN_RATE, MAX_RATE);
        check(profile, "start_rate", self.start_rate.unwrap_or(1.0), rates, "more than 0")?;
        check(profile, "max_rate", self.max_rate, rates, "more than 0")?;
        check(profile, "resolution", self.resolution, (0.001, 0.5), "0.001 to 0.5")?;
        check(profile, "max_steps", f64::from(self.max_steps), (3.0, 1e3), "3 to 1000")?;
        check(profile, "confidence", self.confidence, (0.5, 0.999), "0.5 to 0.999")?;
        Ok(open(1.0, self.gaps).check()?)
    }
}

#[derive(Debug)]
pub(super) struct Run {
    search: Search,
    /// Steps begun.
    steps: u32,
    first_rate: f64,
    rate: f64,
    /// Whether the step that is being made has one request at a time.
    alone: bool,
    probes: Vec<Probe>,
    reason: Option<SearchEnd>,
}

/// A step with a rate.
#[derive(Clone, Debug)]
struct Probe {
    rate: f64,
    attainment: Attainment,
    overloaded: bool,
}

impl Probe {
    fn share(&self) -> f64 {
        // Who falls behind misses every objective, if only the step is long enough.
        if self.overloaded { 0.0 } else { self.attainment.share() }
    }
}

impl Run {
    pub(super) const fn new(search: Search) -> Self {
        let probes = Vec::new();
        Self { search, steps: 0, first_rate: 0.0, rate: 0.0, alone: false, probes, reason: None }
    }

    pub(super) fn next_step(&mut self, last: Option<&StepResult>) -> Option<Strategy> {
        match last {
            None => match self.search.start_rate {
                Some(rate) => self.first_rate = rate.min(self.search.max_rate),
                None => {
                    self.alone = true;
                    self.steps += 1;
                    return Some(Strategy::Synchronous);
                }
            },
            Some(last) if self.alone => {
                self.alone = false;
                let z = normal_quantile(self.search.confidence);
                let best = wilson(last.attainment.met, last.attainment.counted, z).1;
                if best < self.search.slo.attainment || last.rate <= 0.0 {
                    self.reason = Some(SearchEnd::ObjectiveUnmet);
                    return None;
                }
                self.first_rate = (0.5 * last.rate).clamp(MIN_RATE, self.search.max_rate);
            }
            Some(last) => {
                let (attainment, overloaded) = (last.attainment.clone(), last.overloaded);
                let at = self.probes.partition_point(|probe| probe.rate <= self.rate);
                self.probes.insert(at, Probe { rate: self.rate, attainment, overloaded });
            }
        }
        match self.choose() {
            Ok(rate) => {
                self.steps += 1;
                self.rate = rate;
                Some(open(rate, self.search.gaps))
            }
            Err(reason) => {
                self.reason = Some(reason);
                None
            }
        }
    }

    fn choose(&self) -> Result<f64, SearchEnd> {
        if self.steps >= self.search.max_steps {
            return Err(SearchEnd::MaxStepsReached);
        }
        match self.bracket() {
            (None, None) => Ok(self.first_rate),
            (Some(met), None) if met >= self.search.max_rate => Err(SearchEnd::MaxRateReached),
            (Some(met), None) => Ok((2.0 * met).min(self.search.max_rate)),
            (None, Some(missed)) => {
                let least = self.first_rate * libm::ldexp(1.0, -MAX_HALVINGS);
                let next = 0.5 * missed;
                if next >= least.max(MIN_RATE) { Ok(next) } else { Err(SearchEnd::ObjectiveUnmet) }
            }
            (Some(met), Some(missed)) => {
                if missed > met * (1.0 + self.search.resolution) {
                    return Ok((met * missed).sqrt());
                }
                self.refine()
            }
        }
    }

    /// Steps at the crossing, a little above and below by turns, until it is known well enough.
    fn refine(&self) -> Result<f64, SearchEnd> {
        let result = self.result();
        let (Some(rate), Some(low), Some(high)) = (result.rate, result.low, result.high) else {
            return Err(SearchEnd::ObjectiveUnmet);
        };
        if high - low <= 2.0 * self.search.resolution * rate {
            return Err(SearchEnd::Converged);
        }
        let aside =
            0.5 * self.search.resolution * if self.steps.is_multiple_of(2) { 1.0 } else { -1.0 };
        Ok((rate * (1.0 + aside)).clamp(MIN_RATE, self.search.max_rate))
    }

    /// The highest rate where the fit meets the objective and the lowest one where it misses it.
    fn bracket(&self) -> (Option<f64>, Option<f64>) {
        let fit = self.fit(Probe::share);
        let target = self.search.slo.attainment;
        let below = fit.iter().position(|&share| share < target).unwrap_or(fit.len());
        let rate = |at: usize| self.probes.get(at).map(|probe| probe.rate);
        (below.checked_sub(1).and_then(rate), rate(below))
    }

    fn fit(&self, mut share: impl FnMut(&Probe) -> f64) -> Vec<f64> {
        let weight = |probe: &Probe| probe.attainment.counted.max(1) as f64;
        let values: Vec<_> =
            self.probes.iter().map(|probe| (share(probe), weight(probe))).collect();
        non_increasing(&values)
    }

    /// Where the fit crosses the objective; beyond the last probe, if it does not.
    fn crossing(&self, share: impl FnMut(&Probe) -> f64) -> Option<f64> {
        let rates: Vec<f64> = self.probes.iter().map(|probe| probe.rate).collect();
        let fit = self.fit(share);
        crossing(&rates, &fit, self.search.slo.attainment).or_else(|| rates.last().copied())
    }

    pub(super) fn result(&self) -> SearchResult {
        let (met, missed) = self.bracket();
        let reason = self.reason.unwrap_or(SearchEnd::Stopped);
        let steps = self.probes.len();
        let rate = met.and_then(|_| self.crossing(Probe::share));
        let Some(rate) = rate else {
            return SearchResult { rate: None, low: None, high: None, met, missed, steps, reason };
        };
        let mut samples: Vec<f64> = (0..SAMPLES)
            .filter_map(|sample| {
                let mut luck = Stream::new(steps as u64, Purpose::Resample, sample);
                self.crossing(|probe| probe.resampled(&mut luck))
            })
            .collect();
        samples.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - self.search.confidence);
        let last = samples.len().saturating_sub(1);
        let at = |part: f64| samples.get((part * last as f64 + 0.5) as usize).copied();
        SearchResult {
            rate: Some(rate),
            low: at(tail),
            high: at(1.0 - tail),
            met,
            missed,
            steps,
            reason,
        }
    }
}

impl Probe {
    /// The part that meets the objective in a sample, with replacement, of the step's parts.
    fn resampled(&self, luck: &mut Stream) -> f64 {
        let batches = &self.attainment.batches;
        if self.overloaded || batches.is_empty() {
            return self.share();
        }
        let draw = |_| batches[luck.below(batches.len() as u64) as usize];
        let sum = |(a, b): (u64, u64), (met, counted)| (a + met, b + counted);
        let (met, counted) = (0..batches.len()).map(draw).fold((0, 0), sum);
        if counted == 0 { self.share() } else { met as f64 / counted as f64 }
    }
}
