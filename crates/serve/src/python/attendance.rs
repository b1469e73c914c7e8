use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use tokio::sync::Notify;

use super::replica::PythonReplica;
use super::talk::{Line, Stop};
use super::wakeful::Wakeful;
use crate::driver::Driver;

/// Workers that are heard at a time.
const BATCH: usize = 64;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// How often it is looked whether who attends is there, while calls are under way, and while nothing happens.
const TICK: Duration = Duration::from_millis(5);
const LONG_TICK: Duration = Duration::from_millis(50);
/// Ticks in which nothing happens before the longer ones.
const QUIET: u32 = 20;
/// How long an answer is waited for without sleeping.
const AWAKE: Duration = Duration::from_micros(50);
/// How long the hub hears its workers itself after who should have done so was busy.
const SHY: Duration = Duration::from_secs(1);

/// Workers that are heard by who asks them.
///
/// An answer that the hub's thread hears wakes two threads in turn: that one, and the one of the event loop that waits
/// for it. To be woken costs tens of microseconds, more than a short call takes. So an event loop that is the only one
/// to ask may *attend*: it watches one descriptor, behind which are the sockets of all workers, and hears them
/// itself. The hub's thread stands by: when something is unread for two ticks in a row, since the loop does
/// something else, or more calls wait than there are workers, it takes the workers back for a while.
#[derive(Debug)]
pub struct Attendance {
    /// Readable when a worker that is lent has said something.
    epoll: OwnedFd,
    lent: Mutex<BTreeMap<u64, Arc<Lent>>>,
    next: AtomicU64,
    /// Who asks: the loops that would attend, and those of other processes, which would have to wait for this one's.
    loops: AtomicUsize,
    guests: AtomicUsize,
    shy: AtomicBool,
    /// How often somebody has attended.
    visits: AtomicU64,
    resting: AtomicBool,
    roused: Notify,
    wakeful: Mutex<Wakeful>,
}

/// A worker that is lent.
#[derive(Debug)]
struct Lent {
    replica: Arc<PythonReplica>,
    driver: Arc<Driver>,
    /// Gone when it was given back.
    line: Mutex<Option<Line>>,
    returned: Notify,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Calls that wait for a worker.
    pub(crate) waiting: usize,
    /// Calls at workers.
    pub(crate) under_way: u32,
}

impl Attendance {
    /// One that nobody attends yet.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            lent: Mutex::default(),
            next: AtomicU64::new(0),
            loops: AtomicUsize::new(0),
            guests: AtomicUsize::new(0),
            shy: AtomicBool::new(false),
            visits: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            roused: Notify::new(),
            wakeful: Mutex::new(Wakeful::new()),
        }))
    }

    /// An event loop would attend. It calls [`Attendance::attend`] whenever this descriptor is readable.
    pub fn begin(&self) -> RawFd {
        self.loops.fetch_add(1, Ordering::Relaxed);
        self.take_back();
        self.epoll.as_raw_fd()
    }

    /// It does not any more.
    pub fn end(&self) {
        self.loops.fetch_sub(1, Ordering::Relaxed);
        self.take_back();
    }

    /// Another process has come to ask: nobody attends until what this returns is dropped.
    pub(crate) fn disturb(&self) -> Guest<'_> {
        self.guests.fetch_add(1, Ordering::Relaxed);
        self.take_back();
        Guest(self)
    }

    /// Hears every worker that has said something. Called by any thread; it does not wait.
    pub fn attend(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        let mut events = [const { MaybeUninit::uninit() }; BATCH];
        let seen = match epoll::wait(&self.epoll, &mut events[..], Some(&AT_ONCE)) {
            Ok((seen, _)) => seen,
            Err(error) => return tracing::debug!(%error, "cannot see who has said something"),
        };
        for event in seen {
            let lent = self.lent.lock().get(&event.data.u64()).cloned();
            if let Some(lent) = lent {
                self.hear(&lent);
            }
        }
    }

    /// Hears workers without sleeping until `has_come` is true, for as long as that has been worth it of late and at
    /// most 50 µs.
    pub fn linger(&self, has_come: impl Fn() -> bool) {
        // Held by nobody else, but for loops that come and go.
        let Some(mut wakeful) = self.wakeful.try_lock() else { return };
        if self.lent.lock().is_empty() {
            return;
        }
        let Some(watch) = wakeful.watch(AWAKE) else { return };
        while !has_come() {
            if !watch.goes_on() {
                return wakeful.learn(true);
            }
            self.attend();
        }
        wakeful.learn(false);
    }

    /// Hears one; what cannot be heard without waiting is left to the hub.
    fn hear(&self, lent: &Lent) {
        let mut place = lent.line.lock();
        let (Some(line), Some(link)) = (&mut *place, lent.replica.link.get()) else { return };
        if line.stopped.is_some() {
            return;
        }
        line.stopped = match line.reader.try_read(line.decoder.buffer()) {
            Ok(1..) => {
                lent.replica.heard.store(true, Ordering::Relaxed);
                lent.replica.take_in(&lent.driver, link, &mut line.decoder)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            end => Some(Stop::Ended(end)),
        };
        if line.stopped.is_some() {
            // At once: as long as it is watched here, the end of a connection would be news again and again.
            self.forget(line.reader.socket());
            lent.returned.notify_one();
        }
    }

    fn forget(&self, socket: &OwnedFd) {
        // It may have been forgotten before.
        let _forgotten = epoll::delete(&self.epoll, socket).is_ok();
    }

    /// Whether workers are to be lent.
    pub(super) fn is_wanted(&self) -> bool {
        self.loops.load(Ordering::Relaxed) == 1
            && self.guests.load(Ordering::Relaxed) == 0
            && !self.shy.load(Ordering::Relaxed)
    }

    /// Lends a worker until it is given back.
    pub(super) async fn lend(
        &self,
        replica: &Arc<PythonReplica>,
        driver: &Arc<Driver>,
        mut line: Line,
    ) -> Line {
        line.reader.look_away();
        let (replica, driver) = (Arc::clone(replica), Arc::clone(driver));
        let socket = Arc::clone(line.reader.socket());
        let (line, returned) = (Mutex::new(Some(line)), Notify::new());
        let lent = Arc::new(Lent { replica, driver, line, returned });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lent.lock().insert(id, Arc::clone(&lent));
        let loan = Loan { attendance: self, id, socket };
        let data = epoll::EventData::new_u64(id);
        match epoll::add(&self.epoll, &loan.socket, data, epoll::EventFlags::IN) {
            Ok(()) if self.is_wanted() => lent.returned.notified().await,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "a worker cannot be lent");
                self.shy.store(true, Ordering::Relaxed);
            }
        }
        drop(loan);
        let line = lent.line.lock().take();
        line.expect("only this takes it")
    }

    /// Takes back what is lent. Each worker may be lent again after what it says next.
    fn take_back(&self) {
        for lent in self.lent.lock().values() {
            lent.returned.notify_one();
        }
        self.rouse();
    }

    /// A call is under way.
    pub(crate) fn rouse(&self) {
        if self.resting.load(Ordering::SeqCst) && self.resting.swap(false, Ordering::SeqCst) {
            self.roused.notify_one();
        }
    }

    /// Looks after what is lent for as long as it is polled.
    pub(crate) async fn stand_by(self: Arc<Self>, load: impl Fn() -> Load + Send) {
        let (mut quiet, mut visits, mut behind) = (QUIET, 0, false);
        loop {
            if self.shy.load(Ordering::Relaxed) {
                tokio::time::sleep(SHY).await;
                self.shy.store(false, Ordering::Relaxed);
            }
            if quiet >= QUIET && self.may_rest(&load) {
                self.roused.notified().await;
                quiet = 0;
            }
            tokio::time::sleep(if quiet < QUIET { TICK } else { LONG_TICK }).await;
            let (seen, news) = (self.visits.load(Ordering::Relaxed), self.has_news());
            let nobody_came = seen == visits;
            // With calls that wait for a worker, it is better told of the next one by a thread that does nothing else.
            let lags = (nobody_came && news) || load().waiting > 0;
            if lags && behind {
                self.shy.store(true, Ordering::Relaxed);
                self.take_back();
            }
            quiet = if nobody_came && !news { quiet + 1 } else { 0 };
            (visits, behind) = (seen, lags);
        }
    }

    /// Whether nothing needs to be looked after until a call rouses.
    fn may_rest(&self, load: impl Fn() -> Load) -> bool {
        self.resting.store(true, Ordering::SeqCst);
        // A call that came before that was said to nobody.
        let rests = load() == Load::default();
        if !rests {
            self.resting.store(false, Ordering::SeqCst);
        }
        rests
    }

    fn has_news(&self) -> bool {
        let mut watched = [PollFd::new(&self.epoll, PollFlags::IN)];
        rustix::event::poll(&mut watched, Some(&AT_ONCE)).is_ok_and(|news| news > 0)
    }
}

/// That another process asks.
#[derive(Debug)]
pub(crate) struct Guest<'a>(&'a Attendance);

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// That a worker is lent; dropped, it is not.
struct Loan<'a> {
    attendance: &'a Attendance,
    id: u64,
    socket: Arc<OwnedFd>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.attendance.forget(&self.socket);
        self.attendance.lent.lock().remove(&self.id);
    }
}
