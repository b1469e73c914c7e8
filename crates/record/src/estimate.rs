use serde::{Deserialize, Serialize};

/// A mean and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimated mean, in the unit of the samples.
    pub mean: f64,
    /// Its standard error, in the same unit.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error: the number of batches less one.
    pub degrees_of_freedom: u32,
}

/// Why there is no [`Estimate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// A variance takes at least two batches.
    #[error("{0} batches give no standard error; take at least 2 (20 to 30 is usual)")]
    TooFewBatches(u32),
    /// Each batch needs at least one sample.
    #[error("{samples} samples do not fill {batches} batches; take more samples or fewer batches")]
    TooFewSamples {
        /// Samples that were given.
        samples: usize,
        /// Batches that were asked for.
        batches: u32,
    },
}

/// Mean of a correlated series, by batch means (Conway, 1963): the series is cut into `batches` runs of equal
/// length, whose means are nearly independent if the batches are long against the correlation. What is left
/// over by the division is dropped from the front, where the start-up is.
///
/// # Errors
/// Fewer than two batches, or fewer samples than batches.
pub fn batch_means(samples: &[f64], batches: u32) -> Result<Estimate, EstimateError> {
    if batches < 2 {
        return Err(EstimateError::TooFewBatches(batches));
    }
    let size = samples.len() / batches as usize;
    if size == 0 {
        return Err(EstimateError::TooFewSamples { samples: samples.len(), batches });
    }
    let used = &samples[samples.len() - size * batches as usize..];
    let means = used.chunks_exact(size).map(|batch| batch.iter().sum::<f64>() / size as f64);
    let mean = means.clone().sum::<f64>() / f64::from(batches);
    let squares = means.map(|batch| (batch - mean) * (batch - mean)).sum::<f64>();
    let degrees_of_freedom = batches - 1;
    let variance = squares / f64::from(degrees_of_freedom);
    let standard_error = (variance / f64::from(batches)).sqrt();
    Ok(Estimate { mean, standard_error, degrees_of_freedom })
}

impl Estimate {
    /// Half the width of the confidence interval around the mean, by Student's t. `confidence` is in (0, 1),
    /// usually 0.95; outside, the answer is 0 or infinite.
    #[must_use]
    pub fn half_width(&self, confidence: f64) -> f64 {
        student_t(confidence, self.degrees_of_freedom) * self.standard_error
    }
}

/// The number t for which a Student-t variable with `degrees_of_freedom` lies within -t..t with probability
/// `confidence`. Infinite for a confidence of 1 or without a degree of freedom, 0 for a confidence of 0.
#[must_use]
pub fn student_t(confidence: f64, degrees_of_freedom: u32) -> f64 {
    if confidence >= 1.0 || degrees_of_freedom == 0 {
        return f64::INFINITY;
    }
    if confidence <= 0.0 {
        return 0.0;
    }
    let within = |t: f64| 1.0 - outside(t, f64::from(degrees_of_freedom));
    let mut high = 1.0;
    while within(high) < confidence && high < 1e300 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Each step halves the bracket: after 64 it is below the last bit.
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if within(middle) < confidence { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Probability that of `n` trials that succeed with probability `p` (0 < p < 1) at least `k` do: the regularised
/// incomplete beta function I_p(k, n - k + 1) (Abramowitz and Stegun 26.5.24).
pub(crate) fn binomial_at_least(n: u64, p: f64, k: u64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    incomplete_beta(k as f64, (n - k + 1) as f64, p)
}

/// Probability that a Student-t variable with `freedom` degrees of freedom lies outside -t..t: the regularised
/// incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2) (Abramowitz and Stegun
/// 26.7.1).
fn outside(t: f64, freedom: f64) -> f64 {
    incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + t * t))
}

/// The regularised incomplete beta function I_x(a, b).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    let log_front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)
        + a * libm::log(x)
        + b * libm::log1p(-x);
    let front = libm::exp(log_front);
    // The fraction converges fast below the mean of the beta distribution; above, by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    }
}

/// Continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), evaluated by Lentz's
/// method.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};
    use proptest::prelude::*;

    use super::*;

    /// From the table in Abramowitz and Stegun (26.10) and its usual extensions.
    #[test]
    fn student_t_agrees_with_the_tables() {
        let table = [
            (0.95, 1, 12.706_205),
            (0.95, 2, 4.302_653),
            (0.99, 5, 4.032_143),
            (0.95, 10, 2.228_139),
            (0.9, 19, 1.729_133),
            (0.95, 30, 2.042_272),
            (0.999, 30, 3.645_959),
            (0.95, 1_000, 1.962_339),
            (0.95, 1_000_000, 1.959_966),
        ];
        for (confidence, freedom, expected) in table {
            let t = student_t(confidence, freedom);
            assert!((t - expected).abs() < 2e-6, "{confidence} {freedom}: {t}");
        }
        assert_eq!(student_t(0.0, 3), 0.0);
        assert_eq!(student_t(1.0, 3), f64::INFINITY);
        assert_eq!(student_t(0.5, 0), f64::INFINITY);
    }

    #[test]
    fn too_little_gives_no_estimate() {
        assert_eq!(batch_means(&[1.0; 9], 1), Err(EstimateError::TooFewBatches(1)));
        let error = EstimateError::TooFewSamples { samples: 9, batches: 10 };
        assert_eq!(batch_means(&[1.0; 9], 10), Err(error));
    }

    #[test]
    fn what_does_not_fill_a_batch_is_dropped_from_the_front() {
        let estimate = batch_means(&[100.0, 1.0, 3.0, 5.0, 7.0], 2).unwrap();
        assert_eq!(estimate.mean, 4.0);
        assert_eq!(estimate.standard_error, 2.0);
    }

    /// A first-order autoregressive series with mean 0: batch means must cover it about 95 times in 100, while
    /// taking the samples as independent covers far less.
    #[test]
    fn intervals_cover_the_mean_of_a_correlated_series() {
        let runs = 400;
        let mut covered = [0; 2];
        for run in 0..runs {
            let mut stream = Stream::new(5, Purpose::Resample, run);
            let mut x = 0.0;
            let mut step = || {
                x = 0.9 * x + stream.normal();
                x
            };
            let series: Vec<f64> = (0..10_000).map(|_| step()).collect();
            for (covered, batches) in covered.iter_mut().zip([20, 10_000]) {
                let estimate = batch_means(&series, batches).unwrap();
                *covered += u32::from(estimate.mean.abs() < estimate.half_width(0.95));
            }
        }
        assert!((366..=394).contains(&covered[0]), "{covered:?} of {runs}");
        assert!(covered[1] < 250, "{covered:?} of {runs}");
    }

    proptest! {
        #[test]
        fn more_confidence_is_wider(a in 0.01..0.99f64, b in 0.01..0.99f64, freedom in 1..500u32) {
            prop_assert_eq!(a < b, student_t(a, freedom) < student_t(b, freedom));
        }
    }
}
