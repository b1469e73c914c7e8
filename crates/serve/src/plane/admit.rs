//! Whether a request may be made at all: its API key, and how often its client asked of late.

use std::sync::Arc;

use gatewright_record::Status;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::{Asked, Failure, Plane};
use crate::access::{API_KEY, Entry, Key};
use crate::answer::{Challenge, Refusal};
use crate::function::Function;
use crate::limits::{self, Asker, Told};
use crate::metrics::Rejection;
use crate::records::Trail;
use crate::route::Route;

impl Plane {
    /// Whether there is anything to look at before a request is let in.
    pub(super) fn is_guarded(
        &self,
        function: &Function,
        route: Option<&Route>,
        asked: &Asked,
    ) -> bool {
        let limited = function.limit.is_some() || route.is_some_and(|route| route.limit.is_some());
        // What comes over the admin API was let in there.
        asked.client.address.is_some() && (limited || self.access.is_used())
    }

    /// Lets a request in, or says why not. What its client is told of its limits is left in `told`, either way.
    pub(super) fn admit(
        &self,
        function: &Function,
        route: Option<&Route>,
        headers: &mut HeaderMap,
        asked: &Asked,
        trail: &mut Trail,
        told: &mut Option<Told>,
    ) -> Result<(), Failure> {
        if !self.is_guarded(function, route, asked) {
            return Ok(());
        }
        let limits = [route.and_then(|route| route.limit.as_ref()), function.limit.as_ref()];
        let key = self.access.identify(headers);
        trail.invocation.class = key.map(|key| Arc::clone(&key.name));
        let own = route.and_then(|route| route.keys.as_deref()).or(function.config.keys.as_deref());
        let entry = self.access.admits(key, own);
        if entry != Entry::Open {
            function.metrics.rejected(Rejection::Key);
            return Err(no_entry(entry, headers, key).into());
        }
        let key = key.map(|key| &*key.name);
        let asker = Asker { address: asked.client.address, key, headers };
        let now = trail.invocation.received.unwrap_or_default();
        *told = limits::ask(limits, &asker, now);
        let Some(wait) = told.as_ref().and_then(|told| told.wait) else { return Ok(()) };
        function.metrics.rejected(Rejection::Rate);
        let refusal =
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of one client");
        Err(Failure { status: Status::Shed, refusal: refusal.come_back_in(wait) })
    }
}

/// The answer to a request without the key that it needs.
fn no_entry(entry: Entry, headers: &HeaderMap, key: Option<&Key>) -> Refusal {
    if let (Entry::Forbidden, Some(key)) = (entry, key) {
        let error = format!("the API key `{}` is not for this", key.name);
        return Refusal::new(StatusCode::FORBIDDEN, error).challenge(Challenge::Forbidden);
    }
    let presented = headers.contains_key(AUTHORIZATION) || headers.contains_key(API_KEY);
    let (error, challenge) = match presented {
        true => ("the API key is not known", Challenge::Unknown),
        false => ("an API key is needed", Challenge::Missing),
    };
    Refusal::new(StatusCode::UNAUTHORIZED, error)
        .hint("send it as `Authorization: Bearer ...` or `X-API-Key: ...`")
        .challenge(challenge)
}
