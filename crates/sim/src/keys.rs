use gatewright_control::config::ConfigError;
use gatewright_determinism::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which keys a cache is asked for, and how often. Requests choose independently of one another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Keys {
    /// All equally often.
    Uniform {
        /// Number of keys, 1 to 1,000,000.
        count: u32,
    },
    /// The key of rank r in proportion to 1 / r^exponent (Zipf).
    Zipf {
        /// Number of keys, 1 to 1,000,000.
        count: u32,
        /// Exponent, 0 to 10; web pages have 0.6 to 1.
        exponent: f64,
    },
    /// Each as often as was counted.
    Frequencies {
        /// Relative frequency of each of the most popular keys.
        weights: Vec<f64>,
        /// Number of further keys, that share `rest_weight` equally.
        #[serde(default)]
        rest_keys: u32,
        /// Relative frequency of all further keys together.
        #[serde(default)]
        rest_weight: f64,
    },
}

/// The largest number of keys of one cached function.
pub const MAX_KEYS: u32 = 1_000_000;

impl Keys {
    /// Checks the numbers; `at` names the place for the message.
    ///
    /// # Errors
    /// The first one out of range.
    pub(crate) fn check(&self, at: &str) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(at, what, None));
        let known = 1..=u64::from(MAX_KEYS);
        if !known.contains(&self.count()) {
            return wrong(&format!("there are {} keys; give 1 to {MAX_KEYS}", self.count()));
        }
        match self {
            Self::Uniform { .. } => Ok(()),
            Self::Zipf { exponent, .. } if (0.0..=10.0).contains(exponent) => Ok(()),
            Self::Zipf { exponent, .. } => wrong(&format!("exponent is {exponent}; give 0 to 10")),
            Self::Frequencies { weights, rest_keys, rest_weight } => {
                let mut all = weights.iter().chain([rest_weight]);
                if !all.all(|weight| weight.is_finite() && *weight >= 0.0) {
                    return wrong("a weight is negative or no number");
                }
                if (*rest_keys == 0) != (*rest_weight == 0.0) {
                    return wrong("give `rest_keys` and `rest_weight`, or neither");
                }
                let total = weights.iter().sum::<f64>() + rest_weight;
                if total > 0.0 { Ok(()) } else { wrong("all weights are 0") }
            }
        }
    }

    /// Number of keys.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Uniform { count } | Self::Zipf { count, .. } => u64::from(*count),
            Self::Frequencies { weights, rest_keys, .. } => {
                weights.len() as u64 + u64::from(*rest_keys)
            }
        }
    }

    pub(crate) fn sampler(&self) -> KeySampler {
        match self {
            Self::Uniform { count } => KeySampler { cumulative: Vec::new(), rest: *count },
            Self::Zipf { count, exponent } => {
                let weight = |rank: u32| libm::pow(f64::from(rank), -exponent);
                KeySampler { cumulative: cumulate((1..=*count).map(weight), 0.0), rest: 0 }
            }
            Self::Frequencies { weights, rest_keys, rest_weight } => KeySampler {
                cumulative: cumulate(weights.iter().copied(), *rest_weight),
                rest: *rest_keys,
            },
        }
    }
}

/// Draws keys, numbered from 0.
#[derive(Clone, Debug)]
pub(crate) struct KeySampler {
    /// Probability of this key or an earlier one; what is missing to 1 is that of the rest.
    cumulative: Vec<f64>,
    rest: u32,
}

impl KeySampler {
    pub(crate) fn draw(&self, stream: &mut Stream) -> u32 {
        let unit = if self.cumulative.is_empty() { 1.0 } else { stream.unit() };
        let found = self.cumulative.partition_point(|below| *below <= unit) as u32;
        if found < self.cumulative.len() as u32 || self.rest == 0 {
            return found.min(self.cumulative.len().saturating_sub(1) as u32);
        }
        found + stream.below(u64::from(self.rest)) as u32
    }
}

fn cumulate(weights: impl Iterator<Item = f64> + Clone, rest: f64) -> Vec<f64> {
    let total = weights.clone().sum::<f64>() + rest;
    let mut sum = 0.0;
    let add = |weight: f64| {
        sum += weight;
        sum / total
    };
    weights.map(add).collect()
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::Purpose;

    use super::*;

    fn shares(keys: &Keys) -> Vec<f64> {
        keys.check("here").unwrap();
        let sampler = keys.sampler();
        let n = 200_000;
        let mut counts = vec![0.0; keys.count() as usize];
        for id in 0..n {
            counts[sampler.draw(&mut Stream::new(1, Purpose::Content, id)) as usize] += 1.0;
        }
        counts.iter().map(|count| count / n as f64).collect()
    }

    fn assert_shares(keys: &Keys, expected: &[f64]) {
        for (found, expected) in shares(keys).iter().zip(expected) {
            let error = (expected * (1.0 - expected) / 200_000.0).sqrt();
            assert!((found - expected).abs() <= 3.5 * error, "{keys:?}: {found} not {expected}");
        }
    }

    #[test]
    fn keys_are_as_popular_as_stated() {
        assert_shares(&Keys::Uniform { count: 4 }, &[0.25; 4]);
        let harmonic = 1.0 + 0.5 + 1.0 / 3.0;
        let zipf = [1.0 / harmonic, 0.5 / harmonic, 1.0 / 3.0 / harmonic];
        assert_shares(&Keys::Zipf { count: 3, exponent: 1.0 }, &zipf);
        let counted = Keys::Frequencies { weights: vec![6.0, 2.0], rest_keys: 4, rest_weight: 2.0 };
        assert_shares(&counted, &[0.6, 0.2, 0.05, 0.05, 0.05, 0.05]);
        let alone = Keys::Frequencies { weights: vec![1.0], rest_keys: 0, rest_weight: 0.0 };
        assert_shares(&alone, &[1.0]);
    }
}
