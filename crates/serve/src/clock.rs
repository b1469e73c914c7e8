use std::time::Instant;

use gatewright_determinism::Time;

/// The clock of a run: every moment the driver hands on is measured here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A run that starts now.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Nanoseconds since the run started.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// The moment as the operating system knows it; `None` if it will never come.
    pub(crate) fn instant(&self, time: Time) -> Option<Instant> {
        if time == Time::MAX { None } else { self.start.checked_add(time - Time::ZERO) }
    }
}
