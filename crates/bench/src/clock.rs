use std::time::{Duration, Instant};

use gatewright_determinism::Time;
use rustix::time::{ClockId, clock_gettime};

/// The run's clock: monotonic, zero at the start of the run, the same for all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A run that starts `delay` from now.
    pub(crate) fn starting_in(delay: Duration) -> Self {
        Self { start: Instant::now() + delay }
    }

    /// Time since the start; zero before it.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    pub(crate) fn sleep_until_start(&self) {
        std::thread::sleep(self.start.saturating_duration_since(Instant::now()));
    }
}

/// Processor time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or_default())
}
