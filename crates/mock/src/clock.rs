use gatewright_determinism::Time;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The server's clock: monotonic, zero when the server started, the same for all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Reading of `CLOCK_MONOTONIC` at the start, in nanoseconds.
    start: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: monotonic() }
    }

    pub(crate) fn now(self) -> Time {
        Time::from_nanos(monotonic().saturating_sub(self.start))
    }

    /// The moment as `CLOCK_MONOTONIC` reads it.
    pub(crate) fn timespec(self, time: Time) -> Timespec {
        let nanos = self.start.saturating_add(time.as_nanos());
        Timespec {
            tv_sec: (nanos / 1_000_000_000).cast_signed(),
            tv_nsec: (nanos % 1_000_000_000).cast_signed(),
        }
    }
}

fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both are never negative on this clock.
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
