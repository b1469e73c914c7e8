use gatewright_determinism::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the gaps between requests vary around their mean.
///
/// In configuration: `"constant"`, `"poisson"`, `{ gamma = { cv = 2 } }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Gaps {
    /// Not at all: evenly spaced.
    Constant,
    /// Independent and exponentially distributed: many users who know nothing of one another.
    #[default]
    Poisson,
    /// Independent and gamma distributed.
    Gamma {
        /// Coefficient of variation (standard deviation over mean), 0.01 to 30: above 1 is burstier than Poisson,
        /// below 1 smoother. What others call burstiness, the shape of the distribution, is 1 / cv^2.
        #[schemars(range(min = 0.01, max = 30.0))]
        cv: f64,
    },
}

/// The smallest coefficient of variation of gamma distributed gaps.
pub const MIN_CV: f64 = 0.01;
/// The largest coefficient of variation of gamma distributed gaps.
pub const MAX_CV: f64 = 30.0;

/// Draws gaps with mean 1.
#[derive(Clone, Debug)]
pub(crate) enum GapSampler {
    Constant,
    Exponential(Stream),
    Gamma(Gamma, Stream),
}

impl Gaps {
    pub(crate) fn sampler(self, stream: Stream) -> GapSampler {
        match self {
            Self::Constant => GapSampler::Constant,
            Self::Poisson => GapSampler::Exponential(stream),
            Self::Gamma { cv } => GapSampler::Gamma(Gamma::with_cv(cv), stream),
        }
    }
}

impl GapSampler {
    pub(crate) fn draw(&mut self) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Exponential(stream) => stream.exponential(),
            Self::Gamma(gamma, stream) => gamma.draw(stream),
        }
    }

    /// Whether the gap before the first request is none: an even schedule begins at the start.
    pub(crate) const fn begins_at_start(&self) -> bool {
        matches!(self, Self::Constant)
    }
}

/// A gamma distribution with mean 1, drawn by Marsaglia and Tsang, "A simple method for generating gamma
/// variables", ACM TOMS 26(3), 2000; a shape below 1 by their remark: G(a) = G(a + 1) U^(1/a).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gamma {
    /// Shape less a third, of the distribution that is drawn (shape + 1, if shape is below 1).
    d: f64,
    c: f64,
    /// 1 / shape, if the shape is below 1.
    boost: Option<f64>,
    scale: f64,
}

impl Gamma {
    /// A coefficient of variation outside [`MIN_CV`]..=[`MAX_CV`] is moved into it.
    pub(crate) fn with_cv(cv: f64) -> Self {
        let cv = if cv.is_nan() { 1.0 } else { cv.clamp(MIN_CV, MAX_CV) };
        let scale = cv * cv;
        let shape = 1.0 / scale;
        let boost = (shape < 1.0).then_some(scale);
        let drawn = if boost.is_some() { shape + 1.0 } else { shape };
        let d = drawn - 1.0 / 3.0;
        Self { d, c: 1.0 / (9.0 * d).sqrt(), boost, scale }
    }

    pub(crate) fn draw(&self, stream: &mut Stream) -> f64 {
        let large = loop {
            let normal = stream.normal();
            let root = 1.0 + self.c * normal;
            if root <= 0.0 {
                continue;
            }
            let cube = root * root * root;
            let bound = 0.5 * normal * normal + self.d * (1.0 - cube + libm::log(cube));
            if libm::log(stream.open_unit()) < bound {
                break self.d * cube;
            }
        };
        let boosted = match self.boost {
            Some(power) => large * libm::pow(stream.open_unit(), power),
            None => large,
        };
        boosted * self.scale
    }
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::Purpose;

    use super::*;

    #[test]
    fn gamma_has_its_mean_and_variation() {
        for cv in [0.1, 0.5, 1.0, 2.0, 4.0] {
            let gamma = Gamma::with_cv(cv);
            let mut stream = Stream::new(3, Purpose::Arrival, 1);
            let n = 400_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..n {
                let value = gamma.draw(&mut stream);
                sum += value;
                squares += value * value;
            }
            let mean = sum / f64::from(n);
            let variance = squares / f64::from(n) - mean * mean;
            let error = cv / f64::from(n).sqrt();
            assert!((mean - 1.0).abs() < 4.0 * error, "cv {cv}: mean {mean}");
            // The fourth central moment of a gamma law of mean 1 is 3 cv^4 + 6 cv^6.
            let error = (2.0 * cv.powi(4) + 6.0 * cv.powi(6)).sqrt() / f64::from(n).sqrt();
            assert!((variance - cv * cv).abs() < 4.0 * error, "cv {cv}: variance {variance}");
        }
    }
}
