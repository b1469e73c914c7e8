use gatewright_determinism::Time;

/// A whole number that changes over time, and its integral in whole nanoseconds, so that no order of additions
/// can change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    value: u64,
    max: u64,
    /// What the value lost times the moment at which it lost it, less the same for what it gained: added to the value
    /// times any later moment, the integral up to then.
    changes: i128,
    /// When the warm-up ended, and the integral up to then: averages are taken from there on.
    from: Time,
    before: i128,
}

impl Level {
    pub(super) const fn value(&self) -> u64 {
        self.value
    }

    /// The largest value since the warm-up.
    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn set(&mut self, now: Time, value: u64) {
        self.changes += (i128::from(self.value) - i128::from(value)) * i128::from(now.as_nanos());
        self.value = value;
        self.max = self.max.max(value);
    }

    #[inline]
    pub(super) fn up(&mut self, now: Time) {
        self.changes -= i128::from(now.as_nanos());
        self.value += 1;
        self.max = self.max.max(self.value);
    }

    #[inline]
    pub(super) fn down(&mut self, now: Time) {
        debug_assert!(self.value > 0, "what goes has come");
        self.changes += i128::from(now.as_nanos());
        self.value -= 1;
    }

    /// The warm-up has ended: maximum and averages begin anew.
    pub(super) fn begin(&mut self, now: Time) {
        self.before = self.signed_area(now);
        self.from = now;
        self.max = self.value;
    }

    /// The integral from the start of the run to `now`, in units times nanoseconds.
    pub(super) fn area(&self, now: Time) -> u128 {
        self.signed_area(now).unsigned_abs()
    }

    fn signed_area(&self, now: Time) -> i128 {
        self.changes + i128::from(self.value) * i128::from(now.as_nanos())
    }

    /// The integral from the end of the warm-up to `now`.
    pub(super) fn area_after_warm_up(&self, now: Time) -> u128 {
        (self.signed_area(now) - self.before).unsigned_abs()
    }

    /// The average from the end of the warm-up to `now`.
    pub(super) fn mean(&self, now: Time) -> f64 {
        if now <= self.from {
            return self.value as f64;
        }
        self.area_after_warm_up(now) as f64 / now.nanos_since(self.from) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_begin_after_the_warm_up() {
        let at = Time::from_nanos;
        let mut level = Level::default();
        level.set(at(0), 9);
        level.set(at(10), 2);
        assert_eq!((level.mean(at(20)), level.max()), (5.5, 9));
        level.begin(at(20));
        level.up(at(30));
        assert_eq!((level.mean(at(40)), level.max()), (2.5, 3));
        assert_eq!((level.area(at(40)), level.area_after_warm_up(at(40))), (160, 50));
    }
}
