use gatewright_control::{ReplicaKey, RequestKey};
use gatewright_determinism::Time;
use gatewright_record::CacheResult;

use super::event::Turn;
use crate::Fault;

/// Requests between sending and answer, and those that replicas still work on, in places that are used again: as many
/// as there ever were at once.
#[derive(Debug, Default)]
pub(super) struct Flights {
    places: Vec<Flight>,
    free: Vec<FlightId>,
    /// Attempts so far, to tell them apart.
    attempts: u32,
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
    /// Nanoseconds of its first service, where its trace tells them or nothing but its own luck decides about them.
    pub(super) span: u64,
    /// Whether its trace tells them.
    pub(super) recorded: bool,
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
    /// What the system knows it by, once it has been asked.
    pub(super) request: RequestKey,
    /// Whether it has ended for its client.
    pub(super) ended: bool,
    /// What a replica works on.
    pub(super) work: Option<Attempt>,
}

/// An attempt in service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) replica: ReplicaKey,
    /// Number in the run; the last 32 bits of it.
    serial: u32,
    /// 1 for the first of its request.
    pub(super) number: u32,
    /// Where it stands between its data and its service.
    pub(super) step: u32,
    pub(super) since: Time,
    /// Nanoseconds of service.
    pub(super) span: u64,
    /// How it fails, if it does otherwise than with an error.
    pub(super) fault: Option<Fault>,
}

impl Attempt {
    /// The attempt of this number at a replica, from now on.
    pub(super) const fn new(
        id: WorkId,
        replica: ReplicaKey,
        number: u32,
        since: Time,
        span: u64,
    ) -> Self {
        Self { replica, serial: id.serial, number, step: 0, since, span, fault: None }
    }
}

/// Work that a replica is done with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) request: RequestKey,
    pub(super) function: usize,
    /// Whether the request has ended for its client.
    pub(super) ended: bool,
    pub(super) attempt: Attempt,
}

/// An attempt of a flight. It may be over: its replica was lost, and the place may have another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkId {
    pub(super) flight: FlightId,
    serial: u32,
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

impl Flight {
    /// Whether nothing is to be said of it if it ends well, but when: it was tried once, by a replica that was there.
    pub(super) const fn is_plain(&self) -> bool {
        self.code == 0 && self.attempts == 1 && !self.cold && matches!(self.role, Role::Plain)
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

    /// A flight, and what the attempt is to be called that is made of it now.
    #[inline]
    pub(super) fn begin_work(&mut self, id: FlightId) -> (WorkId, &mut Flight) {
        self.attempts = self.attempts.wrapping_add(1);
        (WorkId { flight: id, serial: self.attempts }, &mut self.places[id as usize])
    }

    /// The attempt, if a replica still works on it, and its flight.
    pub(super) fn at_work(&mut self, work: WorkId) -> Option<&mut Flight> {
        let flight = &mut self.places[work.flight as usize];
        flight.work.as_ref().is_some_and(|it| it.serial == work.serial).then_some(flight)
    }

    /// The attempt, if a replica still works on it.
    pub(super) fn attempt(&mut self, work: WorkId) -> Option<&mut Attempt> {
        self.at_work(work)?.work.as_mut()
    }

    /// What a replica works on for this flight, and how that fails, if it does.
    pub(super) fn work_of(&self, id: FlightId) -> Option<(WorkId, Option<Fault>)> {
        let attempt = self.places[id as usize].work.as_ref()?;
        Some((WorkId { flight: id, serial: attempt.serial }, attempt.fault))
    }

    /// A replica no longer works on a request, whose place may be used again if nobody waits for it either. Nothing if
    /// it does not work on this attempt.
    #[inline(always)]
    pub(super) fn end_work(&mut self, work: WorkId) -> Option<Done> {
        let flight = &mut self.places[work.flight as usize];
        let attempt = flight.work.filter(|attempt| attempt.serial == work.serial)?;
        flight.work = None;
        if flight.ended {
            self.free.push(work.flight);
        }
        let function = flight.function as usize;
        Some(Done { request: flight.request, function, ended: flight.ended, attempt })
    }

    /// A request has ended for its client. The place may be used again when no replica works on it; what is there can
    /// be read until then.
    pub(super) fn end(&mut self, id: FlightId) -> &Flight {
        let flight = &mut self.places[id as usize];
        flight.ended = true;
        if flight.work.is_none() {
            self.free.push(id);
        }
        flight
    }

    /// Requests of no client that have not ended.
    pub(super) fn refreshing(&self) -> impl Iterator<Item = &Flight> {
        self.places.iter().filter(|flight| flight.role == Role::Refresh && !flight.ended)
    }

    /// What replicas work on.
    pub(super) fn works(&self) -> impl Iterator<Item = (WorkId, &Flight, &Attempt)> {
        (0..).zip(&self.places).filter_map(|(id, flight)| {
            let attempt = flight.work.as_ref()?;
            Some((WorkId { flight: id, serial: attempt.serial }, flight, attempt))
        })
    }

    /// The most flights there ever were at once.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.places.len()
    }
}
