use gatewright_determinism::Time;

/// A retry budget over a sliding window of ten seconds, after Finagle's `RetryBudget` and tower's `TpsBudget`:
/// every request deposits `ratio` of a retry, every retry withdraws a whole one, and a reserve of
/// [`RESERVE_PER_SECOND`] retries a second lets a function with little traffic be retried at all.
#[derive(Clone, Debug)]
pub(crate) struct RetryBudget {
    ratio: f64,
    /// Requests and retries of each of the last seconds, one after another in a ring.
    slots: [Slot; WINDOW],
    /// The slot of this second.
    slot: usize,
    /// When this second ends.
    until: Time,
    requests: u64,
    retries: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u32,
    retries: u32,
}

/// Whether a request of this method may be sent twice: it is meant to have the same effect as once (RFC 9110 section
/// 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Seconds that a deposit lasts (Finagle's and tower's default).
const WINDOW: usize = 10;
const SECOND: u64 = 1_000_000_000;
/// Retries a second that are allowed without any deposit (Finagle's and tower's default).
const RESERVE_PER_SECOND: usize = 10;

impl RetryBudget {
    /// A budget of `ratio` retries a request, in 0..=1000 (checked where the configuration is read).
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio,
            slots: [Slot::default(); WINDOW],
            slot: 0,
            until: Time::from_nanos(SECOND),
            requests: 0,
            retries: 0,
        }
    }

    /// Notes a new request.
    #[inline]
    pub(crate) fn deposit(&mut self, now: Time) {
        self.roll(now);
        let slot = &mut self.slots[self.slot];
        slot.requests = slot.requests.saturating_add(1);
        self.requests += 1;
    }

    /// Takes one retry, if the budget has one.
    pub(crate) fn withdraw(&mut self, now: Time) -> bool {
        self.roll(now);
        let allowed = self.ratio * self.requests as f64 + (RESERVE_PER_SECOND * WINDOW) as f64;
        if self.ratio <= 0.0 || (self.retries + 1) as f64 > allowed {
            return false;
        }
        let slot = &mut self.slots[self.slot];
        slot.retries = slot.retries.saturating_add(1);
        self.retries += 1;
        true
    }

    /// Forgets the seconds that have left the window.
    #[inline]
    fn roll(&mut self, now: Time) {
        if now >= self.until {
            self.forget(now);
        }
    }

    #[cold]
    fn forget(&mut self, now: Time) {
        let passed = 1 + now.nanos_since(self.until) / SECOND;
        self.until = self.until.plus_nanos(passed * SECOND);
        if passed >= WINDOW as u64 {
            self.slots = [Slot::default(); WINDOW];
            (self.requests, self.retries) = (0, 0);
            return;
        }
        for _ in 0..passed {
            self.slot = if self.slot + 1 == WINDOW { 0 } else { self.slot + 1 };
            let left = std::mem::take(&mut self.slots[self.slot]);
            self.requests -= u64::from(left.requests);
            self.retries -= u64::from(left.retries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Time {
        Time::from_secs_f64(seconds)
    }

    #[test]
    fn reserve_then_ratio() {
        let mut budget = RetryBudget::new(0.2);
        let reserve = (0..1_000).filter(|_| budget.withdraw(at(0.5))).count();
        assert_eq!(reserve, 100);
        for _ in 0..50 {
            budget.deposit(at(0.6));
        }
        let earned = (0..1_000).filter(|_| budget.withdraw(at(0.7))).count();
        assert_eq!(earned, 10);
    }

    #[test]
    fn forgets_after_the_window() {
        let mut budget = RetryBudget::new(0.2);
        while budget.withdraw(at(3.0)) {}
        assert!(!budget.withdraw(at(12.9)));
        assert!(budget.withdraw(at(13.0)));
        assert!(budget.withdraw(at(500.0)));
        assert_eq!(budget.retries, 1);
    }

    #[test]
    fn zero_means_never() {
        assert!(!RetryBudget::new(0.0).withdraw(at(1.0)));
    }
}
