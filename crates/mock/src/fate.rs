use std::sync::atomic::{AtomicU64, Ordering};

use gatewright_determinism::{Purpose, Stream, Time};
use gatewright_sim::Sampler;

use crate::config::Faults;

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// Nothing.
    Good,
    /// It is answered with this status.
    Error(u16),
    /// Its connection is reset at this part of the answer, in [0, 1).
    Reset(f64),
    /// It stalls at this part of the answer, in [0, 1), for so many nanoseconds.
    Stall(f64, u64),
}

/// Deals out fates.
#[derive(Debug)]
pub(crate) struct Fates {
    config: Faults,
    stall: Sampler,
    served: AtomicU64,
}

impl Fates {
    pub(crate) fn new(config: Faults) -> Self {
        Self { stall: config.stall.sampler(), config, served: AtomicU64::new(0) }
    }

    pub(crate) fn of(&self, seed: u64, number: u64) -> Fate {
        let config = &self.config;
        if let Some(limit) = config.fail_after
            && self.served.fetch_add(1, Ordering::Relaxed) >= limit
        {
            return Fate::Error(config.error_status);
        }
        let mut luck = Stream::new(seed, Purpose::Fault, number);
        let mut left = luck.unit();
        let mut is = |rate| {
            left -= rate;
            left < 0.0
        };
        if is(config.error_rate) {
            Fate::Error(config.error_status)
        } else if is(config.reset_rate) {
            Fate::Reset(luck.unit())
        } else if is(config.stall_rate) {
            let place = luck.unit();
            Fate::Stall(place, self.stall.draw(&mut luck))
        } else {
            Fate::Good
        }
    }

    /// How many times as long as usual things take at `now`.
    pub(crate) fn slowness(&self, now: Time) -> f64 {
        let Some(slow) = self.config.slow_start else { return 1.0 };
        let passed = (now.as_secs_f64() / slow.seconds).min(1.0);
        // Not a number if it is slow for no time at all.
        if passed.is_nan() { 1.0 } else { 1.0 + (slow.factor - 1.0) * (1.0 - passed) }
    }
}

#[cfg(test)]
mod tests {
    use gatewright_sim::Law;

    use super::*;
    use crate::config::SlowStart;

    #[test]
    fn fates_come_at_their_rates_and_by_their_seed() {
        let config =
            Faults { error_rate: 0.1, reset_rate: 0.2, stall_rate: 0.3, ..Faults::default() };
        let fates = Fates::new(config);
        let mut counts = [0u32; 4];
        for number in 0..10_000 {
            let fate = fates.of(1, number);
            assert_eq!(fate, fates.of(1, number));
            counts[match fate {
                Fate::Error(500) => 0,
                Fate::Reset(place) if (0.0..1.0).contains(&place) => 1,
                Fate::Stall(_, 1_000_000_000) => 2,
                Fate::Good => 3,
                other => panic!("{other:?}"),
            }] += 1;
        }
        for (count, expected) in counts.into_iter().zip([1000u32, 2000, 3000, 4000]) {
            assert!(count.abs_diff(expected) < 150, "{counts:?}");
        }
    }

    #[test]
    fn after_its_time_everything_fails() {
        let fates = Fates::new(Faults { fail_after: Some(2), ..Faults::default() });
        let seen: Vec<Fate> = (0..4).map(|number| fates.of(1, number)).collect();
        assert_eq!(seen, [Fate::Good, Fate::Good, Fate::Error(500), Fate::Error(500)]);
    }

    #[test]
    fn a_slow_start_fades() {
        let slow_start = Some(SlowStart { seconds: 10.0, factor: 5.0 });
        let stall = Law::Fixed(0.0);
        let fates = Fates::new(Faults { slow_start, stall, ..Faults::default() });
        let at = |seconds| fates.slowness(Time::from_secs_f64(seconds));
        assert_eq!([at(0.0), at(5.0), at(10.0), at(99.0)], [5.0, 3.0, 1.0, 1.0]);
    }
}
