//! Samples of times, and what is made of them.

use gatewright_sim::Law;

/// Durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    nanos: Vec<u64>,
}

/// Entries of an empirical law at most.
const ENTRIES: usize = 1_000;

impl Sample {
    pub(crate) fn push(&mut self, nanos: u64) {
        self.nanos.push(nanos);
    }

    pub(crate) const fn len(&self) -> usize {
        self.nanos.len()
    }

    /// The empirical law: the sorted sample, or the means of as many groups of neighbours as fit, so that the
    /// mean is kept. `None` of no sample.
    pub(crate) fn law(mut self) -> Option<Law> {
        self.nanos.sort_unstable();
        let count = self.nanos.len();
        let (first, last) = (*self.nanos.first()?, *self.nanos.last()?);
        if first == last {
            return Some(Law::Fixed(seconds(first as f64)));
        }
        let entries = count.min(ENTRIES);
        let cut = |entry: usize| entry * count / entries;
        let mean = |entry: usize| {
            let group = &self.nanos[cut(entry)..cut(entry + 1)];
            let sum: u128 = group.iter().map(|nanos| u128::from(*nanos)).sum();
            seconds(sum as f64 / group.len() as f64)
        };
        Some(Law::Empirical((0..entries).map(mean).collect()))
    }

    /// Quantile `q` of a sample; 0 of none.
    pub(crate) fn quantiles(mut self, at: &[f64]) -> Vec<u64> {
        self.nanos.sort_unstable();
        let last = self.nanos.len().saturating_sub(1);
        let place = |q: &f64| ((q * self.nanos.len() as f64) as usize).min(last);
        at.iter().map(|q| self.nanos.get(place(q)).copied().unwrap_or(0)).collect()
    }

    pub(crate) fn mean(&self) -> f64 {
        let sum: u128 = self.nanos.iter().map(|nanos| u128::from(*nanos)).sum();
        sum as f64 / self.nanos.len().max(1) as f64
    }
}

impl FromIterator<u64> for Sample {
    fn from_iter<I: IntoIterator<Item = u64>>(nanos: I) -> Self {
        Self { nanos: nanos.into_iter().collect() }
    }
}

/// Seconds, to the nanosecond: more digits would only fill the file.
pub(crate) fn seconds(nanos: f64) -> f64 {
    nanos.round() / 1e9
}
