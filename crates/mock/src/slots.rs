use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gatewright_determinism::Time;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::Clock;

/// Places for a number of requests at a time, and the line of those that wait for one.
///
/// A place is handed on at the moment its holder was due to leave it, not when that was noticed, so lateness
/// does not add up along the line.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    limit: u32,
    queue: usize,
    /// As in `state`, to be read without the lock.
    taken: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: u32,
    waiting: VecDeque<oneshot::Sender<(Slot, Time)>>,
}

/// How a request fares that asks for a place.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It has one.
    Now(Slot),
    /// It is in line; it will be told the place and the moment from which it has it.
    Later(oneshot::Receiver<(Slot, Time)>),
    /// The line is full.
    Full,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Option<Arc<Inner>>,
}

impl Slots {
    /// No limit means no line either.
    pub(crate) fn new(clock: Clock, limit: Option<NonZeroU32>, queue: u32) -> Self {
        let inner = Inner {
            clock,
            limit: limit.map_or(u32::MAX, NonZeroU32::get),
            queue: queue as usize,
            taken: AtomicU32::new(0),
            state: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Places taken now.
    pub(crate) fn taken(&self) -> u32 {
        self.inner.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self) -> Entry {
        let mut state = self.inner.state.lock();
        if state.taken < self.inner.limit {
            state.taken += 1;
            self.inner.taken.store(state.taken, Ordering::Relaxed);
            return Entry::Now(Slot { slots: Some(Arc::clone(&self.inner)) });
        }
        if state.waiting.len() >= self.inner.queue {
            // Those who gave up may still stand in line.
            state.waiting.retain(|waiter| !waiter.is_closed());
            if state.waiting.len() >= self.inner.queue {
                return Entry::Full;
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Entry::Later(receiver)
    }
}

impl Slot {
    /// Leaves at `at`, which may be a little in the past.
    pub(crate) fn leave_at(mut self, at: Time) {
        if let Some(inner) = self.slots.take() {
            leave(inner, at);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(inner) = self.slots.take() {
            let now = inner.clock.now();
            leave(inner, now);
        }
    }
}

/// Hands the place to the first in line who still waits.
fn leave(inner: Arc<Inner>, at: Time) {
    let mut slot = Slot { slots: Some(inner) };
    loop {
        let inner = slot.slots.take().expect("the slot has been taken back");
        let next = {
            let mut state = inner.state.lock();
            let next = state.waiting.pop_front();
            if next.is_none() {
                state.taken -= 1;
                inner.taken.store(state.taken, Ordering::Relaxed);
            }
            next
        };
        let Some(waiter) = next else { return };
        slot.slots = Some(inner);
        match waiter.send((slot, at)) {
            Ok(()) => return,
            Err((back, _)) => slot = back,
        }
    }
}

impl Entry {
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }

    /// Waits for the place; `now` is when it was asked for. None if the line was full.
    pub(crate) async fn wait(self, now: Time) -> Option<(Slot, Time)> {
        match self {
            Self::Now(slot) => Some((slot, now)),
            Self::Later(told) => told.await.ok(),
            Self::Full => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limit: u32, queue: u32) -> Slots {
        Slots::new(Clock::start(), NonZeroU32::new(limit), queue)
    }

    fn taken(entry: Entry) -> Slot {
        let Entry::Now(slot) = entry else { panic!("{entry:?}") };
        slot
    }

    #[test]
    fn the_line_is_served_in_order_from_the_moment_of_leaving() {
        let slots = slots(1, 2);
        let first = taken(slots.enter());
        let Entry::Later(mut second) = slots.enter() else { panic!() };
        let Entry::Later(mut third) = slots.enter() else { panic!() };
        assert!(matches!(slots.enter(), Entry::Full));
        first.leave_at(Time::from_nanos(5));
        assert!(third.try_recv().is_err());
        let (slot, at) = second.try_recv().unwrap();
        assert_eq!((at, slots.taken()), (Time::from_nanos(5), 1));
        drop(slot);
        drop(third.try_recv().unwrap());
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn a_place_is_not_lost_to_those_who_gave_up() {
        let slots = slots(1, 3);
        let first = taken(slots.enter());
        let Entry::Later(gone) = slots.enter() else { panic!() };
        let Entry::Later(told_and_gone) = slots.enter() else { panic!() };
        drop(gone);
        first.leave_at(Time::ZERO);
        // It has been told, and goes without listening: the place comes back.
        drop(told_and_gone);
        assert_eq!(slots.taken(), 0);
        let _again = taken(slots.enter());
        for _ in 0..10 {
            assert!(matches!(slots.enter(), Entry::Later(_)), "who gave up makes room in the line");
        }
    }
}
