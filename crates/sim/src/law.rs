use std::sync::Arc;

use gatewright_determinism::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long something takes: a law of random durations, all of them in seconds.
///
/// In a file: `service = { log_normal = { mean = 0.25, cv = 0.1 } }`. The coefficient of variation `cv` is the
/// standard deviation as a share of the mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Law {
    /// Always the same.
    Fixed(f64),
    /// Any duration between two bounds, all equally likely.
    Uniform {
        /// The shortest.
        min: f64,
        /// The longest.
        max: f64,
    },
    /// Without memory; its cv is 1.
    Exponential {
        /// Mean.
        mean: f64,
    },
    /// The exponential of a normal variable: what service times of most programs look like.
    LogNormal {
        /// Mean of the durations themselves, not of their logarithms.
        mean: f64,
        /// Coefficient of variation, at most 100.
        cv: f64,
    },
    /// Gamma.
    Gamma {
        /// Mean.
        mean: f64,
        /// Coefficient of variation, 0.001 to 100: the shape is 1 / cv^2.
        cv: f64,
    },
    /// The sum of `stages` equal exponential stages; its cv is 1 / sqrt(stages).
    Erlang {
        /// Mean.
        mean: f64,
        /// Number of stages, 1 to 1,000,000.
        stages: u32,
    },
    /// Weibull.
    Weibull {
        /// Mean.
        mean: f64,
        /// Shape, 0.1 to 100: below 1 its tail is heavier than the exponential's.
        shape: f64,
    },
    /// One of two exponential laws, drawn each time, each of which contributes half of the mean ("balanced
    /// means"): for a cv of 1 and above.
    Hyperexponential {
        /// Mean.
        mean: f64,
        /// Coefficient of variation, 1 to 100.
        cv: f64,
    },
    /// Measured durations, or as many means of equally large groups of them, in ascending order. Each counts
    /// the same; between the middles of two neighbours the law is linear. The law's mean is that of the table.
    Empirical(Vec<f64>),
    /// shift + scale exp(sigma Z) with Z normal, drawn again until it lies between `min` and `max`: how faas-sim and
    /// ether state measured times. At most 1,000 times; then it is moved to the nearer bound.
    ShiftedLogNormal {
        /// Standard deviation of the logarithm, 0 to 10.
        sigma: f64,
        /// What is added; may be negative.
        shift: f64,
        /// Median before that, above 0.
        scale: f64,
        /// Never shorter.
        min: f64,
        /// Never longer.
        max: f64,
    },
    /// Another law, whose durations are moved to the nearer bound where they lie beyond it.
    Bounded {
        /// The law.
        law: Box<Self>,
        /// Never shorter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        /// Never longer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
    },
}

/// What is wrong with a [`Law`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LawError(String);

/// A [`Law`] ready to be drawn from: its parameters are worked out once.
#[derive(Clone, Debug)]
pub struct Sampler {
    kind: Kind,
}

/// All in nanoseconds.
#[derive(Clone, Debug)]
enum Kind {
    Fixed(u64),
    Uniform { min: f64, width: f64 },
    Exponential { mean: f64 },
    LogNormal { mu: f64, sigma: f64 },
    Gamma { scale: f64, shape: f64 },
    Weibull { scale: f64, inverse_shape: f64 },
    Hyperexponential { probability: f64, means: [f64; 2] },
    Empirical(Arc<[f64]>),
    ShiftedLogNormal { sigma: f64, shift: f64, scale: f64, bounds: [f64; 2] },
    Bounded { law: Box<Self>, min: u64, max: u64 },
}

/// The longest duration that a law may name, in seconds: a year.
const LONGEST: f64 = 365.0 * 86_400.0;
/// Bounds within bounds are an accident.
const DEEPEST: u32 = 4;
const NANOS: f64 = 1e9;

impl Law {
    /// Whether it can be drawn from.
    ///
    /// # Errors
    /// A parameter out of range; the message names it and says what is allowed.
    pub fn check(&self) -> Result<(), LawError> {
        self.check_at(0)
    }

    fn check_at(&self, depth: u32) -> Result<(), LawError> {
        match *self {
            Self::Fixed(seconds) => check_seconds("fixed", "the duration", seconds),
            Self::Uniform { min, max } => {
                check_seconds("uniform", "min", min)?;
                check_seconds("uniform", "max", max)?;
                hold(min <= max, || "uniform: min is above max".to_owned())
            }
            Self::Exponential { mean } => check_seconds("exponential", "mean", mean),
            Self::LogNormal { mean, cv } => {
                check_seconds("log_normal", "mean", mean)?;
                check_range("log_normal", "cv", cv, 0.0, 100.0)
            }
            Self::Gamma { mean, cv } => {
                check_seconds("gamma", "mean", mean)?;
                check_range("gamma", "cv", cv, 0.001, 100.0)
            }
            Self::Erlang { mean, stages } => {
                check_seconds("erlang", "mean", mean)?;
                check_range("erlang", "stages", f64::from(stages), 1.0, 1e6)
            }
            Self::Weibull { mean, shape } => {
                check_seconds("weibull", "mean", mean)?;
                check_range("weibull", "shape", shape, 0.1, 100.0)
            }
            Self::Hyperexponential { mean, cv } => {
                check_seconds("hyperexponential", "mean", mean)?;
                check_range("hyperexponential", "cv", cv, 1.0, 100.0)
            }
            Self::Empirical(ref table) => check_table(table),
            Self::ShiftedLogNormal { sigma, shift, scale, min, max } => {
                check_range("shifted_log_normal", "sigma", sigma, 0.0, 10.0)?;
                check_range("shifted_log_normal", "shift", shift, -LONGEST, LONGEST)?;
                check_range("shifted_log_normal", "scale", scale, 1e-9, LONGEST)?;
                check_seconds("shifted_log_normal", "min", min)?;
                check_seconds("shifted_log_normal", "max", max)?;
                hold(min <= max, || "shifted_log_normal: min is above max".to_owned())
            }
            Self::Bounded { ref law, min, max } => {
                hold(depth < DEEPEST, || "bounded: bounds within bounds within bounds".to_owned())?;
                law.check_at(depth + 1)?;
                let (low, high) = (min.unwrap_or(0.0), max.unwrap_or(LONGEST));
                check_seconds("bounded", "min", low)?;
                check_seconds("bounded", "max", high)?;
                hold(low <= high, || "bounded: min is above max".to_owned())
            }
        }
    }

    /// The mean in seconds; none where there is no simple formula for it (bounded laws).
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        match *self {
            Self::Fixed(seconds) => Some(seconds),
            Self::Uniform { min, max } => Some(0.5 * (min + max)),
            Self::Exponential { mean }
            | Self::LogNormal { mean, .. }
            | Self::Gamma { mean, .. }
            | Self::Erlang { mean, .. }
            | Self::Weibull { mean, .. }
            | Self::Hyperexponential { mean, .. } => Some(mean),
            Self::Empirical(ref table) => Some(table.iter().sum::<f64>() / table.len() as f64),
            Self::ShiftedLogNormal { .. } | Self::Bounded { .. } => None,
        }
    }

    /// The law ready to be drawn from. One that does not pass [`Law::check`] gives durations without meaning.
    #[must_use]
    pub fn sampler(&self) -> Sampler {
        Sampler { kind: self.kind() }
    }

    fn kind(&self) -> Kind {
        match *self {
            Self::Fixed(seconds) => Kind::Fixed(whole(seconds * NANOS)),
            Self::Uniform { min, max } => {
                Kind::Uniform { min: min * NANOS, width: (max - min) * NANOS }
            }
            Self::Exponential { mean } => Kind::Exponential { mean: mean * NANOS },
            Self::LogNormal { mean, .. } | Self::Gamma { mean, .. } if mean == 0.0 => {
                Kind::Fixed(0)
            }
            Self::LogNormal { mean, cv } => {
                let variance = libm::log1p(cv * cv);
                let mu = libm::log(mean * NANOS) - 0.5 * variance;
                Kind::LogNormal { mu, sigma: variance.sqrt() }
            }
            Self::Gamma { mean, cv } => {
                Kind::Gamma { scale: mean * NANOS * cv * cv, shape: 1.0 / (cv * cv) }
            }
            Self::Erlang { mean, stages } => {
                let shape = f64::from(stages);
                Kind::Gamma { scale: mean * NANOS / shape, shape }
            }
            Self::Weibull { mean, shape } => Kind::Weibull {
                scale: mean * NANOS / libm::tgamma(1.0 + 1.0 / shape),
                inverse_shape: 1.0 / shape,
            },
            Self::Hyperexponential { mean, cv } => {
                let squared = cv * cv;
                let p = 0.5 * (1.0 + ((squared - 1.0) / (squared + 1.0)).sqrt());
                let mean = mean * NANOS;
                let means = [0.5 * mean / p, 0.5 * mean / (1.0 - p)];
                Kind::Hyperexponential { probability: p, means }
            }
            Self::Empirical(ref table) => {
                Kind::Empirical(table.iter().map(|seconds| seconds * NANOS).collect())
            }
            Self::ShiftedLogNormal { sigma, shift, scale, min, max } => Kind::ShiftedLogNormal {
                sigma,
                shift: shift * NANOS,
                scale: scale * NANOS,
                bounds: [min * NANOS, max * NANOS],
            },
            Self::Bounded { ref law, min, max } => Kind::Bounded {
                law: Box::new(law.kind()),
                min: whole(min.unwrap_or(0.0) * NANOS),
                max: max.map_or(u64::MAX, |max| whole(max * NANOS)),
            },
        }
    }
}

impl Sampler {
    /// A duration that is always the same.
    #[must_use]
    pub const fn fixed(nanos: u64) -> Self {
        Self { kind: Kind::Fixed(nanos) }
    }

    /// Whether every duration is zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        matches!(self.kind, Kind::Fixed(0))
    }

    /// One duration in nanoseconds, by the luck of `stream`.
    #[inline]
    #[must_use]
    pub fn draw(&self, stream: &mut Stream) -> u64 {
        // The two laws that take less time than a call.
        match &self.kind {
            Kind::Fixed(nanos) => *nanos,
            Kind::Exponential { mean } => whole(mean * stream.exponential()),
            other => other.draw(stream),
        }
    }
}

impl Kind {
    #[inline(never)]
    fn draw(&self, stream: &mut Stream) -> u64 {
        match self {
            Self::Fixed(nanos) => *nanos,
            Self::Uniform { min, width } => whole(min + width * stream.unit()),
            Self::Exponential { mean } => whole(mean * stream.exponential()),
            Self::LogNormal { mu, sigma } => whole(libm::exp(mu + sigma * stream.normal())),
            Self::Gamma { scale, shape } => whole(scale * gamma(*shape, stream)),
            Self::Weibull { scale, inverse_shape } => {
                whole(scale * libm::pow(stream.exponential(), *inverse_shape))
            }
            Self::Hyperexponential { probability, means } => {
                let branch = usize::from(stream.unit() >= *probability);
                whole(means[branch] * stream.exponential())
            }
            Self::Empirical(table) => whole(interpolate(table, stream.unit())),
            Self::ShiftedLogNormal { sigma, shift, scale, bounds } => {
                whole(within(*bounds, || shift + scale * libm::exp(sigma * stream.normal())))
            }
            Self::Bounded { law, min, max } => law.draw(stream).max(*min).min(*max),
        }
    }
}

/// The first of at most 1,000 draws within the bounds, else the last, moved to the nearer one.
fn within([min, max]: [f64; 2], mut draw: impl FnMut() -> f64) -> f64 {
    let mut value = draw();
    for _ in 1..1_000 {
        if (min..=max).contains(&value) {
            return value;
        }
        value = draw();
    }
    value.max(min).min(max)
}

/// Gamma with this shape and scale 1 (Marsaglia and Tsang, "A simple method for generating gamma variables",
/// 2000; below shape 1 by their section 6).
fn gamma(shape: f64, stream: &mut Stream) -> f64 {
    if shape < 1.0 {
        let luck = stream.open_unit();
        return gamma(shape + 1.0, stream) * libm::pow(luck, 1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let normal = stream.normal();
        let root = 1.0 + c * normal;
        if root <= 0.0 {
            continue;
        }
        let v = root * root * root;
        let limit = 0.5 * normal * normal + d - d * v + d * libm::log(v);
        if libm::log(stream.open_unit()) < limit {
            return d * v;
        }
    }
}

/// Value of an ascending table at probability `unit` in [0, 1): entry i stands at (i + 1/2) / n.
fn interpolate(table: &[f64], unit: f64) -> f64 {
    let last = table.len() - 1;
    let place = (unit * table.len() as f64 - 0.5).clamp(0.0, last as f64);
    let below = place as usize;
    let share = place - below as f64;
    let upper = table[(below + 1).min(last)];
    table[below] + share * (upper - table[below])
}

/// Nearest whole number of nanoseconds; `as` saturates, and turns not-a-number into zero.
fn whole(nanos: f64) -> u64 {
    (nanos + 0.5) as u64
}

fn hold(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), LawError> {
    if holds { Ok(()) } else { Err(LawError(otherwise())) }
}

fn check_seconds(law: &str, name: &str, seconds: f64) -> Result<(), LawError> {
    hold((0.0..=LONGEST).contains(&seconds), || {
        format!("{law}: {name} is {seconds}; give seconds, from 0 to a year")
    })
}

fn check_range(law: &str, name: &str, value: f64, low: f64, high: f64) -> Result<(), LawError> {
    hold((low..=high).contains(&value), || {
        format!("{law}: {name} is {value}; give {low} to {high}")
    })
}

fn check_table(table: &[f64]) -> Result<(), LawError> {
    hold(!table.is_empty(), || "empirical: the table is empty".to_owned())?;
    for &seconds in table {
        check_seconds("empirical", "a duration", seconds)?;
    }
    hold(table.is_sorted(), || "empirical: the durations are not in ascending order".to_owned())
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::Purpose;

    use super::*;

    fn draws(law: &Law, count: u64) -> Vec<f64> {
        law.check().unwrap();
        let sampler = law.sampler();
        let draw = |id| sampler.draw(&mut Stream::new(3, Purpose::Service, id)) as f64 / NANOS;
        (0..count).map(draw).collect()
    }

    fn moments(values: &[f64]) -> (f64, f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let central = |power| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        (mean, central(2), central(4))
    }

    /// Mean and variance within three standard errors, the variance's own from the fourth moment.
    fn assert_moments(law: &Law, mean: f64, cv: f64) {
        let values = draws(law, 200_000);
        let (found, variance, fourth) = moments(&values);
        let n = values.len() as f64;
        let expected = (mean * cv) * (mean * cv);
        assert!(
            (found - mean).abs() <= 3.0 * (variance / n).sqrt() + 1e-9,
            "{law:?}: mean {found}"
        );
        let error = ((fourth - variance * variance).max(0.0) / n).sqrt();
        assert!(
            (variance - expected).abs() <= 3.0 * error + 1e-12,
            "{law:?}: {variance} not {expected}"
        );
        assert!(law.mean().is_none_or(|stated| (stated - mean).abs() < 1e-12), "{law:?}");
    }

    #[test]
    fn moments_are_as_stated() {
        assert_moments(&Law::Fixed(0.25), 0.25, 0.0);
        assert_moments(&Law::Uniform { min: 0.5, max: 1.5 }, 1.0, (1.0f64 / 12.0).sqrt());
        assert_moments(&Law::Exponential { mean: 0.2 }, 0.2, 1.0);
        assert_moments(&Law::LogNormal { mean: 0.25, cv: 0.4 }, 0.25, 0.4);
        for cv in [0.3, 1.0, 1.8] {
            assert_moments(&Law::Gamma { mean: 2.0, cv }, 2.0, cv);
        }
        assert_moments(&Law::Erlang { mean: 1.0, stages: 2 }, 1.0, 0.5f64.sqrt());
        // Weibull of shape 2 (Rayleigh): variance / mean^2 = 4 / pi - 1.
        let rayleigh = (4.0 / std::f64::consts::PI - 1.0).sqrt();
        assert_moments(&Law::Weibull { mean: 3.0, shape: 2.0 }, 3.0, rayleigh);
        assert_moments(&Law::Hyperexponential { mean: 1.0, cv: 2.0 }, 1.0, 2.0);
        assert_moments(&Law::Hyperexponential { mean: 1.0, cv: 1.0 }, 1.0, 1.0);
    }

    #[test]
    fn exponential_quantiles_are_logarithms() {
        let mut values = draws(&Law::Exponential { mean: 1.0 }, 100_000);
        values.sort_by(f64::total_cmp);
        for p in [0.1f64, 0.5, 0.9, 0.99] {
            let found = values[(p * values.len() as f64) as usize];
            // Standard error of a quantile: sqrt(p (1 - p) / n) over the density, which is 1 - p here.
            let error = (p / (1.0 - p) / values.len() as f64).sqrt();
            assert!((found + (1.0 - p).ln()).abs() < 3.0 * error, "p{p}: {found}");
        }
    }

    #[test]
    fn empirical_keeps_the_mean_and_the_range_of_its_table() {
        let table = vec![0.1, 0.2, 0.2, 0.4, 1.6];
        let law = Law::Empirical(table.clone());
        let values = draws(&law, 200_000);
        let (mean, variance, _) = moments(&values);
        assert!((mean - 0.5).abs() < 3.0 * (variance / values.len() as f64).sqrt(), "{mean}");
        assert!(values.iter().all(|value| (0.1..=1.6).contains(value)));
        assert_eq!(interpolate(&table, 0.5), 0.2);
        assert!((interpolate(&table, 0.8) - 1.0).abs() < 1e-12);
        assert_eq!(draws(&Law::Empirical(vec![0.3]), 3), [0.3; 3]);
    }

    #[test]
    fn bounds_are_kept() {
        let law = Law::Exponential { mean: 1.0 };
        let law = Law::Bounded { law: Box::new(law), min: Some(0.5), max: Some(2.0) };
        let values = draws(&law, 10_000);
        assert!(values.iter().all(|value| (0.5..=2.0).contains(value)));
        assert!(values.contains(&0.5) && values.contains(&2.0));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_named() {
        let message = |law: Law| law.check().unwrap_err().to_string();
        assert_eq!(
            message(Law::Fixed(-1.0)),
            "fixed: the duration is -1; give seconds, from 0 to a year"
        );
        assert_eq!(message(Law::Gamma { mean: 1.0, cv: 0.0 }), "gamma: cv is 0; give 0.001 to 100");
        assert_eq!(message(Law::Empirical(vec![])), "empirical: the table is empty");
        assert!(message(Law::Empirical(vec![2.0, 1.0])).contains("ascending"));
        assert!(message(Law::Exponential { mean: f64::NAN }).contains("mean is NaN"));
        assert!(message(Law::Hyperexponential { mean: 1.0, cv: 0.5 }).contains("give 1 to 100"));
        let mut nested = Law::Fixed(1.0);
        for _ in 0..10 {
            nested = Law::Bounded { law: Box::new(nested), min: None, max: None };
        }
        assert!(message(nested).contains("bounds within bounds"));
    }

    #[test]
    fn files_spell_every_law() {
        let read = |text: &str| {
            toml::from_str::<std::collections::BTreeMap<String, Law>>(&format!("law = {text}"))
                .map(|mut read| read.remove("law").unwrap())
        };
        let laws = [
            ("{ fixed = 1 }", Law::Fixed(1.0)),
            ("{ empirical = [1, 2.5] }", Law::Empirical(vec![1.0, 2.5])),
            ("{ erlang = { mean = 1, stages = 3 } }", Law::Erlang { mean: 1.0, stages: 3 }),
            (
                "{ bounded = { law = { exponential = { mean = 2 } }, max = 3 } }",
                Law::Bounded {
                    law: Box::new(Law::Exponential { mean: 2.0 }),
                    min: None,
                    max: Some(3.0),
                },
            ),
        ];
        for (text, law) in laws {
            assert_eq!(read(text).unwrap(), law, "{text}");
            let json = serde_json::to_string(&law).unwrap();
            assert_eq!(serde_json::from_str::<Law>(&json).unwrap(), law);
        }
        for text in
            ["{ lognormal = { mean = 1, cv = 1 } }", "{ exponential = { mean = 1, cv = 1 } }", "1"]
        {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}
