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
    /// The moment the descriptor is set to.
    armed: Cell<Time>,
    /// How long before a moment the descriptor fires, to wait for the rest without sleeping.
    spin: u64,
    lateness: Arc<Lateness>,
}

impl Timer {
    /// To be made inside the runtime of the thread; [`Timer::run`] must be running for it to work.
    pub(crate) fn new(clock: Clock, spin: u64, lateness: Arc<Lateness>) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = watched(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        let inner = Inner {
            clock,
            descriptor,
            waiting: RefCell::default(),
            next_number: Cell::new(0),
            armed: Cell::new(Time::MAX),
            spin,
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
            self.inner.armed.set(Time::MAX);
            self.inner.wake_due();
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
            if due.nanos_since(now) > self.spin {
                self.arm(due);
                return;
            }
            while now < due {
                std::hint::spin_loop();
                now = self.clock.now();
            }
            // The borrow must end before the waker runs.
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
            }
            if self.spin > 0 {
                // One at a time: its answer must leave before another is waited for.
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
        let early = Time::from_nanos(due.as_nanos().saturating_sub(self.spin));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: zero, it_value: self.clock.timespec(early) };
        // It fails for a bad descriptor or a bad time only, and these are neither.
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::ABSTIME, &value)
            .expect("an own timerfd takes any valid time");
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
