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

/// What a thread has had of the processors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessorTime {
    /// Time on one.
    pub(crate) used: Duration,
    /// Time in which it could have run but others did; zero where the system does not tell.
    pub(crate) awaited: Duration,
}

impl ProcessorTime {
    /// What this thread has had so far.
    pub(crate) fn of_this_thread() -> Self {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
        let used = Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or_default());
        // Time on a processor, time waited for one, times it got one.
        let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let awaited = schedule.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
        Self { used, awaited: Duration::from_nanos(awaited.unwrap_or_default()) }
    }

    /// What it has had since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            used: self.used.saturating_sub(before.used),
            awaited: self.awaited.saturating_sub(before.awaited),
        }
    }
}
