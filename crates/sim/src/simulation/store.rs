use std::sync::Arc;

use gatewright_control::cache::{
    CachePolicy, Exchange, Failure, Forward, Found, Moment, Plan, Request, Serve, StoredResponse,
    Storing, Target, WallAnchor, decide, on_failure, storing,
};
use gatewright_determinism::Time;

use super::CacheSetup;
use super::flights::{FlightId, Flights, NONE};

/// The stored responses of a cached route and the fetches under way. What is stored, and what it is good for, is
/// decided by [`storing`], [`decide`] and [`on_failure`], as in the gateway; requests and responses have the header
/// fields that the model says. Memory is taken to suffice for all keys.
#[derive(Debug)]
pub(super) struct Store {
    policy: Arc<CachePolicy>,
    /// What the upstream says of how long its responses are fresh.
    cache_control: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    stored: Option<Box<StoredResponse>>,
    fetching: bool,
    /// Until when its responses are taken not to be storable.
    uncacheable: Time,
    /// When the request of the fetch under way was sent.
    sent: Time,
    /// Who waits for the fetch, in order of arrival: a list through the flights.
    first: FlightId,
    last: FlightId,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Answer from the store.
    Hit,
    /// The same, though it is stale; `refresh`: fetch it anew meanwhile, for nobody in particular.
    Stale { refresh: bool },
    /// Wait for the fetch under way.
    Collapse,
    /// Fetch; `lead`: for whoever else comes meanwhile as well.
    Fetch { lead: bool },
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Landed {
    /// The first of those who waited for it.
    pub(super) waiters: FlightId,
    /// A stale response stands in for the failure.
    pub(super) stale: bool,
}

/// Requests have no fields that say anything to a cache.
const FIELDS: [(&str, &str); 0] = [];
/// Keys are told apart by their numbers: all have one URL.
const TARGET: Target<'static> =
    Target { scheme: "http", authority: "upstream", path: "/", query: None };

impl Store {
    pub(super) fn new(setup: &CacheSetup) -> Self {
        let empty = Entry {
            stored: None,
            fetching: false,
            uncacheable: Time::ZERO,
            sent: Time::ZERO,
            first: NONE,
            last: NONE,
        };
        let cache_control =
            setup.lifetime.map(|lifetime| format!("max-age={}", lifetime.as_secs()));
        Self {
            policy: Arc::clone(&setup.policy),
            cache_control,
            entries: vec![empty; setup.keys as usize],
        }
    }

    /// What to do with a request for `key`; a fetch counts as begun.
    pub(super) fn ask(&mut self, now: Time, key: u32) -> Asked {
        let entry = &mut self.entries[key as usize];
        let request = Request::read("GET", &FIELDS[..], &self.policy);
        let variants: &[StoredResponse] = entry.stored.as_deref().map_or(&[], std::slice::from_ref);
        let uncacheable = now < entry.uncacheable;
        let found = Found { variants, fetching: entry.fetching, uncacheable };
        let asked = match decide(&request, &found, moment(now)) {
            Plan::Serve(Serve { revalidate: None, .. }) if variants[0].is_fresh(now) => Asked::Hit,
            Plan::Serve(serve) => Asked::Stale { refresh: serve.revalidate.is_some() },
            Plan::Collapse => Asked::Collapse,
            Plan::Forward(Forward { lead, .. }) => Asked::Fetch { lead: lead && !entry.fetching },
            Plan::NotCached => unreachable!("no request says only-if-cached"),
        };
        if matches!(asked, Asked::Fetch { lead: true } | Asked::Stale { refresh: true }) {
            entry.fetching = true;
            entry.sent = now;
        }
        asked
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

    /// The fetch of `key` has ended, well or not.
    pub(super) fn end_fetch(&mut self, now: Time, key: u32, ok: bool) -> Landed {
        let policy = Arc::clone(&self.policy);
        let request = Request::read("GET", &FIELDS[..], &policy);
        let entry = &mut self.entries[key as usize];
        entry.fetching = false;
        entry.last = NONE;
        let waiters = std::mem::replace(&mut entry.first, NONE);
        if !ok {
            let failed = |stored: &StoredResponse| {
                on_failure(&request, 0, stored, Failure::Connect, moment(now)).is_some()
            };
            return Landed { waiters, stale: entry.stored.as_deref().is_some_and(failed) };
        }
        let field = self.cache_control.as_deref().map(|value| ("cache-control", value));
        let exchange = Exchange {
            request: &request,
            target: TARGET,
            status: 200,
            response: field.as_slice(),
            sent: entry.sent,
            received: now,
            anchor: WallAnchor::default(),
        };
        match storing(&exchange, &policy) {
            // The response's delay counts for its age (RFC 9111 section 4.2.3), as it does in the gateway.
            Storing::Store { stored, .. } => entry.stored = Some(stored),
            Storing::Refuse(refusal) if refusal.is_lasting() => {
                entry.uncacheable = now + policy.remember_uncacheable.get();
            }
            Storing::Refuse(_) => {}
        }
        Landed { waiters, stale: false }
    }
}

fn moment(now: Time) -> Moment {
    Moment { now, anchor: WallAnchor::default() }
}
