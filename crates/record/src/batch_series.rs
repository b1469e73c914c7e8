use crate::{Estimate, EstimateError, batch_means};

/// Means of equal batches of a series of unknown length, in constant memory: whenever there are twice as many batches
/// as were asked for, each two neighbours become one.
///
/// For confidence intervals from one long run ([`BatchSeries::estimate`]): the requests of a queue are correlated, the
/// means of long batches hardly are, and [`BatchSeries::correlation`] tells whether they were long enough.
#[derive(Clone, Debug)]
pub struct BatchSeries {
    batches: usize,
    /// Samples of a batch.
    size: u64,
    means: Vec<f64>,
    sum: f64,
    count: u64,
    samples: u64,
}

impl BatchSeries {
    /// At least `batches` batches (2 or more), once there are so many samples; less than twice as many.
    #[must_use]
    pub fn new(batches: u32) -> Self {
        let batches = batches.max(2) as usize;
        Self { batches, size: 1, means: Vec::new(), sum: 0.0, count: 0, samples: 0 }
    }

    /// Adds the next sample.
    pub fn add(&mut self, sample: f64) {
        self.samples += 1;
        self.sum += sample;
        self.count += 1;
        if self.count < self.size {
            return;
        }
        self.means.push(self.sum / self.size as f64);
        (self.sum, self.count) = (0.0, 0);
        if self.means.len() == 2 * self.batches {
            self.means = self.means.chunks_exact(2).map(|two| 0.5 * (two[0] + two[1])).collect();
            self.size *= 2;
        }
    }

    /// Samples so far.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples of each batch.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The means of the batches that are full, in order.
    #[must_use]
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// The mean of the series and its standard error, from all full batches; the samples of the last one that is not
    /// full are left out.
    ///
    /// # Errors
    /// Fewer than two batches are full.
    pub fn estimate(&self) -> Result<Estimate, EstimateError> {
        batch_means(&self.means, u32::try_from(self.means.len()).unwrap_or(u32::MAX))
    }

    /// Correlation of each batch with the next, -1 to 1; none with fewer than three, or without any variance. Where it
    /// is well above 0, the batches are too short, and the standard error of the estimate is too small.
    #[must_use]
    pub fn correlation(&self) -> Option<f64> {
        let count = self.means.len();
        if count < 3 {
            return None;
        }
        let mean = self.means.iter().sum::<f64>() / count as f64;
        let variance = self.means.iter().map(|one| (one - mean) * (one - mean)).sum::<f64>();
        let together =
            self.means.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum::<f64>();
        (variance > 0.0).then(|| together / variance)
    }

    /// How many batches at the start are unlike the rest: leaving them out would make the standard error of the mean
    /// the smallest (MSER; White, "An effective truncation heuristic for bias reduction in simulation output",
    /// Simulation 69, 1997). Looked for in the first half only; none with fewer than ten batches.
    #[must_use]
    pub fn start_up(&self) -> Option<usize> {
        let count = self.means.len();
        if count < 10 {
            return None;
        }
        let error = |from: usize| {
            let rest = &self.means[from..];
            let mean = rest.iter().sum::<f64>() / rest.len() as f64;
            let squares = rest.iter().map(|one| (one - mean) * (one - mean)).sum::<f64>();
            squares / (rest.len() * rest.len()) as f64
        };
        (0..=count / 2).min_by(|&a, &b| error(a).total_cmp(&error(b)))
    }
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};

    use super::*;

    fn of(samples: impl IntoIterator<Item = f64>, batches: u32) -> BatchSeries {
        let mut series = BatchSeries::new(batches);
        samples.into_iter().for_each(|sample| series.add(sample));
        series
    }

    #[test]
    fn batches_grow_with_the_series_and_keep_its_mean() {
        for count in [7u32, 8, 31, 32, 1_000] {
            let series = of((0..count).map(f64::from), 4);
            let full = series.means().len() as u64 * series.size();
            assert!((4..8).contains(&series.means().len()), "{count}: {series:?}");
            let expected = (full - 1) as f64 / 2.0;
            assert!((series.estimate().unwrap().mean - expected).abs() < 1e-9, "{count}");
            assert_eq!(series.samples(), u64::from(count));
        }
        assert!(of([1.0], 4).estimate().is_err());
    }

    /// An autoregressive series: short batches are correlated and say so, long ones are not, and their interval
    /// covers the mean about 95 times in 100.
    #[test]
    fn long_batches_are_honest() {
        let series = |run: u64, length: u32| {
            let mut luck = Stream::new(9, Purpose::Resample, run);
            let mut x = 0.0;
            let step = move |_| {
                x = 0.9 * x + luck.normal();
                x
            };
            of((0..length).map(step), 20)
        };
        assert!(series(1, 100).correlation().unwrap() > 0.5);
        let covered = (0..400).filter(|&run| {
            let series = series(run, 12_000);
            assert!(series.correlation().unwrap().abs() < 0.6);
            let estimate = series.estimate().unwrap();
            estimate.mean.abs() < estimate.half_width(0.95)
        });
        let covered = covered.count();
        assert!((364..=394).contains(&covered), "{covered} of 400");
    }

    #[test]
    fn a_start_that_is_unlike_the_rest_is_found() {
        let mut luck = Stream::new(4, Purpose::Resample, 0);
        let sample = |at: u32| if at < 1_000 { 5.0 } else { 1.0 } + 0.1 * luck.normal();
        let series = of((0..10_000).map(sample), 20);
        let begin = series.start_up().unwrap() as u64 * series.size();
        assert!((1_000..=1_600).contains(&begin), "{begin}");
        let mut luck = Stream::new(4, Purpose::Resample, 1);
        let steady = of((0..10_000).map(|_| luck.normal()), 20);
        assert!(steady.start_up().unwrap() < steady.means().len() / 2);
        assert_eq!(of([1.0; 9], 20).start_up(), None);
    }
}
