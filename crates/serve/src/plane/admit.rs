//! What a request is for, and whether it may be made at all: what it says, its API key, and how often its client asked
//! of late. None of that has to wait.

use std::sync::Arc;

use gatewright_record::Status;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Version};

use super::{Asked, Failure, Plane, Squeeze};
use crate::access::{API_KEY, Entry, Key};
use crate::answer::{Challenge, Refusal};
use crate::function::Function;
use crate::headers;
use crate::limits::{self, Asker, Told};
use crate::metrics::Rejection;
use crate::records::Trail;
use crate::route::{Destination, Route};

/// What a request is for.
pub(super) struct Goal {
    pub(super) function: Arc<Function>,
    /// Nothing where its path names the function.
    pub(super) route: Option<Arc<Route>>,
}

impl Plane {
    /// Finds out what a request is for, and lets it in or says why not. What its client is told of its limits is left in
    /// `told`, either way.
    pub(super) fn let_in(
        &self,
        parts: &mut Parts,
        asked: &mut Asked,
        trail: &mut Trail,
        told: &mut Option<Told>,
    ) -> Result<Goal, Failure> {
        self.acceptable(parts)?;
        let path = parts.uri.path();
        let Some((destination, params)) = self.routes.find(path) else {
            return Err(nowhere(path).into());
        };
        let (name, route) = match destination {
            Destination::Named => (params.get("name").unwrap_or_default(), None),
            Destination::Route(route) => (&*route.function, Some(route)),
        };
        let function = self.functions.read().get(name).cloned();
        let Some(function) = function else { return Err(self.unknown(name)) };
        trail.asks(&function);
        trail.invocation.route = route.map(|route| Arc::clone(&route.pattern));
        self.admit(&function, route.map(|route| &**route), &mut parts.headers, asked, trail, told)?;
        asked.squeeze = route.and_then(|route| Squeeze::wanted(route, parts));
        Ok(Goal { function, route: route.cloned() })
    }

    /// Refuses what can mean two things (RFC 9112 section 3.2), and what goes in a circle.
    fn acceptable(&self, parts: &Parts) -> Result<(), Refusal> {
        let hosts = parts.headers.get_all(HOST).iter().count();
        let needed = parts.version == Version::HTTP_11 && parts.uri.authority().is_none();
        if hosts > 1 || (needed && hosts == 0) {
            let error = format!("a request names one host, not {hosts}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
        }
        if parts.version != Version::HTTP_10 && headers::waits_to_send(&parts.headers).is_none() {
            let error = "the request expects what is not known here";
            let refusal = Refusal::new(StatusCode::EXPECTATION_FAILED, error);
            return Err(refusal.hint("`100-continue` alone can be expected"));
        }
        if headers::is_loop(&parts.headers, &self.pseudonym) {
            let refusal =
                Refusal::new(StatusCode::LOOP_DETECTED, "the request has been here before");
            return Err(
                refusal.hint("an upstream leads back to this gateway: look at `http` and `to`")
            );
        }
        Ok(())
    }

    /// Whether there is anything to look at before a request is let in.
    fn is_guarded(&self, function: &Function, route: Option<&Route>, asked: &Asked) -> bool {
        let limited = function.limit.is_some() || route.is_some_and(|route| route.limit.is_some());
        // What comes over the admin API was let in there.
        asked.client.address.is_some() && (limited || self.access.is_used())
    }

    /// Looks at a request's key and limits.
    fn admit(
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
        trail.invocation.class = key.as_ref().map(|key| Arc::clone(&key.name));
        let own = route.and_then(|route| route.keys.as_deref()).or(function.config.keys.as_deref());
        let entry = self.access.admits(key.as_deref(), own);
        if entry != Entry::Open {
            function.metrics.rejected(Rejection::Key);
            return Err(no_entry(entry, headers, key.as_deref()).into());
        }
        let key = key.as_ref().map(|key| &*key.name);
        let asker = Asker { address: asked.client.address, key, headers };
        let now = trail.invocation.received.unwrap_or_default();
        *told = limits::ask(limits, &asker, now);
        let Some(wait) = told.as_ref().and_then(|told| told.wait) else { return Ok(()) };
        function.metrics.rejected(Rejection::Rate);
        let refusal =
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of one client");
        Err(Failure::new(Status::Shed, refusal.come_back_in(wait)))
    }
}

/// The answer to a path without a route.
fn nowhere(path: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("nothing is served at {path}"))
        .hint("functions are served at /function/{name}")
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
