use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buckets::Buckets;

/// The longest time that a [`LatencyHistogram`] tells apart: one hour. Longer ones count as this long in the
/// quantiles; mean and maximum stay exact.
pub const MAX_LATENCY: Duration = Duration::from_secs(3_600);

const MAX_NANOS: u64 = MAX_LATENCY.as_nanos() as u64;

/// A distribution of times in nanoseconds, to three significant digits, up to [`MAX_LATENCY`].
///
/// About 140 kB whatever the number of samples; recording takes a few nanoseconds, merging is exact, and
/// neither depends on the order. Count, mean, minimum and maximum are exact.
#[derive(Clone)]
pub struct LatencyHistogram {
    buckets: Buckets,
    sum: u128,
    min: u64,
    max: u64,
}

/// A [`LatencyHistogram`] in a few numbers, all times in nanoseconds.
///
/// What the samples cannot tell is absent: everything but the count if there are none, and each quantile that
/// lies too far out for so few (see [`samples_needed`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Number of samples.
    pub count: u64,
    /// Arithmetic mean.
    #[serde(rename = "mean_ns")]
    pub mean: Option<f64>,
    /// Smallest sample.
    #[serde(rename = "min_ns")]
    pub min: Option<u64>,
    /// Largest sample.
    #[serde(rename = "max_ns")]
    pub max: Option<u64>,
    /// Median; needs 5 samples.
    #[serde(rename = "p50_ns")]
    pub p50: Option<u64>,
    /// 90 % quantile; needs 29 samples.
    #[serde(rename = "p90_ns")]
    pub p90: Option<u64>,
    /// 95 % quantile; needs 59 samples.
    #[serde(rename = "p95_ns")]
    pub p95: Option<u64>,
    /// 99 % quantile; needs 299 samples.
    #[serde(rename = "p99_ns")]
    pub p99: Option<u64>,
    /// 99.9 % quantile; needs 2,995 samples.
    #[serde(rename = "p999_ns")]
    pub p999: Option<u64>,
}

/// How many samples it takes before quantile `q` (0 <= q < 1) is given.
///
/// The rule is Wilks's (1941): as many as it takes for the largest sample to lie beyond the true quantile with
/// 95 % confidence, 1 - q^n >= 0.95. With fewer, nothing has been seen of what lies out there.
/// `q` of 1 or more takes more samples than there are ([`u64::MAX`]).
#[must_use]
pub fn samples_needed(q: f64) -> u64 {
    if q <= 0.0 {
        return 1;
    }
    if q >= 1.0 {
        return u64::MAX;
    }
    libm::ceil(libm::log(0.05) / libm::log(q)) as u64
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LatencyHistogram {
    /// The summary: nobody wants to see 33,000 buckets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LatencyHistogram").field(&self.summary()).finish()
    }
}

impl LatencyHistogram {
    /// An empty distribution.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: Buckets::new(MAX_NANOS), sum: 0, min: u64::MAX, max: 0 }
    }

    /// Adds one time.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.buckets.record(nanos.min(MAX_NANOS));
        self.sum += u128::from(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds one time as many times as `count` says: a sample with a weight.
    pub fn record_many(&mut self, nanos: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.buckets.record_many(nanos.min(MAX_NANOS), count);
        self.sum += u128::from(nanos) * u128::from(count);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.add(&other.buckets);
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.buckets.clear();
        (self.sum, self.min, self.max) = (0, u64::MAX, 0);
    }

    /// Number of samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.total()
    }

    /// Exact mean in nanoseconds; none without samples.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// Exact minimum in nanoseconds; none without samples.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.min)
    }

    /// Exact maximum in nanoseconds; none without samples.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max)
    }

    /// Quantile `q` in nanoseconds, within 0.1 %: the smallest recorded time that at least a fraction `q` of
    /// the samples do not exceed. None with fewer than [`samples_needed`].
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        (self.count() >= samples_needed(q)).then(|| self.quantile_of_any(q))
    }

    /// Quantile `q` however few the samples, for decisions that cannot wait for more; 0 without samples.
    #[must_use]
    pub fn quantile_of_any(&self, q: f64) -> u64 {
        if self.count() == 0 {
            return 0;
        }
        self.buckets.at_quantile(q.clamp(0.0, 1.0)).min(MAX_NANOS).clamp(self.min, self.max)
    }

    /// Standard deviation in nanoseconds, within 0.1 %; none without samples.
    #[must_use]
    pub fn std_dev(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.buckets.standard_deviation())
    }

    /// The time that was recorded most often, to three digits; none without samples.
    #[must_use]
    pub fn mode(&self) -> Option<u64> {
        Some(self.buckets.fullest()?.clamp(self.min, self.max))
    }

    /// The sample with this rank, from 1, within 0.1 %; the largest one beyond.
    #[must_use]
    pub fn at_rank(&self, rank: u64) -> u64 {
        let count = self.count().max(1);
        // Half a rank off the edge, so that rounding does not reach the neighbour.
        self.quantile_of_any((rank as f64 - 0.5) / count as f64)
    }

    /// Counts of the samples in `bars` parts, evenly spaced on a logarithmic scale from the 1 % quantile to the maximum:
    /// the upper end of each, and how many samples lie in it. Empty without samples.
    #[must_use]
    pub fn bars(&self, bars: usize) -> Vec<(u64, u64)> {
        let (Some(max), low) = (self.max(), self.quantile_of_any(0.01).max(1)) else {
            return Vec::new();
        };
        let step = libm::log(max as f64 / low as f64) / bars as f64;
        let mut before = 0;
        let bar = |number: usize| {
            let last = number == bars;
            let upper =
                if last { max } else { (low as f64 * libm::exp(step * number as f64)) as u64 };
            let up_to = if last { self.count() } else { self.count_up_to(upper) };
            let count = up_to.saturating_sub(before);
            before = before.max(up_to);
            (upper, count)
        };
        (1..=bars).map(bar).collect()
    }

    /// Number of samples that are at most `nanos`, within the resolution of the buckets.
    #[must_use]
    pub fn count_up_to(&self, nanos: u64) -> u64 {
        self.buckets.up_to(nanos.min(MAX_NANOS))
    }

    /// The distribution in a few numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            mean: self.mean(),
            min: self.min(),
            max: self.max(),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        samples.into_iter().for_each(|nanos| histogram.record(nanos));
        histogram
    }

    #[test]
    fn too_few_samples_give_no_quantile() {
        let needed = [0.5, 0.9, 0.95, 0.99, 0.999].map(samples_needed);
        assert_eq!(needed, [5, 29, 59, 299, 2_995]);
        assert_eq!(of(1..=298).summary().p99, None);
        let p99 = of(1..=299).summary().p99;
        assert_eq!(p99, Some(297));
        assert_eq!(of([]).summary(), Summary::default());
        assert_eq!(samples_needed(1.0), u64::MAX);
    }

    #[test]
    fn exact_numbers_stay_exact_beyond_the_range() {
        let day = 86_400_000_000_000;
        let histogram = of([0, day, day + 1]);
        assert_eq!(histogram.min(), Some(0));
        assert_eq!(histogram.max(), Some(day + 1));
        assert_eq!(histogram.mean(), Some((2 * day + 1) as f64 / 3.0));
        assert_eq!(histogram.count(), 3);
    }

    #[test]
    fn bars_hold_all_samples() {
        let bars = of((1..=1_000).map(|i| i * 1_000)).bars(8);
        assert_eq!(bars.len(), 8);
        assert_eq!(bars.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
        assert_eq!(bars[7].0, 1_000_000);
        assert!(bars[7].1 > bars[0].1, "wider ones hold more: {bars:?}");
        assert!(of([]).bars(8).is_empty());
    }

    #[test]
    fn clear_leaves_an_empty_one() {
        let mut histogram = of(1..1_000);
        histogram.clear();
        assert_eq!(histogram.summary(), Summary::default());
        histogram.record(7);
        assert_eq!((histogram.min(), histogram.max()), (Some(7), Some(7)));
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_samples(
            mut samples in prop::collection::vec(0..4_000_000_000_000u64, 3_000..4_000),
        ) {
            let summary = of(samples.iter().copied()).summary();
            samples.sort_unstable();
            let exact = |q: f64| {
                let rank = (q * samples.len() as f64).ceil() as usize;
                samples[rank.clamp(1, samples.len()) - 1].min(MAX_NANOS)
            };
            for (q, got) in [(0.5, summary.p50), (0.9, summary.p90), (0.999, summary.p999)] {
                let (got, exact) = (got.unwrap() as f64, exact(q) as f64);
                prop_assert!((got - exact).abs() <= exact * 1e-3 + 1.0, "{q}: {got} {exact}");
            }
        }

        #[test]
        fn merging_is_recording_all(
            a in prop::collection::vec(any::<u64>(), 0..100),
            b in prop::collection::vec(0..10_000u64, 0..3_100),
        ) {
            let mut merged = of(a.iter().copied());
            merged.merge(&of(b.iter().copied()));
            prop_assert_eq!(merged.summary(), of(b.into_iter().chain(a)).summary());
        }
    }
}
