use gatewright_determinism::Time;

/// A whole number that changes over time, and its integral in whole nanoseconds, so that no order of additions
/// can change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    value: u64,
    max: u64,
    since: Time,
    area: u128,
}

impl Level {
    pub(super) const fn value(&self) -> u64 {
        self.value
    }

    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn set(&mut self, now: Time, value: u64) {
        if now != self.since {
            self.area = self.area(now);
            self.since = now;
        }
        self.value = value;
        self.max = self.max.max(value);
    }

    pub(super) fn up(&mut self, now: Time) {
        self.set(now, self.value + 1);
    }

    pub(super) fn down(&mut self, now: Time) {
        self.set(now, self.value.saturating_sub(1));
    }

    /// The integral up to `now`, in units times nanoseconds.
    pub(super) fn area(&self, now: Time) -> u128 {
        self.area + u128::from(self.value) * u128::from(now.nanos_since(self.since))
    }

    /// The average from the start of the run to `now`.
    pub(super) fn mean(&self, now: Time) -> f64 {
        if now == Time::ZERO {
            return self.value as f64;
        }
        self.area(now) as f64 / now.as_nanos() as f64
    }
}
