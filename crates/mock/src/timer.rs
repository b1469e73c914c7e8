use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use gatewright_determinism::Time;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;
use crate::stats::Lateness;

/// One thread's alarm clock, exact to some ten microseconds where tokio's wheel turns by the millisecond: a
/// `timerfd` set to the earliest moment that any task of the thread waits for.
#[derive(Clone)]
pub(crate) struct Timer {
    inner: Rc<Inner>,
}

struct Inner {
    clock: Clock,
    descriptor: AsyncFd<OwnedFd>,
    /// Who waits, in the order of their moments; the number tells those of one moment apart.
    waiting: RefCell<BTreeMap<(Time, u64), Waker>>,
    next_number: Cell<u64>,
    /// The moment the descriptor is set for, which it fires `lead` before.
    armed: Cell<Time>,
    /// When it fires.
    fires: Cell<Time>,
    lead: Lead,
    lateness: Arc<Lateness>,
}

impl Timer {
    /// To be made inside the runtime of the thread; [`Timer::run`] must be running for it to work.
    pub(crate) fn new(
        clock: Clock,
        longest_lead: u64,
        lateness: Arc<Lateness>,
    ) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = watched(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        let inner = Inner {
            clock,
            descriptor,
            waiting: RefCell::default(),
            next_number: Cell::new(0),
            armed: Cell::new(Time::MAX),
            fires: Cell::new(Time::MAX),
            lead: Lead::new(longest_lead),
            lateness,
        };
        Ok(Self { inner: Rc::new(inner) })
    }

    pub(crate) fn now(&self) -> Time {
        self.inner.clock.now()
    }

    /// Done at `due`; how late it was noticed goes into the statistics.
    pub(crate) fn sleep_until(&self, due: Time) -> Sleep {
        Sleep { timer: self.clone(), due, number: None }
    }

    /// Wakes those whose moment has come, for ever.
    pub(crate) async fn run(self) -> io::Result<()> {
        loop {
            let mut ready = self.inner.descriptor.readable().await?;
            // The count of expirations does not matter; reading it makes the descriptor quiet again.
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0; 8])?));
            if let Ok(read) = read {
                read?;
            }
            let inner = &self.inner;
            let now = inner.clock.now();
            inner.lead.learn(now.nanos_since(inner.fires.get()));
            inner.lead.refill(now);
            inner.armed.set(Time::MAX);
            inner.wake_due();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because a type may lie about its descriptor; an OwnedFd does not"
)]
fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

impl Inner {
    fn wake_due(&self) {
        loop {
            let next = self.waiting.borrow().first_key_value().map(|(&(due, _), _)| due);
            let Some(due) = next else { return };
            let mut now = self.clock.now();
            if due.nanos_since(now) > self.lead.nanos() {
                self.arm(due);
                return;
            }
            let waited = now < due;
            self.lead.spend(due.nanos_since(now));
            while now < due {
                std::hint::spin_loop();
                now = self.clock.now();
            }
            // The borrow must end before the waker runs.
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
            }
            if waited {
                // Its answer must leave before the next is waited for.
                if let Some((&(due, _), _)) = self.waiting.borrow().first_key_value() {
                    self.arm(due);
                }
                return;
            }
        }
    }

    /// Sets the descriptor to fire for `due`, unless it fires earlier anyway.
    fn arm(&self, due: Time) {
        if due >= self.armed.get() {
            return;
        }
        self.armed.set(due);
        let early = Time::from_nanos(due.as_nanos().saturating_sub(self.lead.nanos()));
        self.fires.set(early);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: zero, it_value: self.clock.timespec(early) };
        // It fails for a bad descriptor or a bad time only, and these are neither.
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::ABSTIME, &value)
            .expect("an own timerfd takes any valid time");
    }
}

/// How long before a moment the thread is to be woken, because waking takes time: what three of four wake-ups
/// needed. The rest, which is short, is waited for without sleeping, for a tenth of the time at most: a busy
/// thread wakes faster anyway, and its processor has more to do.
#[derive(Debug)]
struct Lead {
    learnt: Cell<u64>,
    longest: u64,
    /// Nanoseconds that may be waited without sleeping.
    credit: Cell<u64>,
    refilled: Cell<Time>,
}

/// By how much one wake-up changes what is thought of them all.
const STEP: u64 = 2_000;
/// One nanosecond of waiting without sleep is earned in so many.
const PRICE: u64 = 10;
const MOST_CREDIT: u64 = 1_000_000;

impl Lead {
    const fn new(longest: u64) -> Self {
        Self {
            learnt: Cell::new(longest / 2),
            longest,
            credit: Cell::new(MOST_CREDIT),
            refilled: Cell::new(Time::ZERO),
        }
    }

    const fn nanos(&self) -> u64 {
        if self.learnt.get() <= self.credit.get() { self.learnt.get() } else { 0 }
    }

    fn refill(&self, now: Time) {
        let earned = now.nanos_since(self.refilled.replace(now)) / PRICE;
        self.credit.set(self.credit.get().saturating_add(earned).min(MOST_CREDIT));
    }

    fn spend(&self, nanos: u64) {
        self.credit.set(self.credit.get().saturating_sub(nanos));
    }

    /// A wake-up took `nanos`. One that took too long tells of a busy machine, not of waking.
    fn learn(&self, nanos: u64) {
        if nanos > self.longest {
            return;
        }
        let learnt = self.learnt.get();
        let learnt = if nanos > learnt { learnt + 3 * STEP } else { learnt.saturating_sub(STEP) };
        self.learnt.set(learnt.min(self.longest));
    }
}

/// Waits for a moment.
pub(crate) struct Sleep {
    timer: Timer,
    due: Time,
    /// Names its place among those that wait.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let inner = Rc::clone(&self.timer.inner);
        let now = inner.clock.now();
        if now >= self.due {
            inner.lateness.record(now.nanos_since(self.due));
            return Poll::Ready(());
        }
        let number = self.number.unwrap_or_else(|| {
            let number = inner.next_number.get();
            inner.next_number.set(number + 1);
            number
        });
        self.number = Some(number);
        inner.waiting.borrow_mut().insert((self.due, number), context.waker().clone());
        inner.arm(self.due);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.timer.inner.waiting.borrow_mut().remove(&(self.due, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use gatewright_determinism::{Purpose, Stream};

    use super::*;

    #[test]
    fn the_lead_is_what_three_of_four_wake_ups_need() {
        let lead = Lead::new(200_000);
        let mut luck = Stream::new(1, Purpose::Jitter, 0);
        let mut sum = 0;
        for round in 0..4_000 {
            lead.learn(40_000 + luck.below(40_000));
            // A busy machine teaches nothing.
            lead.learn(5_000_000);
            if round >= 2_000 {
                sum += lead.nanos();
            }
        }
        let mean = sum / 2_000;
        assert!(mean.abs_diff(70_000) < 3_000, "{mean}");
    }

    #[test]
    fn at_most_a_tenth_of_the_time_is_waited_without_sleep() {
        let lead = Lead::new(100_000);
        let mut waited = 0;
        for millis in 1..=1_000 {
            lead.refill(Time::from_nanos(millis * 1_000_000));
            for _ in 0..10 {
                waited += lead.nanos();
                lead.spend(lead.nanos());
            }
        }
        assert!((90_000_000..=101_000_000).contains(&waited), "{waited}");
    }

    #[test]
    fn no_lead_is_never_learnt() {
        let lead = Lead::new(0);
        lead.learn(0);
        lead.learn(50_000);
        assert_eq!(lead.nanos(), 0);
    }
}
