//! Requests without a task for each: who asked is told of the answer by the thread that has it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{Act, End, Event, RequestKey};
use gatewright_protocol::Arguments;
use parking_lot::Mutex;
use slotmap::{Key, KeyData};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::{EmbeddedHub, FUNCTION, HubError, NO_TIMEOUT, result};
use crate::call::{Call, Step};
use crate::driver::{Driver, Ticket};
use crate::function::Function;

/// Who asked, and is told how its requests go. Called by any thread; it must not wait.
pub trait Caller: Send + Sync + std::fmt::Debug {
    /// A piece of a result that comes in pieces; `text` if they are strings. There are at most [`ROOM`] of them
    /// that the caller has not said to have taken.
    fn piece(&self, id: u64, text: bool, data: Bytes);
    /// The request has ended. Called once for each, and nothing follows. A result that came in pieces ends with nil.
    fn ended(&self, id: u64, result: Result<Bytes, HubError>);
}

/// Pieces of one answer that are given to a caller before it has taken the first of them.
pub const ROOM: u32 = 16;

/// msgpack's nil.
const NIL: &[u8] = &[0xc0];

/// What the requests of a hub share.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) driver: Arc<Driver>,
    pub(super) function: Arc<Function>,
    /// For each answer that comes in pieces: how many more its caller takes.
    pub(super) rooms: Mutex<HashMap<u64, Arc<Semaphore>>>,
    pub(super) runtime: Handle,
}

impl EmbeddedHub {
    /// Takes a request as [`EmbeddedHub::request`] does, and returns its number, under which the caller will be
    /// told of it, perhaps before this returns. `timeout` counts from now; `None` waits for ever. Urgency 0 is
    /// served before 1, and 7 last.
    pub fn submit(
        &self,
        args: Bytes,
        kwargs: Bytes,
        timeout: Option<Duration>,
        urgency: u8,
        caller: Arc<dyn Caller>,
    ) -> u64 {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let deadline = self.driver.clock.now() + timeout.unwrap_or(NO_TIMEOUT).min(NO_TIMEOUT);
        let call = Call::new(id, Some(Arguments { args, kwargs }), deadline).with_urgency(urgency);
        let ticket = self.driver.invoke(&self.function, Arc::new(call));
        let ticket = ticket.expect("`start` has deployed the function");
        if let Some(attendance) = &self.driver.attendance {
            attendance.rouse();
        }
        let number = ticket.key.data().as_ffi();
        let place = Arc::clone(&self.place);
        let begun = AtomicBool::new(false);
        Arc::new(Asked { ticket, caller, timeout, begun, place }).advance();
        number
    }

    /// Gives a request of [`EmbeddedHub::submit`] up: it never starts, or its worker is told. The caller is told so
    /// as well.
    pub fn cancel(&self, number: u64) {
        let request = RequestKey::from(KeyData::from_ffi(number));
        self.driver.handle(Event::Cancel { request });
    }

    /// The caller has taken so many pieces of the answer to a request, and may be given as many more.
    pub fn more(&self, number: u64, pieces: u32) {
        if let Some(room) = self.place.rooms.lock().get(&number) {
            room.add_permits(pieces as usize);
        }
    }

    /// Ends what waits, lets go of every worker, and waits for their connections' end for `grace`.
    pub async fn close(&self, grace: Duration) {
        self.end_waiting();
        self.driver.kill.cancel();
        self.driver.tasks.close();
        drop(tokio::time::timeout(grace, self.driver.tasks.wait()).await);
        self.stop_listening().await;
    }

    /// Ends what waits, takes nothing more, and lets workers finish what they have.
    pub(super) fn end_waiting(&self) {
        let removed = self.driver.operate(Act::Remove { function: FUNCTION.to_owned() });
        if let Err(error) = removed {
            tracing::debug!(%error, "closed already");
        }
    }
}

/// A request that was submitted. It is the waker of its own call, which keeps it until the end.
#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    caller: Arc<dyn Caller>,
    timeout: Option<Duration>,
    /// Set when pieces of the answer were handed out: another attempt would begin it anew.
    begun: AtomicBool,
    place: Arc<Place>,
}

impl Wake for Asked {
    fn wake(self: Arc<Self>) {
        self.advance();
    }
}

impl Asked {
    /// Looks at what has happened. One thread at a time: the next one is woken by what this one left its waker with.
    fn advance(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.ticket.call.poll_step(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Step::Dispatched | Step::Pieces { .. })
                    if self.begun.load(Ordering::Relaxed) =>
                {
                    self.ticket.cancel();
                }
                Poll::Ready(Step::Dispatched) => {}
                Poll::Ready(Step::Pieces { text, pieces }) => {
                    self.begun.store(true, Ordering::Relaxed);
                    let runtime = self.place.runtime.clone();
                    runtime.spawn(async move {
                        tokio::select! {
                            () = self.hand_over(text, pieces) => {}
                            () = self.given_up() => {}
                        }
                        self.place.rooms.lock().remove(&self.number());
                        self.advance();
                    });
                    return;
                }
                Poll::Ready(Step::Ended(end)) => {
                    let answer = self.ticket.call.take_answer();
                    let result = match (end, answer) {
                        // What there was to say came in pieces.
                        (End::Ok, None) => Ok(Bytes::from_static(NIL)),
                        (end, answer) => {
                            let Place { driver, function, .. } = &*self.place;
                            result(driver, function, end, answer, self.timeout)
                        }
                    };
                    return self.caller.ended(self.number(), result);
                }
            }
        }
    }

    /// Gives pieces to the caller as fast as it takes them. While it takes none, the worker's connection is not
    /// read, so that its generator waits.
    async fn hand_over(&self, text: bool, mut pieces: mpsc::Receiver<Bytes>) {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        self.place.rooms.lock().insert(self.number(), Arc::clone(&room));
        while let Some(piece) = pieces.recv().await {
            let Ok(permit) = room.acquire().await else { return };
            permit.forget();
            self.caller.piece(self.number(), text, piece);
        }
    }

    /// Returns when nobody waits for the pieces any more.
    async fn given_up(&self) {
        loop {
            match self.ticket.call.step().await {
                Step::Ended(End::TimedOut | End::Cancelled) => return,
                Step::Ended(_) => std::future::pending().await,
                // Its worker was lost.
                Step::Dispatched | Step::Pieces { .. } => self.ticket.cancel(),
            }
        }
    }

    fn number(&self) -> u64 {
        self.ticket.key.data().as_ffi()
    }
}
