use std::collections::BTreeMap;
use std::iter;

/// Counts of whole numbers to three significant digits: linear up to [`LINEAR`], then [`HALF`] buckets for each
/// doubling, which are those of an HdrHistogram (hdrhistogram.org) with three digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Buckets {
    /// The lower halves of the counts: as they are touched at random, as many as possible are to be in the caches.
    counts: Vec<u32>,
    /// The upper halves that are not 0.
    upper: BTreeMap<usize, u32>,
    total: u64,
}

/// Numbers below this have a bucket each: the power of two next to 2 * 10^3.
const LINEAR: u64 = 1 << LINEAR_BITS;
const LINEAR_BITS: u32 = 11;
/// Buckets of each doubling beyond.
const HALF: usize = LINEAR as usize / 2;

impl Buckets {
    /// For numbers up to `max`; larger ones must not be recorded.
    pub(crate) fn new(max: u64) -> Self {
        let doublings = doublings(max) as usize;
        Self { counts: vec![0; (doublings + 2) * HALF], upper: BTreeMap::new(), total: 0 }
    }

    #[inline]
    pub(crate) fn record(&mut self, value: u64) {
        let bucket = index(value);
        match self.counts[bucket].checked_add(1) {
            Some(count) => self.counts[bucket] = count,
            None => self.add_to(bucket, 1),
        }
        self.total += 1;
    }

    pub(crate) fn record_many(&mut self, value: u64, count: u64) {
        self.add_to(index(value), count);
        self.total = self.total.saturating_add(count);
    }

    #[cold]
    fn add_to(&mut self, bucket: usize, more: u64) {
        let count = self.count(bucket).saturating_add(more);
        self.counts[bucket] = count as u32;
        let upper = (count >> u32::BITS) as u32;
        if upper > 0 {
            self.upper.insert(bucket, upper);
        }
    }

    fn count(&self, bucket: usize) -> u64 {
        let upper = self.upper.get(&bucket).copied().unwrap_or(0);
        u64::from(upper) << u32::BITS | u64::from(self.counts[bucket])
    }

    /// Adds the counts of `other`, which is for the same numbers.
    pub(crate) fn add(&mut self, other: &Self) {
        if other.total == 0 {
            return;
        }
        if self.total.max(other.total) <= u64::from(u32::MAX / 2) {
            for (own, others) in iter::zip(&mut self.counts, &other.counts) {
                *own += others;
            }
        } else {
            other.recorded().for_each(|(bucket, count)| self.add_to(bucket, count));
        }
        self.total = self.total.saturating_add(other.total);
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.upper.clear();
        self.total = 0;
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The largest number of the bucket in which a fraction `q`, in [0, 1], of all has been seen; of the first bucket
    /// with anything in it, its smallest, if `q` is 0. Something must have been recorded.
    pub(crate) fn at_quantile(&self, q: f64) -> u64 {
        let wanted = (libm::ceil(q * self.total as f64) as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.recorded() {
            seen += count;
            if seen >= wanted {
                return if q == 0.0 { least(bucket) } else { most(bucket) };
            }
        }
        0
    }

    /// How many recorded numbers are in the bucket of `value` or below it.
    pub(crate) fn up_to(&self, value: u64) -> u64 {
        let last = index(value);
        let below = self.recorded().take_while(|(bucket, _)| *bucket <= last);
        below.fold(0, |sum: u64, (_, count)| sum.saturating_add(count))
    }

    /// Standard deviation of the buckets' middles; 0 if nothing has been recorded.
    pub(crate) fn standard_deviation(&self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        let all = self.total as f64;
        let share = |(bucket, count): (usize, u64)| middle(bucket) as f64 * count as f64 / all;
        let mean = self.recorded().map(share).fold(0.0, |sum, share| sum + share);
        let squares = self.recorded().fold(0.0, |sum, (bucket, count)| {
            let off = middle(bucket) as f64 - mean;
            sum + off * off * count as f64
        });
        (squares / all).sqrt()
    }

    /// The largest number of the fullest bucket, of the lowest one among equals; none if nothing has been recorded.
    pub(crate) fn fullest(&self) -> Option<u64> {
        let (bucket, _) =
            self.recorded().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        Some(most(bucket))
    }

    /// Buckets with anything in them, and how much.
    fn recorded(&self) -> impl Iterator<Item = (usize, u64)> {
        (0..self.counts.len())
            .map(|bucket| (bucket, self.count(bucket)))
            .filter(|(_, count)| *count > 0)
    }
}

/// How many doublings beyond the linear part a number lies: 1 << this is what its bucket is wide.
#[inline]
const fn doublings(value: u64) -> u32 {
    (u64::BITS - LINEAR_BITS) - (value | (LINEAR - 1)).leading_zeros()
}

#[inline]
const fn index(value: u64) -> usize {
    let doublings = doublings(value);
    doublings as usize * HALF + (value >> doublings) as usize
}

/// The smallest number of a bucket.
const fn least(bucket: usize) -> u64 {
    let width = width_bits(bucket);
    ((bucket - width as usize * HALF) as u64) << width
}

/// The largest one.
const fn most(bucket: usize) -> u64 {
    least(bucket) + ((1 << width_bits(bucket)) - 1)
}

/// The one in the middle, rounded up.
const fn middle(bucket: usize) -> u64 {
    least(bucket) + ((1 << width_bits(bucket)) >> 1)
}

const fn width_bits(bucket: usize) -> u32 {
    (bucket / HALF).saturating_sub(1) as u32
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    const MAX: u64 = 3_600_000_000_000;

    /// More than a half of a count can hold, one at a time and many, and in sums.
    #[test]
    fn counts_are_as_large_as_they_get() {
        let most = u64::from(u32::MAX);
        let mut buckets = Buckets::new(MAX);
        buckets.record_many(5, most);
        buckets.record(5);
        buckets.record(5);
        buckets.record(7);
        assert_eq!(
            [buckets.up_to(5), buckets.up_to(6), buckets.total()],
            [most + 2, most + 2, most + 3]
        );
        let other = buckets.clone();
        buckets.add(&other);
        assert_eq!([buckets.up_to(5), buckets.up_to(7)], [2 * most + 4, 2 * most + 6]);
        assert_eq!((buckets.fullest(), buckets.at_quantile(1.0)), (Some(5), 7));
        buckets.record_many(7, u64::MAX);
        assert_eq!(buckets.up_to(MAX), u64::MAX);
        buckets.clear();
        assert_eq!(buckets, Buckets::new(MAX));
    }

    proptest! {
        /// Beside the library whose buckets these are.
        #[test]
        fn it_is_an_hdr_histogram_of_three_digits(
            small in prop::collection::vec(0..5_000u64, 0..50),
            large in prop::collection::vec((0..42u32, any::<u64>()), 0..200),
            quantiles in prop::collection::vec(0.0..=1.0, 8),
        ) {
            let large = large.into_iter().map(|(bits, any)| (any >> (63 - bits)).min(MAX));
            let mut samples: Vec<u64> = small.into_iter().chain(large).collect();
            samples.push(MAX);
            let mut theirs = Histogram::<u64>::new_with_bounds(1, MAX, 3).unwrap();
            let mut ours = Buckets::new(MAX);
            for (nth, sample) in (1..).zip(&samples) {
                ours.record(*sample);
                ours.record_many(*sample, nth % 3);
                theirs.saturating_record_n(*sample, 1 + nth % 3);
            }
            prop_assert_eq!(ours.total(), theirs.len());
            for q in quantiles.into_iter().chain([0.0, 0.5, 0.99, 1.0]) {
                prop_assert_eq!(ours.at_quantile(q), theirs.value_at_quantile(q));
            }
            for sample in &samples {
                prop_assert_eq!(ours.up_to(*sample), theirs.count_between(0, *sample));
            }
            prop_assert_eq!(ours.standard_deviation().to_bits(), theirs.stdev().to_bits());
            let fullest = theirs.iter_recorded().map(|bucket| bucket.count_at_value()).max();
            let first = theirs.iter_recorded().find(|bucket| Some(bucket.count_at_value()) == fullest);
            prop_assert_eq!(ours.fullest(), first.map(|bucket| bucket.value_iterated_to()));
        }
    }
}
