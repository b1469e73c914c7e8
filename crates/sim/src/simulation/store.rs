use std::time::Duration;

use gatewright_control::cache::{self, Decision, Stored};
use gatewright_determinism::Time;

use super::CacheSetup;
use super::flights::{FlightId, Flights, NONE};

/// The stored responses of a cached route and the fetches under way. What is good for what is decided by
/// [`cache::look_up`], as in the gateway. Memory is taken to suffice for all keys.
#[derive(Debug)]
pub(super) struct Store {
    lifetime: Option<Duration>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    stored: Option<Stored>,
    fetching: bool,
    /// Who waits for the fetch, in order of arrival: a list through the flights.
    first: FlightId,
    last: FlightId,
}

impl Store {
    pub(super) fn new(setup: &CacheSetup) -> Self {
        let empty = Entry { stored: None, fetching: false, first: NONE, last: NONE };
        Self { lifetime: setup.lifetime, entries: vec![empty; setup.keys as usize] }
    }

    /// What to do with a request for `key`; a fetch counts as begun.
    pub(super) fn ask(&mut self, now: Time, key: u32) -> Decision {
        let entry = &mut self.entries[key as usize];
        let decision = cache::look_up(now, entry.stored.as_ref(), entry.fetching);
        entry.fetching |= decision == Decision::Fetch;
        decision
    }

    /// A request waits for the fetch of `key`.
    pub(super) fn wait(&mut self, flights: &mut Flights, key: u32, flight: FlightId) {
        let entry = &mut self.entries[key as usize];
        if entry.last == NONE {
            entry.first = flight;
        } else {
            flights.get_mut(entry.last).next_waiter = flight;
        }
        entry.last = flight;
    }

    /// The fetch of `key` has ended, well or not; returns the first of those who waited for it.
    pub(super) fn end_fetch(&mut self, now: Time, key: u32, ok: bool) -> FlightId {
        let entry = &mut self.entries[key as usize];
        entry.fetching = false;
        if let (true, Some(lifetime)) = (ok, self.lifetime) {
            entry.stored = Some(Stored { at: now, initial_age: Duration::ZERO, lifetime });
        }
        entry.last = NONE;
        std::mem::replace(&mut entry.first, NONE)
    }
}
