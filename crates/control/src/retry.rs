use gatewright_determinism::Time;

/// A retry budget over a sliding window of ten seconds, after Finagle's `RetryBudget` and tower's `TpsBudget`:
/// every request deposits `ratio` of a retry, every retry withdraws a whole one, and a reserve of
/// [`RESERVE_PER_SECOND`] retries a second lets a function with little traffic be retried at all.
#[derive(Clone, Debug)]
pub(crate) struct RetryBudget {
    ratio: f64,
    /// Requests and retries of each of the last seconds; the slot of second `s` is `s % WINDOW`.
    slots: [Slot; WINDOW as usize],
    /// The second that was counted last.
    second: u64,
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
const WINDOW: u64 = 10;
/// Retries a second that are allowed without any deposit (Finagle's and tower's default).
const RESERVE_PER_SECOND: u64 = 10;

impl RetryBudget {
    /// A budget of `ratio` retries a request, in 0..=1000 (checked where the configuration is read).
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio,
            slots: [Slot::default(); WINDOW as usize],
            second: 0,
            requests: 0,
            retries: 0,
        }
    }

    /// Notes a new request.
    pub(crate) fn deposit(&mut self, now: Time) {
        let slot = self.roll(now);
        self.slots[slot].requests = self.slots[slot].requests.saturating_add(1);
        self.requests += 1;
    }

    /// Takes one retry, if the budget has one.
    pub(crate) fn withdraw(&mut self, now: Time) -> bool {
        let slot = self.roll(now);
        let allowed = self.ratio * self.requests as f64 + (RESERVE_PER_SECOND * WINDOW) as f64;
        if self.ratio <= 0.0 || (self.retries + 1) as f64 > allowed {
            return false;
        }
        self.slots[slot].retries = self.slots[slot].retries.saturating_add(1);
        self.retries += 1;
        true
    }

    /// Forgets the seconds that have left the window; returns the slot of this second.
    fn roll(&mut self, now: Time) -> usize {
        let second = now.as_nanos() / 1_000_000_000;
        let passed = second.saturating_sub(self.second).min(WINDOW);
        for ahead in 1..=passed {
            let slot = &mut self.slots[((second - passed + ahead) % WINDOW) as usize];
            self.requests -= u64::from(slot.requests);
            self.retries -= u64::from(slot.retries);
            *slot = Slot::default();
        }
        self.second = self.second.max(second);
        (self.second % WINDOW) as usize
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
