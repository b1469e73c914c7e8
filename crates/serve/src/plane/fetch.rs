//! A request to an upstream for what may be stored, and how it is answered.

use std::sync::Arc;

use gatewright_control::cache::{CacheStatus, Exchange, Forward, Request, Shape};
use gatewright_determinism::Time;
use gatewright_record::CacheResult;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use tokio::sync::oneshot;

use super::arriving::Arriving;
use super::wanted::Wanted;
use super::{Failure, Plane};
use crate::answer::{Body, Relayed};
use crate::call::Call;
use crate::headers::FieldsOf;
use crate::store::{Entry, Fill, Lease, Line, Marks, Stage};

/// A request on its way to the upstream, for one client or for all.
pub(super) struct Fetch {
    pub(super) wanted: Arc<Wanted>,
    pub(super) key: Arc<str>,
    pub(super) forward: Forward,
    /// What is stored of its key.
    pub(super) line: Arc<Line>,
    /// Those who wait for it; nobody else may unless set.
    pub(super) fill: Option<Fill>,
    /// No other gateway that shares a tier fetches it meanwhile.
    pub(super) lease: Option<Lease>,
    pub(super) call: Arc<Call>,
    /// The client that began it; nobody in the background.
    pub(super) reply: Option<oneshot::Sender<Filled>>,
}

/// What the client that began a fetch is answered with.
pub(super) enum Filled {
    /// A stored response.
    Entry {
        entry: Arc<Entry>,
        shape: Shape,
        age: u64,
        status: CacheStatus,
        result: CacheResult,
    },
    /// The upstream's response, which others may read too.
    First {
        parts: Parts,
        body: Body,
        status: CacheStatus,
    },
    /// The upstream's response, for this client alone.
    Stream {
        parts: Parts,
        body: Box<Relayed>,
        status: CacheStatus,
    },
    Failed(Failure),
}

/// The head of a response that came.
pub(super) struct Came {
    pub(super) parts: Parts,
    pub(super) body: Arriving,
    pub(super) sent: Time,
    pub(super) marks: Marks,
    pub(super) received: Time,
}

impl Fetch {
    pub(super) fn answer(&mut self, filled: Filled) {
        if let Some(reply) = self.reply.take() {
            // Dropped if the client is gone; so is a response that was for it alone.
            drop(reply.send(filled));
        }
    }

    pub(super) fn exchange<'a>(
        &'a self,
        request: &'a Request<'a, FieldsOf<'a>>,
        came: &Came,
        response: &'a FieldsOf<'a>,
        plane: &Plane,
    ) -> Exchange<'a, FieldsOf<'a>, FieldsOf<'a>> {
        Exchange {
            request,
            target: self.wanted.target(),
            status: came.parts.status.as_u16(),
            response,
            sent: came.sent,
            received: came.received,
            anchor: plane.store.moment().anchor,
        }
    }

    /// Whether a response says of itself that it is too long to be stored.
    pub(super) fn is_too_long(&self, parts: &Parts, plane: &Plane) -> bool {
        length_of(parts).is_some_and(|length| length > plane.store.max_body as u64)
    }

    /// Lets whoever comes from now on ask anew; who waits already has what was told. Before a client has all of its
    /// answer: its next request must not be given the same once more.
    pub(super) fn land(&mut self) {
        drop(self.fill.take());
    }

    /// Remembers, here and where it is shared, that there is nothing to store.
    pub(super) fn note_uncacheable(&mut self, plane: &Plane) {
        let span = self.wanted.policy().remember_uncacheable.get();
        plane.store.note_uncacheable(&self.key, span);
        self.lease.iter_mut().for_each(|lease| lease.uncacheable(span));
    }

    /// Passes a response to its one client; the others ask for themselves.
    pub(super) fn pass(&mut self, came: Came, status: CacheStatus) {
        if let Some(fill) = &self.fill {
            fill.tell(Stage::Own);
        }
        let parts = came.parts;
        self.answer(match came.body {
            Arriving::Whole(bytes) => Filled::First { parts, body: Body::whole(bytes), status },
            Arriving::Coming(incoming, attempt) => {
                let body = Box::new(Relayed::new(None, incoming, attempt, parts.status));
                Filled::Stream { parts, body, status }
            }
        });
    }
}

/// How long a body says of itself that it is.
pub(super) fn length_of(parts: &Parts) -> Option<u64> {
    parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
