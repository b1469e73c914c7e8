use gatewright_determinism::Time;

/// The integral of a level over time: how many requests there were on average since the last reading.
///
/// Kept in whole request-nanoseconds, so that no order of additions can change it.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    level: u32,
    changed: Time,
    area: u128,
    read: Time,
}

impl Meter {
    pub(crate) const fn new(now: Time) -> Self {
        Self { level: 0, changed: now, area: 0, read: now }
    }

    /// The level is `level` from `now` on.
    pub(crate) fn set(&mut self, now: Time, level: u32) {
        self.area += u128::from(self.level) * u128::from(now.nanos_since(self.changed));
        self.changed = self.changed.max(now);
        self.level = level;
    }

    /// The average level since the last reading; the level itself if no time has passed.
    pub(crate) fn read(&mut self, now: Time) -> f64 {
        self.set(now, self.level);
        let span = now.nanos_since(self.read);
        let average =
            if span == 0 { f64::from(self.level) } else { self.area as f64 / span as f64 };
        self.area = 0;
        self.read = now;
        average
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_over_time() {
        let mut meter = Meter::new(Time::ZERO);
        meter.set(Time::from_nanos(100), 4);
        meter.set(Time::from_nanos(150), 1);
        assert!((meter.read(Time::from_nanos(200)) - 1.25).abs() < 1e-12);
        assert!((meter.read(Time::from_nanos(300)) - 1.0).abs() < 1e-12);
        assert!((meter.read(Time::from_nanos(300)) - 1.0).abs() < 1e-12);
    }
}
