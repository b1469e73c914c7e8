use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Verdict};
use crate::config::HumanDuration;

/// When requests to an upstream are stopped, and how it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerRules {
    /// So many failures in a row open it; 0 turns that off.
    pub failures: u32,
    /// Such a share of failures within `window` opens it; 1 turns that off.
    pub rate: f64,
    /// Over which time `rate` is measured.
    pub window: HumanDuration,
    /// The fewest requests within `window` that `rate` is judged by.
    pub min_requests: u32,
    /// How long it stays open, doubled each time that it opens again without having been closed.
    pub open: HumanDuration,
    /// The longest that it stays open.
    pub max_open: HumanDuration,
    /// Requests at a time that are let through to see whether the upstream is back; so many good answers close it,
    /// one failure opens it again.
    pub probes: u32,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            failures: 5,
            rate: 0.5,
            window: HumanDuration::from_secs(10),
            min_requests: 20,
            open: HumanDuration::from_secs(5),
            max_open: HumanDuration::from_secs(60),
            probes: 1,
        }
    }
}

impl BreakerRules {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.rate > 0.0 && self.rate <= 1.0, "rate must be above 0 and at most 1"),
            (!self.window.get().is_zero(), "window must be above 0"),
            (self.min_requests >= 1, "min_requests must be at least 1"),
            (!self.open.get().is_zero(), "open must be above 0"),
            (self.max_open >= self.open, "max_open is below open"),
            (self.probes >= 1, "probes must be at least 1"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

/// Parts into which the window is divided: what is older goes a tenth at a time.
const SLOTS: usize = 10;

/// A circuit breaker (Nygard, "Release It!", 2007): closed, it counts failures; open, it lets nothing through; half
/// open, a few.
#[derive(Clone, Debug)]
pub struct Breaker {
    rules: BreakerRules,
    state: State,
    /// Times that it has opened since it was closed.
    opened: u32,
}

#[derive(Clone, Debug)]
enum State {
    Closed { in_a_row: u32, window: Window },
    Open { until: Time },
    HalfOpen { since: Time, good: u32 },
}

/// Requests and failures of the last while.
#[derive(Clone, Debug, Default)]
struct Window {
    slots: [(u32, u32); SLOTS],
    /// The slot that was counted in last, numbered from the start of the run.
    last: u64,
}

impl Window {
    /// Counts a request; returns all requests and failures of the window.
    fn count(&mut self, now: Time, span: Duration, failed: bool) -> (u32, u32) {
        let slot = now.as_nanos() / (span.as_nanos() as u64 / SLOTS as u64).max(1);
        for passed in 1..=slot.saturating_sub(self.last).min(SLOTS as u64) {
            self.slots[((slot + 1 - passed) % SLOTS as u64) as usize] = (0, 0);
        }
        self.last = self.last.max(slot);
        let (requests, failures) = &mut self.slots[(self.last % SLOTS as u64) as usize];
        *requests = requests.saturating_add(1);
        *failures = failures.saturating_add(u32::from(failed));
        let sum = |a: u32, b: u32| a.saturating_add(b);
        self.slots.iter().fold((0, 0), |all, slot| (sum(all.0, slot.0), sum(all.1, slot.1)))
    }
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(rules: BreakerRules) -> Self {
        Self { rules, state: State::closed(), opened: 0 }
    }

    /// Whether it lets requests through.
    #[must_use]
    pub const fn condition(&self) -> Condition {
        match self.state {
            State::Closed { .. } => Condition::Healthy,
            State::Open { .. } => Condition::Open,
            State::HalfOpen { .. } => Condition::HalfOpen,
        }
    }

    /// Since when it has been half open, if it is.
    #[must_use]
    pub const fn half_open_since(&self) -> Option<Time> {
        match self.state {
            State::HalfOpen { since, .. } => Some(since),
            State::Closed { .. } | State::Open { .. } => None,
        }
    }

    /// Requests that it lets through while it is half open.
    #[must_use]
    pub const fn probes(&self) -> u32 {
        self.rules.probes
    }

    /// When it is half open at the latest, if it is open.
    #[must_use]
    pub const fn next(&self) -> Time {
        match self.state {
            State::Open { until } => until,
            State::Closed { .. } | State::HalfOpen { .. } => Time::MAX,
        }
    }

    /// Takes in how an attempt ended that began at `started`.
    pub fn record(&mut self, now: Time, started: Time, verdict: Verdict) {
        let failed = !verdict.is_good();
        match &mut self.state {
            State::Closed { in_a_row, window } => {
                let (requests, failures) = window.count(now, self.rules.window.get(), failed);
                *in_a_row = if failed { in_a_row.saturating_add(1) } else { 0 };
                let row = self.rules.failures > 0 && *in_a_row >= self.rules.failures;
                let rate = self.rules.rate < 1.0
                    && requests >= self.rules.min_requests
                    && f64::from(failures) >= self.rules.rate * f64::from(requests);
                if failed && (row || rate) {
                    self.open(now);
                }
            }
            // What began before it says nothing of how the upstream is now.
            State::HalfOpen { since, .. } if started < *since => {}
            State::HalfOpen { .. } if failed => self.open(now),
            State::HalfOpen { good, .. } => {
                *good += 1;
                if *good >= self.rules.probes {
                    (self.state, self.opened) = (State::closed(), 0);
                }
            }
            State::Open { .. } => {}
        }
    }

    /// Opens it whatever it has counted: it is known that nothing is there.
    pub fn trip(&mut self, now: Time) {
        if !matches!(self.state, State::Open { .. }) {
            self.open(now);
        }
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Time) {
        if let State::Open { until } = self.state
            && until <= now
        {
            self.state = State::HalfOpen { since: now, good: 0 };
        }
    }

    fn open(&mut self, now: Time) {
        let span = self.rules.open.get().saturating_mul(1 << self.opened.min(20));
        self.opened = self.opened.saturating_add(1);
        self.state = State::Open { until: now + span.min(self.rules.max_open.get()) };
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed { in_a_row: 0, window: Window::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Time {
        Time::from_secs_f64(seconds)
    }

    fn breaker(rules: BreakerRules) -> Breaker {
        Breaker::new(rules)
    }

    #[test]
    fn failures_in_a_row_open_it_and_good_answers_between_them_do_not() {
        let mut breaker = breaker(BreakerRules { rate: 1.0, ..BreakerRules::default() });
        for _ in 0..20 {
            (0..4).for_each(|_| breaker.record(at(0.0), at(0.0), Verdict::Gone));
            breaker.record(at(0.0), at(0.0), Verdict::Good);
        }
        assert_eq!(breaker.condition(), Condition::Healthy);
        (0..5).for_each(|_| breaker.record(at(1.0), at(0.0), Verdict::Error));
        assert_eq!((breaker.condition(), breaker.next()), (Condition::Open, at(6.0)));
    }

    #[test]
    fn a_share_of_failures_opens_it_within_its_window() {
        let rules = BreakerRules { failures: 0, ..BreakerRules::default() };
        let mut one = breaker(rules);
        for second in 0..40 {
            // One in three is fine.
            let verdict = if second % 3 == 0 { Verdict::Gone } else { Verdict::Good };
            (0..3).for_each(|_| one.record(at(f64::from(second)), Time::ZERO, verdict));
        }
        assert_eq!(one.condition(), Condition::Healthy);
        let mut one = breaker(rules);
        (0..19).for_each(|_| one.record(at(1.0), Time::ZERO, Verdict::Gone));
        assert_eq!(one.condition(), Condition::Healthy, "too few to judge");
        let mut later = one.clone();
        later.record(at(20.0), Time::ZERO, Verdict::Gone);
        assert_eq!(later.condition(), Condition::Healthy, "what is old is forgotten");
        one.record(at(9.0), Time::ZERO, Verdict::Gone);
        assert_eq!(one.condition(), Condition::Open);
    }

    #[test]
    fn half_open_it_closes_or_opens_for_twice_as_long() {
        let rules = BreakerRules { failures: 1, probes: 2, ..BreakerRules::default() };
        let mut breaker = breaker(rules);
        breaker.record(at(0.0), at(0.0), Verdict::Gone);
        let mut now = at(0.0);
        for span in [5, 10, 20, 40, 60, 60] {
            assert_eq!(breaker.next(), now + Duration::from_secs(span));
            breaker.wake(now + Duration::from_millis(span * 1_000 - 1));
            assert_eq!(breaker.condition(), Condition::Open);
            let before = now;
            now = breaker.next();
            breaker.wake(now);
            assert_eq!(breaker.condition(), Condition::HalfOpen);
            breaker.record(now, before, Verdict::Good);
            breaker.record(now, before, Verdict::Gone);
            breaker.record(now, now, Verdict::Good);
            assert_eq!(
                breaker.condition(),
                Condition::HalfOpen,
                "old answers and one are not enough"
            );
            breaker.record(now, now, Verdict::Gone);
        }
        now = breaker.next();
        breaker.wake(now);
        (0..2).for_each(|_| breaker.record(now, now, Verdict::Good));
        assert_eq!(breaker.condition(), Condition::Healthy);
        breaker.record(now, now, Verdict::Gone);
        assert_eq!(breaker.next(), now + Duration::from_secs(5), "it begins anew");
    }

    #[test]
    fn what_is_known_to_be_gone_is_not_counted_first() {
        let mut breaker = breaker(BreakerRules::default());
        breaker.trip(at(1.0));
        assert_eq!((breaker.condition(), breaker.next()), (Condition::Open, at(6.0)));
        breaker.trip(at(2.0));
        assert_eq!(breaker.next(), at(6.0), "it is open already");
        breaker.wake(at(6.0));
        breaker.trip(at(6.0));
        assert_eq!(breaker.next(), at(16.0), "twice as long");
    }

    proptest! {
        /// Whatever happens: it never opens on good answers alone, and an open one always becomes half open.
        #[test]
        fn it_always_gets_another_chance(steps in prop::collection::vec((0u8..3, 0u64..4_000), 0..200)) {
            let mut breaker = breaker(BreakerRules::default());
            let mut now = Time::ZERO;
            for (what, ms) in steps {
                now += Duration::from_millis(ms);
                breaker.wake(now);
                prop_assert!(breaker.next() > now);
                prop_assert!(breaker.next() == Time::MAX || breaker.next() - now <= Duration::from_secs(60));
                let before = breaker.condition();
                match what {
                    0 => breaker.record(now, now, Verdict::Good),
                    1 => breaker.record(now, now, Verdict::Gone),
                    _ => breaker.record(now, now, Verdict::Error),
                }
                if what == 0 && before == Condition::Healthy {
                    prop_assert_eq!(breaker.condition(), Condition::Healthy);
                }
            }
        }
    }
}
