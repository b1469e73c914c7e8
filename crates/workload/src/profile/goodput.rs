use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::slo::normal_quantile;
use super::{ProfileError, Slo, StepResult, check, wilson};
use crate::Strategy;

/// Doubles the streams until the server misses the objective, then halves the interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Goodput {
    /// The objective.
    pub slo: Slo,
    /// Streams to begin with.
    #[serde(default = "initial_streams")]
    pub initial_streams: u32,
    /// Streams at most.
    #[serde(default = "max_streams")]
    pub max_streams: u32,
    /// It is done when the interval is at most this part of its lower end, or one stream.
    #[serde(default = "tolerance")]
    pub tolerance: f64,
    /// Steps at most.
    #[serde(default = "max_probes")]
    pub max_probes: u32,
    /// Confidence with which a step is said to meet or to miss the objective.
    #[serde(default = "confidence")]
    pub confidence: f64,
}

const fn initial_streams() -> u32 {
    4
}

const fn max_streams() -> u32 {
    1_024
}

const fn tolerance() -> f64 {
    0.1
}

const fn max_probes() -> u32 {
    15
}

const fn confidence() -> f64 {
    0.95
}

/// What the search for goodput came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoodputEnd {
    /// Largest number of streams that met the objective.
    pub met: Option<u32>,
    /// Smallest number of streams that missed it.
    pub missed: Option<u32>,
    /// Requests per second that ended well at the largest number that met it.
    pub rate: Option<f64>,
    /// Numbers of streams at which the requests were too few to tell with the wanted confidence; they were taken
    /// as they seemed.
    pub unresolved: Vec<u32>,
    /// Why it ended.
    pub reason: GoodputReason,
}

/// Why the search for goodput ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GoodputReason {
    /// The interval is small enough.
    Converged,
    /// The objective is met with as many streams as are allowed.
    MaxStreamsReached,
    /// No more steps are allowed.
    MaxProbesExhausted,
    /// The objective is missed with one stream.
    ObjectivesUnmetAtMinimum,
    /// At one stream the requests are too few to tell.
    IndeterminateAtMinimum,
    /// A constraint ended it, or it goes on.
    Stopped,
}

impl Goodput {
    /// A search for this objective.
    #[must_use]
    pub const fn new(slo: Slo) -> Self {
        Self {
            slo,
            initial_streams: initial_streams(),
            max_streams: max_streams(),
            tolerance: tolerance(),
            max_probes: max_probes(),
            confidence: confidence(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let profile = "goodput";
        if self.slo.check().is_err() {
            return Err(ProfileError::Nothing { profile, name: "slo.response, slo.ttft, slo.itl" });
        }
        let streams = (1.0, f64::from(crate::MAX_STREAMS));
        check(
            profile,
            "initial_streams",
            f64::from(self.initial_streams),
            streams,
            "1 to 1000000",
        )?;
        let most = (f64::from(self.initial_streams), streams.1);
        check(
            profile,
            "max_streams",
            f64::from(self.max_streams),
            most,
            "initial_streams to 1000000",
        )?;
        check(profile, "tolerance", self.tolerance, (0.0, 1.0), "0 to 1")?;
        check(profile, "max_probes", f64::from(self.max_probes), (1.0, 1e3), "1 to 1000")?;
        check(profile, "confidence", self.confidence, (0.5, 0.9999), "0.5 to 0.9999")
    }
}

#[derive(Debug)]
pub(super) struct Run {
    goodput: Goodput,
    streams: u32,
    probes: u32,
    met: Option<(u32, f64)>,
    missed: Option<u32>,
    unresolved: Vec<u32>,
}

impl Run {
    pub(super) const fn new(goodput: Goodput) -> Self {
        let streams = goodput.initial_streams;
        Self { goodput, streams, probes: 0, met: None, missed: None, unresolved: Vec::new() }
    }

    pub(super) fn next_step(&mut self, last: Option<&StepResult>) -> Option<Strategy> {
        if let Some(last) = last {
            self.learn(last);
            if self.reason().is_some() {
                return None;
            }
            self.streams = match (self.met, self.missed) {
                (Some((met, _)), Some(missed)) => met + (missed - met) / 2,
                (Some((met, _)), None) => met.saturating_mul(2).min(self.goodput.max_streams),
                (None, _) => (self.streams / 2).max(1),
            };
        }
        self.probes += 1;
        Some(Strategy::Concurrent { streams: self.streams })
    }

    fn learn(&mut self, last: &StepResult) {
        let target = self.goodput.slo.attainment;
        let (met, counted) = (last.attainment.met, last.attainment.counted);
        let (low, high) = wilson(met, counted, normal_quantile(self.goodput.confidence));
        if low < target && target <= high {
            self.unresolved.push(self.streams);
        }
        if counted > 0 && last.attainment.share() >= target && !last.overloaded {
            if self.met.is_none_or(|(met, _)| met < self.streams) {
                self.met = Some((self.streams, last.rate));
            }
        } else if self.missed.is_none_or(|missed| missed > self.streams) {
            self.missed = Some(self.streams);
        }
    }

    /// Why it is over, if it is.
    fn reason(&self) -> Option<GoodputReason> {
        match (self.met, self.missed) {
            (None, Some(1)) if self.unresolved.contains(&1) => {
                Some(GoodputReason::IndeterminateAtMinimum)
            }
            (None, Some(1)) => Some(GoodputReason::ObjectivesUnmetAtMinimum),
            (Some((met, _)), Some(missed))
                if f64::from(missed.saturating_sub(met))
                    <= (self.goodput.tolerance * f64::from(met)).max(1.0) =>
            {
                Some(GoodputReason::Converged)
            }
            (Some((met, _)), None) if met >= self.goodput.max_streams => {
                Some(GoodputReason::MaxStreamsReached)
            }
            _ if self.probes >= self.goodput.max_probes => Some(GoodputReason::MaxProbesExhausted),
            _ => None,
        }
    }

    pub(super) fn end(&self) -> GoodputEnd {
        GoodputEnd {
            met: self.met.map(|(streams, _)| streams),
            missed: self.missed,
            rate: self.met.map(|(_, rate)| rate),
            unresolved: self.unresolved.clone(),
            reason: self.reason().unwrap_or(GoodputReason::Stopped),
        }
    }
}
