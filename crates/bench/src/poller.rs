use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

pub(crate) use rustix::event::epoll::{Event, EventFlags};

/// One thread's set of sockets, which it waits for together with the next moment of its schedule.
///
/// Waiting is exact to some microseconds: the timeout is in nanoseconds (`epoll_pwait2`) and the thread's
/// timer slack, by default 50 us, is set to one nanosecond. Sockets are edge-triggered and registered once for
/// both directions, so a request costs no further call to `epoll`.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// Few enough for what is due not to wait long behind a batch of answers.
const BATCH: usize = 64;

impl Poller {
    /// To be made on the thread that will wait, whose timer slack it sets.
    pub(crate) fn new() -> io::Result<Self> {
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
            tracing::debug!(%error, "the timer slack stays at its default; requests may be 50 us late");
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(BATCH) })
    }

    /// Watches `socket` until it is closed; its events carry `token`.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits for events, for at most `nanos` nanoseconds, and takes them out.
    pub(crate) fn wait(&mut self, nanos: u64) -> io::Result<Vec<Event>> {
        let timeout = Timespec {
            tv_sec: (nanos / 1_000_000_000).cast_signed(),
            tv_nsec: (nanos % 1_000_000_000).cast_signed(),
        };
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(events),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back what [`Poller::wait`] returned, so that its memory is used again.
    pub(crate) fn put_back(&mut self, mut events: Vec<Event>) {
        events.clear();
        self.events = events;
    }
}
