use gatewright_determinism::{Purpose, Stream, Time};

use crate::gaps::GapSampler;
use crate::intensity::{FOREVER, Intensity, Piece};
use crate::{Gaps, MAX_RATE, MIN_RATE};

/// When requests are due: a seeded sequence of moments since the start of the run, never going back; endless
/// unless it replays something or comes to the end of its steps.
///
/// It is a value: a clone gives the same moments again, on every machine. Nothing is stored per request.
#[derive(Clone, Debug)]
pub struct Schedule {
    law: Law,
}

#[derive(Clone, Debug)]
enum Law {
    Constant {
        rate: f64,
        next: u64,
    },
    /// Independent gaps of one distribution.
    Renewal {
        mean_gap_nanos: f64,
        gaps: GapSampler,
        /// Worked out before it is asked for: whoever asks has a use for it at once, and need not wait.
        next: Time,
        /// What rounding to whole nanoseconds has left over so far, in [0, 1): carried on, never lost.
        fraction: f64,
    },
    Modulated(Box<Modulated>),
    Recorded {
        moments: Box<dyn Moments>,
        last: Time,
    },
}

/// Moments from elsewhere, such as a trace; a clone gives the same again from where it stands.
///
/// Every iterator of [`Time`] that can be cloned is one. Moments that go back are moved to the last one before.
pub trait Moments: Iterator<Item = Time> + std::fmt::Debug + Send {
    /// A clone.
    fn fork(&self) -> Box<dyn Moments>;
}

impl<I: Iterator<Item = Time> + Clone + std::fmt::Debug + Send + 'static> Moments for I {
    fn fork(&self) -> Box<dyn Moments> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Moments> {
    fn clone(&self) -> Self {
        (**self).fork()
    }
}

/// A process whose rate changes in time, by a change of time: arrivals of a process of rate 1 at x come at the
/// moment t by which the integral of the rate is x (Cinlar, "Introduction to Stochastic Processes", 1975,
/// section 4.7; Lewis and Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979, compare
/// the two ways). Unlike thinning it throws nothing away, and even gaps may be warped as well as random ones.
#[derive(Clone, Debug)]
struct Modulated {
    gaps: GapSampler,
    intensity: Intensity,
    piece: Piece,
    /// When the piece began.
    start: u64,
    /// Requests that have come in the piece (in the process of rate 1).
    used: f64,
    begun: bool,
}

impl Schedule {
    /// One request every 1/`rate` seconds, the first at the start. Request i is computed from i, so the plan
    /// does not drift. A rate outside [`MIN_RATE`]..=[`MAX_RATE`] is moved into it.
    #[must_use]
    pub fn constant(rate: f64) -> Self {
        Self { law: Law::Constant { rate: in_range(rate), next: 0 } }
    }

    /// A Poisson process of `rate` requests per second: the gaps, the first one included, are independent and
    /// exponentially distributed, drawn from the arrivals of (`seed`, `demand`). A rate outside
    /// [`MIN_RATE`]..=[`MAX_RATE`] is moved into it.
    #[must_use]
    pub fn poisson(rate: f64, seed: u64, demand: u64) -> Self {
        Self::renewal(rate, Gaps::Poisson, seed, demand)
    }

    /// Independent gaps, the first one included, of the distribution `gaps` with a mean of 1/`rate` seconds.
    /// A rate outside [`MIN_RATE`]..=[`MAX_RATE`] is moved into it.
    #[must_use]
    pub fn renewal(rate: f64, gaps: Gaps, seed: u64, demand: u64) -> Self {
        if gaps == Gaps::Constant {
            return Self::constant(rate);
        }
        let mut schedule = Self {
            law: Law::Renewal {
                mean_gap_nanos: 1e9 / in_range(rate),
                gaps: gaps.sampler(Stream::new(seed, Purpose::Arrival, demand)),
                next: Time::ZERO,
                fraction: 0.0,
            },
        };
        // What comes first is a gap.
        schedule.advance();
        schedule
    }

    pub(crate) fn modulated(intensity: Intensity, gaps: Gaps, seed: u64, demand: u64) -> Self {
        let gaps = gaps.sampler(Stream::new(seed, Purpose::Arrival, demand));
        let piece = Piece::flat(0, 0.0);
        let law = Modulated { gaps, intensity, piece, start: 0, used: 0.0, begun: false };
        Self { law: Law::Modulated(Box::new(law)) }
    }

    /// The moments of something that was recorded, or made elsewhere; it ends when they do. Moments that go
    /// back are moved to the last one before.
    #[must_use]
    pub fn replay<M: Moments + 'static>(moments: M) -> Self {
        Self { law: Law::Recorded { moments: Box::new(moments), last: Time::ZERO } }
    }

    /// The part that thread `nth` of `of` owns: requests nth, nth + of, nth + 2 of, ... with their numbers.
    /// All the shares together are this schedule. `of` is taken as at least 1.
    #[must_use]
    pub fn share(self, nth: u32, of: u32) -> Share {
        Share { schedule: self, number: 0, skip: u64::from(nth), of: u64::from(of.max(1)) }
    }

    fn advance(&mut self) -> Option<Time> {
        match &mut self.law {
            Law::Constant { rate, next } => {
                let due = *next as f64 * 1e9 / *rate;
                *next += 1;
                // `as` saturates; rounding half up is enough for a number that is never negative.
                Some(Time::from_nanos((due + 0.5) as u64))
            }
            Law::Renewal { mean_gap_nanos, gaps, next, fraction } => {
                let due = *next;
                let gap = gaps.draw() * *mean_gap_nanos + *fraction;
                let whole = gap as u64;
                *fraction = gap - whole as f64;
                *next = due.plus_nanos(whole);
                Some(due)
            }
            Law::Modulated(law) => law.advance(),
            Law::Recorded { moments, last } => {
                *last = moments.next()?.max(*last);
                Some(*last)
            }
        }
    }

    /// Passes over `count` requests; how many of them there were.
    fn skip_ahead(&mut self, count: u64) -> u64 {
        match &mut self.law {
            Law::Constant { next, .. } => {
                *next += count;
                count
            }
            _ => (0..count).take_while(|_| self.advance().is_some()).count() as u64,
        }
    }
}

impl Modulated {
    fn advance(&mut self) -> Option<Time> {
        let mut gap = self.gaps.draw();
        if !self.begun {
            self.begun = true;
            if self.gaps.begins_at_start() {
                gap = 0.0;
            }
            self.piece = self.intensity.next_piece()?;
        }
        let mut wanted = self.used + gap;
        loop {
            let requests = self.piece.requests();
            if wanted < requests {
                self.used = wanted;
                let nanos = self.start.saturating_add(self.piece.nanos_until(wanted));
                return (nanos < u64::MAX).then(|| Time::from_nanos(nanos));
            }
            if self.piece.nanos == FOREVER {
                return None;
            }
            wanted -= requests;
            self.start = self.start.saturating_add(self.piece.nanos);
            if let Some((requests, nanos)) = self.intensity.cycle()
                && wanted >= requests
            {
                // A gap of many rounds is not gone through round by round.
                let rounds = libm::floor(wanted / requests);
                wanted -= rounds * requests;
                self.start = self.start.saturating_add((rounds * nanos as f64) as u64);
            }
            if self.start == u64::MAX {
                return None;
            }
            match self.intensity.next_piece() {
                Some(piece) => self.piece = piece,
                None => {
                    // Nothing comes after the last piece, however often it is asked.
                    self.piece = Piece::flat(FOREVER, 0.0);
                }
            }
        }
    }
}

fn in_range(rate: f64) -> f64 {
    if rate.is_nan() { MIN_RATE } else { rate.clamp(MIN_RATE, MAX_RATE) }
}

impl Iterator for Schedule {
    type Item = Time;

    fn next(&mut self) -> Option<Time> {
        self.advance()
    }
}

/// One thread's part of a [`Schedule`]: pairs of a request's number in the whole schedule and its moment.
#[derive(Clone, Debug)]
pub struct Share {
    schedule: Schedule,
    /// Number of the request that the schedule gives next.
    number: u64,
    /// Requests of others that come before the next of ours.
    skip: u64,
    of: u64,
}

impl Iterator for Share {
    type Item = (u64, Time);

    fn next(&mut self) -> Option<(u64, Time)> {
        if self.schedule.skip_ahead(self.skip) < self.skip {
            return None;
        }
        self.number += self.skip;
        self.skip = self.of - 1;
        let mine = (self.number, self.schedule.advance()?);
        self.number += 1;
        Some(mine)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn constant_does_not_drift() {
        for rate in [3.0, 7.0, 1_000.0, 12_345.678] {
            let mut schedule = Schedule::constant(rate);
            assert_eq!(schedule.next(), Some(Time::ZERO));
            let number = 100_000_000;
            schedule.skip_ahead(number - 1);
            let exact = number as f64 / rate;
            let due = schedule.next().unwrap().as_secs_f64();
            assert!((due - exact).abs() < 1e-8, "rate {rate}: {due} instead of {exact}");
        }
    }

    #[test]
    fn constant_at_a_whole_rate_meets_every_second() {
        let times: Vec<_> = Schedule::constant(3.0).take(10).collect();
        let seconds = [times[3], times[6], times[9]].map(Time::as_nanos);
        assert_eq!(seconds, [1_000_000_000, 2_000_000_000, 3_000_000_000]);
    }

    /// Golden moments: a change here changes every recorded run and simulation.
    #[test]
    fn poisson_moments_never_change() {
        let times: Vec<_> = Schedule::poisson(1_000.0, 1, 0).take(4).map(Time::as_nanos).collect();
        assert_eq!(times, GOLDEN);
    }

    const GOLDEN: [u64; 4] = [548_145, 787_472, 3_298_232, 4_380_930];

    fn gaps(rate: f64, seed: u64, count: usize) -> Vec<f64> {
        let mut last = Time::ZERO;
        let gap = |time: Time| {
            let gap = time.nanos_since(last) as f64 / 1e9 * rate;
            last = time;
            gap
        };
        Schedule::poisson(rate, seed, 0).take(count).map(gap).collect()
    }

    /// The variance-to-mean ratio of counts in windows is 1 for a Poisson process. Over `n` windows it has a
    /// standard error of sqrt(2 / n).
    #[test]
    fn poisson_counts_vary_as_much_as_their_mean() {
        let windows = 20_000;
        for seed in 0..4 {
            let mut counts = vec![0.0f64; windows];
            for time in Schedule::poisson(25.0, seed, 3) {
                match counts.get_mut(time.as_secs_f64() as usize) {
                    Some(count) => *count += 1.0,
                    None => break,
                }
            }
            let mean = counts.iter().sum::<f64>() / windows as f64;
            let square = |count: &f64| (count - mean) * (count - mean);
            let variance = counts.iter().map(square).sum::<f64>() / (windows - 1) as f64;
            let error = (2.0 / windows as f64).sqrt();
            assert!(
                (variance / mean - 1.0).abs() < 3.0 * error,
                "seed {seed}: {}",
                variance / mean
            );
            assert!(
                (mean - 25.0).abs() < 3.0 * (25.0 / windows as f64).sqrt(),
                "seed {seed}: {mean}"
            );
        }
    }

    /// Independent gaps have no correlation with their neighbours: standard error 1 / sqrt(n).
    #[test]
    fn poisson_gaps_are_independent() {
        for seed in 0..4 {
            let gaps = gaps(500.0, seed, 100_000);
            let n = gaps.len() as f64;
            let mean = gaps.iter().sum::<f64>() / n;
            let variance = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / n;
            for lag in 1..=3 {
                let pairs = gaps.iter().zip(&gaps[lag..]);
                let covariance = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / n;
                let correlation = covariance / variance;
                assert!(correlation.abs() < 3.5 / n.sqrt(), "seed {seed} lag {lag}: {correlation}");
            }
        }
    }

    /// Anderson and Darling's test against the exponential law with known mean: the statistic exceeds 3.857
    /// once in a hundred (case 0 of Stephens, "EDF statistics for goodness of fit", 1974).
    fn anderson_darling(mut gaps: Vec<f64>) -> f64 {
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len();
        let term = |i: usize| {
            // ln F(x) and ln(1 - F(y)) of the exponential law F(x) = 1 - exp(-x).
            let below = libm::log(-libm::expm1(-gaps[i].max(1e-12)));
            let above = -gaps[n - 1 - i];
            (2 * i + 1) as f64 * (below + above)
        };
        -(n as f64) - (0..n).map(term).sum::<f64>() / n as f64
    }

    #[test]
    fn poisson_gaps_are_exponential() {
        for (rate, seed) in [(0.01, 1), (120.0, 2), (10_000.0, 3), (1_000_000.0, 4)] {
            let statistic = anderson_darling(gaps(rate, seed, 20_000));
            assert!(statistic < 3.857, "rate {rate}: {statistic}");
        }
        let uniform = Schedule::constant(1.0).take(1_000).map(|t| t.as_secs_f64() / 500.0);
        assert!(anderson_darling(uniform.collect()) > 3.857, "the test sees nothing");
    }

    proptest! {
        #[test]
        fn never_goes_back(rate in 1e-6..1e8f64, seed: u64, poisson: bool) {
            let schedule =
                if poisson { Schedule::poisson(rate, seed, 0) } else { Schedule::constant(rate) };
            let times: Vec<_> = schedule.take(200).collect();
            prop_assert!(times.is_sorted());
        }

        #[test]
        fn shares_together_are_the_schedule(
            rate in 0.1..1e6f64, seed: u64, poisson: bool, of in 1..=8u32, count in 1..300usize,
        ) {
            let schedule =
                if poisson { Schedule::poisson(rate, seed, 5) } else { Schedule::constant(rate) };
            let whole: Vec<_> = (0u64..).zip(schedule.clone()).take(count).collect();
            let mut merged = Vec::new();
            for nth in 0..of {
                let mine = schedule.clone().share(nth, of);
                merged.extend(mine.take_while(|(number, _)| *number < count as u64));
            }
            merged.sort_unstable();
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn any_rate_gives_a_schedule(rate: f64, seed: u64) {
            prop_assert!(Schedule::constant(rate).take(50).is_sorted());
            prop_assert!(Schedule::poisson(rate, seed, 0).take(50).is_sorted());
        }
    }
}
