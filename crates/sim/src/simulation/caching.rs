//! What a cache makes of a request before the system has it, and of what comes back.

use gatewright_control::End;

use super::engine::Engine;
use super::event::Event;
use super::flights::{Flight, FlightId, NONE, Role};
use super::store::Asked;

impl Engine<'_> {
    pub(super) fn ask_cache(&mut self, id: FlightId, cache: usize) {
        let flight = self.flights.get_mut(id);
        match self.stores[cache].ask(self.now, flight.key) {
            Asked::Hit => {
                flight.role = Role::Hit;
                self.answer_stored(id, cache);
            }
            Asked::Stale { refresh } => {
                flight.role = Role::Stale;
                // It has the luck of the request that found it stale, which needs none upstream.
                let refreshing = Flight { role: Role::Refresh, ..*flight };
                self.answer_stored(id, cache);
                if refresh {
                    let id = self.flights.insert(refreshing);
                    self.invoke(id);
                }
            }
            Asked::Collapse => {
                flight.role = Role::Collapsed;
                let key = flight.key;
                self.stores[cache].wait(&mut self.flights, key, id);
            }
            Asked::Fetch { lead } => {
                flight.role = if lead { Role::Fetch } else { Role::Alone };
                self.invoke(id);
            }
        }
    }

    /// A request will be answered from the store.
    fn answer_stored(&mut self, id: FlightId, cache: usize) {
        let flight = self.flights.get_mut(id);
        let mut luck = self.service_luck.of(flight.id);
        let span = self.setup.caches[cache].hit.draw(&mut luck);
        let due = flight.received.plus_nanos(span).max(self.now);
        self.calendar.push(due, Event::Answer { flight: id });
    }

    /// What a cache fetches has come, or will not.
    #[inline(never)]
    pub(super) fn fetch_ended(&mut self, id: FlightId, end: End) {
        let flight = self.flights.get_mut(id);
        let Some((cache, _)) = &self.setup.demands[flight.demand as usize].cache else { return };
        let (is_refresh, code) = (flight.role == Role::Refresh, flight.code);
        let landed = self.stores[*cache].end_fetch(self.now, flight.key, end == End::Ok);
        if is_refresh {
            self.flights.end(id);
        } else {
            self.share(id, end, landed.stale);
        }
        let mut waiter = landed.waiters;
        while waiter != NONE {
            let next = self.flights.get_mut(waiter).next_waiter;
            // Who waited for a fetch shares its fate.
            self.flights.get_mut(waiter).code = code;
            self.share(waiter, end, landed.stale);
            waiter = next;
        }
    }

    /// A fetch that a request made or waited for has ended; something stale may stand in for a failure.
    fn share(&mut self, id: FlightId, end: End, stale: bool) {
        if stale {
            let flight = self.flights.get_mut(id);
            (flight.role, flight.code) = (Role::Stale, 0);
        }
        self.complete(id, if stale { End::Ok } else { end });
    }

    pub(super) fn answer_from_cache(&mut self, id: FlightId) {
        self.complete(id, End::Ok);
    }
}
