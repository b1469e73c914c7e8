//! The side of the process that has the hub: other processes of this machine that share it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::wire::{Ask, BUFFER, Tell, next, write};
use super::{Caller, EmbeddedHub, HubError, is_ours};
use crate::python::{Link, split_unix};

/// How long a process may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// The processes that share a hub with the one that has it.
#[derive(Debug)]
pub(super) struct Guests {
    hub: Arc<EmbeddedHub>,
    /// What a process must be told, to share it.
    terms: String,
    token: String,
    present: Mutex<Vec<Weak<Guest>>>,
    /// Requests of theirs without an answer.
    open: Arc<AtomicUsize>,
}

/// One of them.
#[derive(Debug)]
struct Guest {
    link: Link,
    /// Its numbers of the requests that are open, and the hub's.
    numbers: Mutex<HashMap<u64, u64>>,
    open: Arc<AtomicUsize>,
}

/// A request of a guest. It is told so under its own number.
#[derive(Debug)]
struct Theirs {
    guest: Arc<Guest>,
    id: u64,
    ended: AtomicBool,
}

impl Caller for Theirs {
    fn piece(&self, _: u64, text: bool, data: Bytes) {
        self.guest.tell(&Tell::Piece { id: self.id, text, data });
    }

    fn ended(&self, _: u64, result: Result<Bytes, HubError>) {
        let id = self.id;
        self.ended.store(true, Ordering::Release);
        self.guest.numbers.lock().remove(&id);
        self.guest.tell(&match result {
            Ok(value) => Tell::Value { id, value },
            Err(why) => Tell::Failed { id, why },
        });
        self.guest.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Guest {
    fn tell(&self, message: &Tell) {
        self.link.send_with(|out| write(message, out));
    }
}

impl Guests {
    pub(super) fn new(hub: Arc<EmbeddedHub>, terms: String, token: String) -> Arc<Self> {
        let (present, open) = (Mutex::default(), Arc::default());
        Arc::new(Self { hub, terms, token, present, open })
    }

    /// Takes processes in for as long as it is polled; `staying` has a task for each.
    pub(super) async fn receive(
        self: Arc<Self>,
        listener: &UnixListener,
        staying: &mut JoinSet<()>,
    ) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_ours(&stream) => {
                    staying.spawn(Arc::clone(&self).entertain(stream));
                }
                Ok(_) => tracing::warn!("a process of another user wants to share the hub"),
                Err(error) => {
                    tracing::warn!(%error, "cannot let a process share the hub");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while staying.try_join_next().is_some() {}
        }
    }

    /// Tells all that the port is free for another one.
    pub(super) fn send_away(&self) {
        for guest in self.present.lock().drain(..) {
            if let Some(guest) = guest.upgrade() {
                guest.tell(&Tell::Leaving);
            }
        }
    }

    /// Waits until every request of theirs is answered.
    pub(super) async fn answered(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Serves one process until its connection ends; what it has asked for is given up then.
    async fn entertain(self: Arc<Self>, stream: UnixStream) {
        let Ok((mut reader, writer)) = split_unix(stream) else { return };
        let mut buffer = BytesMut::with_capacity(BUFFER);
        let link = Link::new(writer);
        let numbers = Mutex::default();
        let guest = Arc::new(Guest { link, numbers, open: Arc::clone(&self.open) });
        let greeting = tokio::time::timeout(GREETING, next(&mut reader, &mut buffer)).await;
        let Ok(Some(Ask::Greeting { terms, token })) = greeting else { return };
        if let Some(reason) = self.objection(&terms, &token) {
            guest.tell(&Tell::Refused { reason });
            // It hears that and goes.
            let gone = async {
                tokio::select! {
                    _ = next::<Ask>(&mut reader, &mut buffer) => {}
                    () = guest.link.flush() => {}
                }
            };
            return drop(tokio::time::timeout(GREETING, gone).await);
        }
        self.welcome(&guest);
        let _presence = self.hub.driver.attendance.as_ref().map(|attendance| attendance.disturb());
        let serve = async {
            while let Some(ask) = next(&mut reader, &mut buffer).await {
                self.hear(&guest, ask);
            }
        };
        tokio::select! {
            () = serve => {}
            () = guest.link.flush() => {}
        }
        let numbers: Vec<_> = guest.numbers.lock().values().copied().collect();
        for number in numbers {
            self.hub.cancel(number);
        }
    }

    fn welcome(&self, guest: &Arc<Guest>) {
        let mut present = self.present.lock();
        present.retain(|guest| guest.strong_count() > 0);
        present.push(Arc::downgrade(guest));
        guest.tell(&Tell::Welcome);
    }

    fn objection(&self, terms: &str, token: &str) -> Option<String> {
        use subtle::ConstantTimeEq;
        if terms != self.terms {
            return Some(format!("it has {}, this process {terms}", self.terms));
        }
        let same = bool::from(token.as_bytes().ct_eq(self.token.as_bytes()));
        (!same).then(|| "it has another token".to_owned())
    }

    fn hear(&self, guest: &Arc<Guest>, ask: Ask) {
        match ask {
            Ask::Greeting { .. } => {}
            Ask::Request { id, timeout, urgency, args, kwargs } => {
                let timeout = timeout.map(Duration::from_micros);
                let theirs = Arc::new(Theirs {
                    guest: Arc::clone(guest),
                    id,
                    ended: AtomicBool::new(false),
                });
                let caller = Arc::clone(&theirs) as Arc<dyn Caller>;
                self.open.fetch_add(1, Ordering::AcqRel);
                let number = self.hub.submit(args, kwargs, timeout, urgency, caller);
                let mut numbers = guest.numbers.lock();
                // Its answer may have been there before its number was: then this is looked at after that was set.
                if !theirs.ended.load(Ordering::Acquire) {
                    numbers.insert(id, number);
                }
            }
            Ask::Cancel { id } => {
                let number = guest.numbers.lock().get(&id).copied();
                if let Some(number) = number {
                    self.hub.cancel(number);
                }
            }
            Ask::More { id, count } => {
                let number = guest.numbers.lock().get(&id).copied();
                if let Some(number) = number {
                    self.hub.more(number, count);
                }
            }
            Ask::Status { id } => guest.tell(&Tell::Status { id, status: self.hub.status() }),
        }
    }
}
