use gatewright_determinism::Time;
use gatewright_record::CacheResult;

use super::event::Turn;

/// Requests between sending and answer, in places that are used again: as many as there ever were at once.
#[derive(Debug, Default)]
pub(super) struct Flights {
    places: Vec<Flight>,
    free: Vec<FlightId>,
}

/// A request's place in [`Flights`].
pub(super) type FlightId = u32;

/// No flight.
pub(super) const NONE: FlightId = FlightId::MAX;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// Number in the run.
    pub(super) id: u64,
    pub(super) demand: u32,
    /// The function that works on it now.
    pub(super) function: u32,
    /// How many have worked on it before.
    pub(super) stage: u32,
    /// The node of the first one's replica.
    pub(super) node: u32,
    pub(super) turn: Turn,
    /// Key asked for, where there is a cache.
    pub(super) key: u32,
    pub(super) sent: Time,
    pub(super) received: Time,
    /// When the gateway has read it and decides about it.
    pub(super) admitted: Time,
    pub(super) queued_out: Option<Time>,
    pub(super) started: Option<Time>,
    /// Number of the replica that was given it last.
    pub(super) replica: u64,
    pub(super) attempts: u32,
    pub(super) in_flight: u32,
    /// Tokens of prompt and answer, of a language model.
    pub(super) tokens: [u32; 2],
    /// When the first token of the answer was there.
    pub(super) first_token: Option<Time>,
    /// HTTP status code of its answer, where it is not one that says that all is well; else 0.
    pub(super) code: u16,
    pub(super) cold: bool,
    /// Whether it waits for a replica, at first or again.
    pub(super) waiting: bool,
    pub(super) role: Role,
    /// The next request that waits for the same fetch.
    pub(super) next_waiter: FlightId,
}

/// What a cache did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has no cache.
    Plain,
    Hit,
    /// It is answered by a response that is fresh no longer.
    Stale,
    /// It fetches, for others as well.
    Fetch,
    /// It fetches for itself: what comes cannot be stored.
    Alone,
    /// It is no client's: it fetches anew what is stale.
    Refresh,
    /// It waits for another one's fetch.
    Collapsed,
}

impl Role {
    /// What stands in the record.
    pub(super) const fn result(self) -> Option<CacheResult> {
        match self {
            Self::Plain => None,
            Self::Hit => Some(CacheResult::Hit),
            Self::Stale => Some(CacheResult::Stale),
            Self::Fetch | Self::Alone | Self::Refresh => Some(CacheResult::Miss),
            Self::Collapsed => Some(CacheResult::Collapsed),
        }
    }
}

impl Flights {
    pub(super) fn insert(&mut self, flight: Flight) -> FlightId {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = flight;
            place
        } else {
            self.places.push(flight);
            self.places.len() as FlightId - 1
        }
    }

    pub(super) fn get_mut(&mut self, id: FlightId) -> &mut Flight {
        &mut self.places[id as usize]
    }

    /// The place may be used again; what was there can be read until then.
    pub(super) fn remove(&mut self, id: FlightId) -> &Flight {
        self.free.push(id);
        &self.places[id as usize]
    }

    /// The most flights there ever were at once.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.places.len()
    }
}
