use gatewright_determinism::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::student_t;

/// How far one mean is from another, with a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Second less first.
    pub difference: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Hedges' g: the difference in standard deviations of single samples, corrected for few of them. From 0.2 it
    /// is called small, from 0.8 large (Cohen, 1988). None if the samples do not vary.
    pub effect_size: Option<f64>,
}

/// The difference of the means of two independent samples with unequal variances: Welch (1947), with the degrees of
/// freedom rounded down. `confidence` is in (0, 1). None with fewer than two samples on either side.
#[must_use]
pub fn welch(first: &[f64], second: &[f64], confidence: f64) -> Option<Difference> {
    let (one, two) = (Moments::of(first)?, Moments::of(second)?);
    let (a, b) = (one.variance / one.n, two.variance / two.n);
    let error = (a + b).sqrt();
    let freedom = if error > 0.0 {
        (a + b) * (a + b) / (a * a / (one.n - 1.0) + b * b / (two.n - 1.0))
    } else {
        one.n + two.n - 2.0
    };
    let half =
        if error > 0.0 { student_t(confidence, freedom.max(1.0) as u32) * error } else { 0.0 };
    let difference = two.mean - one.mean;
    let freedom = one.n + two.n - 2.0;
    let pooled = ((one.n - 1.0) * one.variance + (two.n - 1.0) * two.variance) / freedom;
    // Hedges (1981): for few samples the plain ratio is too large.
    let correction = 1.0 - 3.0 / (4.0 * freedom - 1.0);
    let effect_size = (pooled > 0.0).then(|| difference / pooled.sqrt() * correction);
    Some(Difference { difference, low: difference - half, high: difference + half, effect_size })
}

/// An interval of the difference of two means that supposes no distribution: percentiles of the differences of samples that
/// are drawn from the samples, with replacement (Efron, 1979). `confidence` is in (0, 1). The same seed gives the same
/// interval. None with fewer than three samples on either side, of which it would know next to nothing.
///
/// With few samples it is too narrow, by a factor of about sqrt(1 - 1/n): read it beside [`welch`]'s.
#[must_use]
pub fn bootstrap(first: &[f64], second: &[f64], confidence: f64, seed: u64) -> Option<(f64, f64)> {
    if first.len().min(second.len()) < LEAST_DRAWN {
        return None;
    }
    let mut differences: Vec<f64> = (0..DRAWS)
        .map(|draw| {
            let mut stream = Stream::new(seed, Purpose::Resample, draw);
            let mut mean = |samples: &[f64]| {
                let n = samples.len() as u64;
                let drawn = (0..n).map(|_| samples[stream.below(n) as usize]);
                drawn.sum::<f64>() / n as f64
            };
            let before = mean(first);
            mean(second) - before
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    let tail = ((1.0 - confidence) / 2.0 * DRAWS as f64) as usize;
    Some((differences[tail], differences[differences.len() - 1 - tail]))
}

const LEAST_DRAWN: usize = 3;
const DRAWS: u64 = 4_000;

struct Moments {
    n: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(samples: &[f64]) -> Option<Self> {
        if samples.len() < 2 {
            return None;
        }
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let squares = samples.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
        Some(Self { n, mean, variance: squares / (n - 1.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R: t.test(b, a) of these two samples.
    #[test]
    fn agrees_with_r() {
        let a = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7,
            21.4,
        ];
        let b = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5,
            24.4,
        ];
        let told = welch(&a, &b, 0.95).unwrap();
        // t = 2.46, df = 25 (24.99 rounds down to 24), 95 % interval 0.35 to 4.0 (Wikipedia, example 1).
        assert!((told.difference - 2.1667).abs() < 0.4, "{told:?}");
        assert!(told.low > 0.0 && told.high < 4.1, "{told:?}");
        assert!(told.effect_size.unwrap() > 0.8);
    }

    #[test]
    fn intervals_cover_no_difference_as_often_as_they_say() {
        let (runs, mut covered) = (1_000, 0);
        for run in 0..runs {
            let mut stream = Stream::new(4, Purpose::Resample, run);
            let a: Vec<_> = (0..4).map(|_| stream.normal()).collect();
            let b: Vec<_> = (0..6).map(|_| 3.0 * stream.normal()).collect();
            let told = welch(&a, &b, 0.95).unwrap();
            covered += u32::from(told.low <= 0.0 && told.high >= 0.0);
        }
        assert!((930..=980).contains(&covered), "{covered} of {runs}");
    }

    #[test]
    fn drawing_again_and_again_agrees_with_welch_where_there_are_many() {
        let mut stream = Stream::new(4, Purpose::Resample, 0);
        let a: Vec<_> = (0..200).map(|_| stream.normal()).collect();
        let b: Vec<_> = (0..300).map(|_| 1.0 + stream.normal()).collect();
        let (low, high) = bootstrap(&a, &b, 0.95, 1).unwrap();
        let told = welch(&a, &b, 0.95).unwrap();
        assert!(
            (low - told.low).abs() < 0.02 && (high - told.high).abs() < 0.02,
            "{low} {high} {told:?}"
        );
        assert_eq!(bootstrap(&a, &b, 0.95, 1), Some((low, high)));
        assert_ne!(bootstrap(&a, &b, 0.95, 2), Some((low, high)));
        assert_eq!(bootstrap(&a[..2], &b, 0.95, 1), None);
    }

    #[test]
    fn too_little_tells_nothing() {
        assert_eq!(welch(&[1.0], &[1.0, 2.0], 0.95), None);
        let same = welch(&[2.0, 2.0], &[3.0, 3.0], 0.95).unwrap();
        assert_eq!((same.low, same.high, same.effect_size), (1.0, 1.0, None));
    }
}
