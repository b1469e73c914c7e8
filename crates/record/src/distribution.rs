use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::LatencyHistogram;
use crate::estimate::binomial_at_least;

/// A distribution in the numbers that reports show: moments, quantiles with how far they may be off, and a curve.
///
/// Times are in nanoseconds; distributions of counts (tokens) have no unit. What the samples cannot tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Number of samples.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Standard deviation of the samples, within 0.1 %.
    pub std_dev: Option<f64>,
    /// The value that was seen most often, to three digits.
    pub mode: Option<u64>,
    /// Smallest sample.
    pub min: Option<u64>,
    /// Largest sample.
    pub max: Option<u64>,
    /// Sum of all samples.
    pub sum: f64,
    /// The quantiles that so many samples can tell.
    pub quantiles: Vec<Quantile>,
    /// Points of the cumulative distribution: a value, and the part of the samples that are at most it.
    pub curve: Vec<(u64, f64)>,
}

/// A quantile and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quantile {
    /// Which one, 0 to 1.
    pub q: f64,
    /// Its estimate: the smallest sample that at least this part of the samples do not exceed.
    pub value: u64,
    /// Lower end of its interval. Ends are order statistics, by the binomial distribution, so they hold whatever
    /// the distribution is, for independent samples.
    pub low: u64,
    /// Upper end of its interval; none if so few samples cannot bound it.
    pub high: Option<u64>,
}

/// The quantiles of a [`Distribution`].
pub const QUANTILES: [f64; 12] =
    [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999];

const MISSED: f64 = 0.025;
/// Points of a curve: enough for a line on a screen.
const CURVE: usize = 120;

impl Distribution {
    /// What `histogram` holds.
    #[must_use]
    pub fn of(histogram: &LatencyHistogram) -> Self {
        let count = histogram.count();
        if count == 0 {
            return Self::default();
        }
        Self {
            count,
            mean: histogram.mean(),
            std_dev: histogram.std_dev(),
            mode: histogram.mode(),
            min: histogram.min(),
            max: histogram.max(),
            sum: histogram.mean().unwrap_or_default() * count as f64,
            quantiles: QUANTILES.iter().filter_map(|&q| quantile(histogram, q)).collect(),
            curve: curve(histogram),
        }
    }

    /// One of [`QUANTILES`], if it is told.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let found = self.quantiles.iter().find(|quantile| (quantile.q - q).abs() < 1e-9);
        found.map(|quantile| quantile.value as f64)
    }
}

/// Quantile `q` with its interval; none with too few samples on either side (below the median, what lies out
/// there is the small ones).
fn quantile(histogram: &LatencyHistogram, q: f64) -> Option<Quantile> {
    let n = histogram.count();
    if n < crate::samples_needed(q.max(1.0 - q)) {
        return None;
    }
    let value = histogram.quantile_of_any(q);
    // Order statistic r lies above the true quantile with the probability that fewer than r samples lie below it.
    let below = |rank: u64| 1.0 - binomial_at_least(n, q, rank);
    let low = last_rank(n, |rank| below(rank) <= MISSED);
    let high = first_rank(n, |rank| 1.0 - below(rank) <= MISSED);
    Some(Quantile {
        q,
        value,
        low: low
            .map_or_else(|| histogram.min().unwrap_or_default(), |rank| histogram.at_rank(rank)),
        high: high.map(|rank| histogram.at_rank(rank)),
    })
}

/// The last rank, 1 to n, that fits; those that fit come first.
fn last_rank(n: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let first = first_rank(n, |rank| !fits(rank)).unwrap_or(n + 1);
    first.checked_sub(1).filter(|rank| *rank > 0)
}

/// The first rank, 1 to n, that fits; those that fit come last.
fn first_rank(n: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut low, mut high) = (1, n + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    (low <= n).then_some(low)
}

/// Points evenly spaced in rank, and closer to the end, where the tail is.
fn curve(histogram: &LatencyHistogram) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::with_capacity(CURVE);
    let n = histogram.count() as f64;
    let body = (0..=CURVE / 2).map(|step| step as f64 / (CURVE / 2) as f64 * 0.95);
    // From 0.95 on each step takes the same part of what is left.
    let tail = (1..CURVE / 2).map(|step| 1.0 - 0.05 * libm::pow(0.85, step as f64));
    for share in body.chain(tail) {
        if (1.0 - share) * n < 0.5 {
            break;
        }
        let value = histogram.quantile_of_any(share);
        match points.last_mut() {
            Some(last) if last.0 == value => last.1 = share,
            _ => points.push((value, share)),
        }
    }
    let max = histogram.max().unwrap_or_default();
    match points.last_mut() {
        Some(last) if last.0 == max => last.1 = 1.0,
        _ => points.push((max, 1.0)),
    }
    points
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};

    use super::*;

    fn of(samples: impl IntoIterator<Item = u64>) -> Distribution {
        let mut histogram = LatencyHistogram::new();
        samples.into_iter().for_each(|nanos| histogram.record(nanos));
        Distribution::of(&histogram)
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        // n = 100, median: order statistics 40 and 61 cover 96.5 % (Hahn and Meeker, Statistical Intervals).
        let told = of(1..=100);
        let median = told.quantiles.iter().find(|quantile| quantile.q == 0.5).unwrap();
        assert_eq!((median.low, median.value, median.high), (40, 50, Some(61)));
        assert_eq!(told.quantile(0.99), None, "too few for it");
        assert_eq!(told.quantile(0.01), None);
        assert_eq!(
            (told.mean, told.min, told.max, told.sum),
            (Some(50.5), Some(1), Some(100), 5050.0)
        );
        assert!((told.std_dev.unwrap() - 28.87).abs() < 0.05);
        assert_eq!(of([]), Distribution::default());
        let p95 = of(1..=60).quantiles.iter().find(|quantile| quantile.q == 0.95).copied();
        assert_eq!(p95.map(|quantile| quantile.high), Some(None), "no sample bounds it from above");
    }

    #[test]
    fn intervals_cover_the_true_quantile() {
        let (runs, mut covered) = (400, 0);
        for run in 0..runs {
            let mut stream = Stream::new(3, Purpose::Resample, run);
            let told = of((0..1_000).map(|_| (stream.exponential() * 1e6) as u64));
            let p90 = told.quantiles.iter().find(|quantile| quantile.q == 0.9).unwrap();
            let truth = (std::f64::consts::LN_10 * 1e6) as u64;
            covered += u32::from((p90.low..=p90.high.unwrap()).contains(&truth));
        }
        assert!((368..=396).contains(&covered), "{covered} of {runs}");
    }

    #[test]
    fn curves_rise_to_one() {
        let told = of((1..=100_000).map(|i| i * 10));
        assert!(told.curve.len() > 80 && told.curve.len() <= CURVE + 1, "{}", told.curve.len());
        assert!(told.curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
        assert_eq!(told.curve.last(), Some(&(1_000_000, 1.0)));
        assert_eq!(of([7; 50]).curve, [(7, 1.0)]);
    }
}
