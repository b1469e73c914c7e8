use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span;

/// What a request has to meet, and how many of them have to. That 99 % of the requests take at most 200 ms is the
/// same as that the 99 % quantile is at most 200 ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Response time at most, from the scheduled moment (sent, in a closed loop) to the end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub response: Option<Duration>,
    /// Time to the first token at most, from the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub ttft: Option<Duration>,
    /// Mean time between tokens at most.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub itl: Option<Duration>,
    /// Time per token of the answer at most, from the sending.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub tpot: Option<Duration>,
    /// Part of the requests that has to meet all of these, more than 0 and less than 1.
    #[serde(default = "attainment")]
    pub attainment: f64,
}

const fn attainment() -> f64 {
    0.99
}

/// How many requests met an objective. Failures are misses; what the run itself cut off is not counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attainment {
    /// Requests that met it.
    pub met: u64,
    /// Requests that met it or not.
    pub counted: u64,
    /// The same two numbers for equal parts of the step, one after the other: requests of one part are not
    /// independent, parts nearly are.
    pub batches: Vec<(u64, u64)>,
}

/// Why an [`Slo`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SloError {
    /// It asks for nothing.
    #[error("the objective asks for nothing; give response, ttft, itl or tpot")]
    Nothing,
    /// A part that is none.
    #[error("attainment = {0} is not usable; give more than 0 and less than 1, such as 0.99")]
    Attainment(f64),
}

impl Slo {
    /// An objective for the response time.
    #[must_use]
    pub const fn of_response(response: Duration, attainment: f64) -> Self {
        Self { response: Some(response), ttft: None, itl: None, tpot: None, attainment }
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// It asks for nothing, or of no part of the requests.
    pub fn check(&self) -> Result<(), SloError> {
        let asked = [self.response, self.ttft, self.itl, self.tpot];
        if asked.iter().all(Option::is_none) {
            return Err(SloError::Nothing);
        }
        let usable = self.attainment > 0.0 && self.attainment < 1.0;
        usable.then_some(()).ok_or(SloError::Attainment(self.attainment))
    }

    /// Whether a request that ended well meets it; times in nanoseconds. A time that is asked for and not known
    /// is a miss, except the time between tokens of an answer of one token.
    #[must_use]
    pub fn is_met(
        &self,
        response: u64,
        ttft: Option<u64>,
        itl: Option<f64>,
        tpot: Option<f64>,
    ) -> bool {
        let within = |limit: Option<Duration>, time: Option<u64>| {
            limit.is_none_or(|limit| time.is_some_and(|time| time <= span::nanos(limit)))
        };
        let paced = self
            .tpot
            .is_none_or(|limit| tpot.is_some_and(|tpot| tpot <= span::nanos(limit) as f64));
        let gaps = self.itl.is_none_or(|limit| match itl {
            Some(itl) => itl <= span::nanos(limit) as f64,
            None => ttft.is_some(),
        });
        within(self.response, Some(response)) && within(self.ttft, ttft) && gaps && paced
    }
}

impl Attainment {
    /// Parts that a step is divided into.
    pub const BATCHES: usize = 20;

    /// Part of the requests that met the objective; 0 without any.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.met as f64 / self.counted.max(1) as f64
    }

    /// Adds a request of part `batch` (of [`Attainment::BATCHES`]; later ones count to the last).
    pub fn add(&mut self, batch: usize, met: bool) {
        self.met += u64::from(met);
        self.counted += 1;
        let batch = batch.min(Self::BATCHES - 1);
        if self.batches.len() <= batch {
            self.batches.resize(batch + 1, (0, 0));
        }
        self.batches[batch].0 += u64::from(met);
        self.batches[batch].1 += 1;
    }

    /// Adds all requests of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.met += other.met;
        self.counted += other.counted;
        if self.batches.len() < other.batches.len() {
            self.batches.resize(other.batches.len(), (0, 0));
        }
        for (own, other) in self.batches.iter_mut().zip(&other.batches) {
            own.0 += other.0;
            own.1 += other.1;
        }
    }
}

/// The interval of Wilson (1927) for a part of which `met` in `counted` were seen; `z` is the normal quantile, 1.96
/// for 95 %. 0 to 1 without any.
#[must_use]
pub fn wilson(met: u64, counted: u64, z: f64) -> (f64, f64) {
    if counted == 0 {
        return (0.0, 1.0);
    }
    let n = counted as f64;
    let p = met as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

/// The z for which a normal variable lies within -z..z with probability `confidence` (Abramowitz and Stegun
/// 26.2.23; error below 0.00045).
pub(crate) fn normal_quantile(confidence: f64) -> f64 {
    let t = (-2.0 * libm::log((0.5 - 0.5 * confidence).max(1e-300))).sqrt();
    let numerator = (0.010_328 * t + 0.802_853) * t + 2.515_517;
    let denominator = ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0;
    t - numerator / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_agrees_with_the_tables() {
        // 81 of 263: Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I.
        let (low, high) = wilson(81, 263, 1.959_964);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(0, 20, 1.959_964);
        assert!(low == 0.0 && (high - 0.1611).abs() < 1e-4, "{high}");
        assert!((normal_quantile(0.95) - 1.959_964).abs() < 5e-4);
    }

    #[test]
    fn an_objective_needs_all_of_its_parts() {
        let millis = Duration::from_millis;
        let slo = Slo {
            response: None,
            ttft: Some(millis(10)),
            itl: Some(millis(2)),
            tpot: None,
            attainment: 0.9,
        };
        assert!(slo.is_met(u64::MAX, Some(10_000_000), Some(2e6), None));
        assert!(slo.is_met(0, Some(1), None, None), "one token has no gap");
        assert!(!slo.is_met(0, None, None, None), "a time that is not known is none");
        assert!(!slo.is_met(0, Some(10_000_001), Some(1e6), None));
        assert!(!slo.is_met(0, Some(1), Some(2e6 + 1.0), None));
        let paced = Slo { tpot: Some(millis(3)), ..slo };
        assert!(paced.is_met(0, Some(1), Some(1e6), Some(3e6)));
        assert!(!paced.is_met(0, Some(1), Some(1e6), Some(3e6 + 1.0)));
        assert!(!paced.is_met(0, Some(1), Some(1e6), None));
        assert_eq!(Slo { ttft: None, itl: None, ..slo }.check(), Err(SloError::Nothing));
        assert!(Slo { attainment: 1.0, ..slo }.check().is_err());
    }

    #[test]
    fn parts_add_up() {
        let mut all = Attainment::default();
        let mut other = Attainment::default();
        for i in 0..60 {
            if i % 2 == 0 { all.add(i / 2, i % 3 == 0) } else { other.add(i / 2, i % 3 == 0) }
        }
        all.merge(&other);
        assert_eq!((all.met, all.counted, all.batches.len()), (20, 60, 20));
        assert_eq!(all.batches[19].1, 22, "the last part takes what comes later");
    }
}
