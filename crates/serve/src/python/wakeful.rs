use std::time::{Duration, Instant};

/// Whoever gives way and gets its turn back only after this time is not alone on its processor.
const CROWDED: Duration = Duration::from_micros(20);
/// Each time that staying awake was in vain, twice as many waits follow that sleep at once, and at most so many.
const ASLEEP: u32 = 128;

/// Whether it is worth it to stay awake for what comes soon.
///
/// To be woken costs a thread on an idle processor tens of microseconds, which is many times what a short call takes.
/// So while answers come quickly, a thread that waits for them looks again and again for a moment. It gives way to
/// whatever else can run, and if there is anything, it sleeps: then no processor is idle. Whether staying awake is
/// worth it is tried now and then.
#[derive(Debug)]
pub(super) struct Wakeful {
    /// How many times to sleep at once.
    asleep: u32,
    /// How many times it will be after the next failure.
    rest: u32,
}

/// One time of staying awake.
pub(super) struct Watch {
    begun: Instant,
    longest: Duration,
}

impl Wakeful {
    pub(super) fn new() -> Self {
        Self { asleep: 0, rest: 1 }
    }

    /// Stays awake for at most so long, unless it was in vain of late.
    pub(super) fn watch(&mut self, longest: Duration) -> Option<Watch> {
        if self.asleep > 0 {
            self.asleep -= 1;
            return None;
        }
        Some(Watch { begun: Instant::now(), longest })
    }

    /// How that went.
    pub(super) fn learn(&mut self, in_vain: bool) {
        if in_vain {
            self.asleep = self.rest;
            self.rest = (2 * self.rest).min(ASLEEP);
        } else {
            self.rest = 1;
        }
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep > 0
    }
}

impl Watch {
    /// Gives way to whatever else can run; whether to look once more.
    pub(super) fn goes_on(&self) -> bool {
        let gives = Instant::now();
        std::thread::yield_now();
        gives - self.begun <= self.longest && gives.elapsed() <= CROWDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_longer_each_time_it_was_in_vain_and_no_more_after_a_success() {
        let mut wakeful = Wakeful::new();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 128] {
            assert!(wakeful.watch(Duration::ZERO).is_some());
            wakeful.learn(true);
            let slept = std::iter::repeat_with(|| wakeful.watch(Duration::ZERO));
            assert_eq!(slept.take_while(Option::is_none).count(), expected);
        }
        wakeful.learn(false);
        wakeful.learn(true);
        assert!(wakeful.watch(Duration::ZERO).is_none() && !wakeful.is_asleep());
    }

    #[test]
    fn it_does_not_look_for_longer_than_it_was_told() {
        let watch = Wakeful::new().watch(Duration::ZERO).unwrap();
        assert!(!watch.goes_on());
    }
}
