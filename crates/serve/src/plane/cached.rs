//! Requests that may be answered from the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatewright_control::Outcome;
use gatewright_control::cache::{self, Decision, Directives, Stored};
use gatewright_record::CacheResult;
use http::header::{
    ACCEPT_ENCODING, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use super::forward::streamed;
use super::{Asked, Failure, Plane};
use crate::answer::{Body, Refusal, Relayed, outcome_of};
use crate::call::{Call, Step};
use crate::function::Function;
use crate::headers::{self, CACHE_STATUS};
use crate::records::Trail;
use crate::route::{Lifetime, Route};
use crate::store::{Entry, Fetch, Fetched, KeyRef, Turn};
use crate::upstream::Outgoing;

/// How often a request waits for another one's fetch before it fetches for itself.
const WAITS: usize = 3;

/// What came of a request to an upstream whose answer may be stored.
enum Absorbed {
    /// All of it is here, for whoever asks.
    Whole(Arc<Entry>),
    /// It is for this request alone, or too long.
    Stream(http::response::Parts, Box<Relayed>),
    Failed(Failure),
}

/// What a route lets the store do.
#[derive(Clone, Copy)]
struct Rules {
    lifetime: Lifetime,
    authorized: bool,
}

impl Plane {
    #[expect(clippy::too_many_arguments, reason = "what a request consists of at this point")]
    pub(super) async fn cached<B>(
        self: &Arc<Self>,
        route: &Arc<Route>,
        function: &Arc<Function>,
        uri: Uri,
        parts: Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let key = KeyRef { route: route.number, path: &path };
        trail.invocation.cache_key = Some(key.number());
        let wishes = directives(&parts.headers);
        if !cache::request_cacheable(parts.method.as_str(), &wishes) || !body.is_end_stream() {
            trail.cache(CacheResult::Bypass);
            let mut response = self.relay(function, uri, parts, body, asked, trail).await?;
            status_line(&mut response, "gatewright; fwd=bypass");
            return Ok(response);
        }
        let rules = Rules {
            lifetime: route.cache.flatten(),
            authorized: parts.headers.contains_key(AUTHORIZATION),
        };
        if let Some(entry) = self.store.get(key)
            && let Decision::Hit { age } = self.look(Some(&entry), false, rules)
        {
            trail.cache(CacheResult::Hit);
            return Ok(hit(&entry, age, &parts.method));
        }
        trail.cache(CacheResult::Miss);
        let outgoing = outgoing(&parts, uri, asked);
        if rules.authorized || parts.method == Method::HEAD {
            return self.alone(key, function, outgoing, rules, asked, trail).await;
        }
        for _ in 0..WAITS {
            match self.store.turn(key, |entry, fetching| self.look(entry, fetching, rules)) {
                Turn::Found(entry) => {
                    trail.cache(CacheResult::Hit);
                    let age = entry.stored.map_or(Duration::ZERO, |s| s.age(self.book.clock.now()));
                    return Ok(hit(&entry, age, &parts.method));
                }
                Turn::Fetch(fetch) => {
                    return self.lead(fetch, function, outgoing, rules, asked, trail).await;
                }
                Turn::Wait(mut fetching) => {
                    // A fetch that ended without a word was broken off: somebody else leads.
                    let Ok(done) = fetching.wait_for(Option::is_some).await else { continue };
                    match done.clone() {
                        Some(Fetched::Shared(entry)) => {
                            trail.cache(CacheResult::Collapsed);
                            self.note_answer(entry.status, trail);
                            return Ok(collapsed(&entry));
                        }
                        Some(Fetched::Failed(failure)) => {
                            trail.cache(CacheResult::Collapsed);
                            return Err((*failure).clone());
                        }
                        Some(Fetched::Own) | None => break,
                    }
                }
            }
        }
        self.alone(key, function, outgoing, rules, asked, trail).await
    }

    fn look(&self, entry: Option<&Entry>, fetching: bool, rules: Rules) -> Decision {
        let usable = entry.filter(|entry| entry.public || !rules.authorized);
        let stored = usable.and_then(|entry| entry.stored.as_ref());
        cache::look_up(self.book.clock.now(), stored, fetching)
    }

    /// Fetches for this request; what may be stored is stored.
    async fn alone(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        function: &Arc<Function>,
        outgoing: Outgoing,
        rules: Rules,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let get = outgoing.method == Method::GET;
        let call = self.upstream_call(function, asked.id, trail);
        match self.absorb(function, outgoing, rules, call).await {
            Absorbed::Whole(entry) => {
                if get {
                    self.store.keep(key, &entry);
                }
                self.note_answer(entry.status, trail);
                Ok(fetched(&entry))
            }
            Absorbed::Stream(parts, body) => Ok(self.pass(parts, body, trail)),
            Absorbed::Failed(failure) => Err(failure),
        }
    }

    /// Fetches for everyone who asks meanwhile, in a task of its own: it goes on when this client goes away.
    async fn lead(
        self: &Arc<Self>,
        fetch: Fetch,
        function: &Arc<Function>,
        outgoing: Outgoing,
        rules: Rules,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let call = self.upstream_call(function, asked.id, trail);
        let (sender, receiver) = oneshot::channel();
        let (plane, function) = (Arc::clone(self), Arc::clone(function));
        tokio::spawn(async move {
            let absorbed = tokio::select! {
                absorbed = plane.absorb(&function, outgoing, rules, call) => absorbed,
                () = plane.driver.kill.cancelled() => return,
            };
            fetch.finish(match &absorbed {
                Absorbed::Whole(entry) => Fetched::Shared(Arc::clone(entry)),
                Absorbed::Stream(..) => Fetched::Own,
                Absorbed::Failed(failure) => Fetched::Failed(Arc::new(failure.clone())),
            });
            // Dropped if this client is gone; so is an answer that was for it alone.
            drop(sender.send(absorbed));
        });
        match receiver.await {
            Ok(Absorbed::Whole(entry)) => {
                self.note_answer(entry.status, trail);
                Ok(fetched(&entry))
            }
            Ok(Absorbed::Stream(parts, body)) => Ok(self.pass(parts, body, trail)),
            Ok(Absorbed::Failed(failure)) => Err(failure),
            Err(_) => Err(broken_off().into()),
        }
    }

    fn pass(
        &self,
        parts: http::response::Parts,
        body: Box<Relayed>,
        trail: &mut Trail,
    ) -> Response<Body> {
        self.note_answer(parts.status, trail);
        let line = format!("gatewright; fwd=miss; fwd-status={}", parts.status.as_u16());
        let mut response = streamed(parts, *body);
        status_line(&mut response, &line);
        response
    }

    /// Fetches, and reads the whole answer if it is for all.
    async fn absorb(
        &self,
        function: &Function,
        outgoing: Outgoing,
        rules: Rules,
        call: Arc<Call>,
    ) -> Absorbed {
        let head = outgoing.method == Method::HEAD;
        let (mut response, mut attempt) =
            match self.fetch(function, outgoing, Arc::clone(&call)).await {
                Ok(answered) => answered,
                Err(failure) => return Absorbed::Failed(failure),
            };
        let received = self.book.clock.now();
        headers::strip_hop_by_hop(response.headers_mut());
        let (mut parts, mut incoming) = response.into_parts();
        let fields = directives(&parts.headers);
        let lifetime =
            cache::lifetime(parts.status.as_u16(), rules.authorized, &fields, rules.lifetime);
        // An error is no one's own: those who wait for it now get it too, but it is not stored.
        let error = parts.status.is_client_error() || parts.status.is_server_error();
        let forbidden = fields.no_store || fields.private || rules.authorized;
        let shareable = lifetime.is_some() || (error && !forbidden);
        if head || !shareable || personal(&parts.headers) {
            let relayed = Relayed::new(None, incoming, attempt, parts.status);
            return Absorbed::Stream(parts, Box::new(relayed));
        }
        let mut body = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = incoming.frame() => frame,
                Step::Ended(end) = call.step() => return Absorbed::Failed(self.ended(end, function)),
            };
            match frame {
                None => break,
                Some(Err(_)) => {
                    attempt.finish(Outcome::Error);
                    return Absorbed::Failed(broken_off().into());
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    body.extend_from_slice(&data);
                    if body.len() > self.store.max_body {
                        let relayed =
                            Relayed::new(Some(body.freeze()), incoming, attempt, parts.status);
                        return Absorbed::Stream(parts, Box::new(relayed));
                    }
                }
            }
        }
        attempt.finish(outcome_of(parts.status));
        let initial_age = parts.headers.remove(AGE).map_or(Duration::ZERO, |age| seconds(&age));
        let body = body.freeze();
        // One length, whichever way it came.
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Absorbed::Whole(Arc::new(Entry {
            status: parts.status,
            headers: parts.headers,
            body,
            stored: lifetime.map(|lifetime| Stored { at: received, initial_age, lifetime }),
            public: fields.public,
        }))
    }
}

fn broken_off() -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "the upstream broke off its answer")
}

/// A request whose answer may be stored: for the whole of it, not encoded, whatever the client has already.
fn outgoing(parts: &Parts, uri: Uri, asked: &Asked) -> Outgoing {
    let mut headers = parts.headers.clone();
    headers::to_upstream(&mut headers, asked.client, &asked.request_id);
    for name in [
        ACCEPT_ENCODING,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ] {
        headers.remove(name);
    }
    Outgoing { method: parts.method.clone(), uri, headers, body: Bytes::new() }
}

fn directives(headers: &HeaderMap) -> Directives {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    Directives::parse(lines.filter_map(|line| line.to_str().ok()))
}

/// Whether an answer depends on who asked in a way that its key does not show. Encodings are not asked for.
fn personal(headers: &HeaderMap) -> bool {
    let varies = headers.get_all(VARY).iter().any(|line| {
        let line = line.to_str().unwrap_or("*");
        line.split(',')
            .any(|name| !matches!(name.trim(), "" | "accept-encoding" | "Accept-Encoding"))
    });
    varies || headers.contains_key(SET_COOKIE)
}

fn seconds(value: &HeaderValue) -> Duration {
    let digits = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(digits.unwrap_or(0))
}

fn hit(entry: &Entry, age: Duration, method: &Method) -> Response<Body> {
    let left = entry.stored.map_or(0, |stored| stored.lifetime.saturating_sub(age).as_secs());
    let mut response = whole(entry, &format!("gatewright; hit; ttl={left}"));
    response.headers_mut().insert(AGE, HeaderValue::from(age.as_secs()));
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

fn fetched(entry: &Entry) -> Response<Body> {
    let stored = if entry.stored.is_some() { "; stored" } else { "" };
    let status = entry.status.as_u16();
    whole(entry, &format!("gatewright; fwd=miss; fwd-status={status}{stored}"))
}

fn collapsed(entry: &Entry) -> Response<Body> {
    let status = entry.status.as_u16();
    whole(entry, &format!("gatewright; fwd=miss; fwd-status={status}; collapsed"))
}

fn whole(entry: &Entry, line: &str) -> Response<Body> {
    let mut response = Response::new(Body::whole(entry.body.clone()));
    *response.status_mut() = entry.status;
    *response.headers_mut() = entry.headers.clone();
    status_line(&mut response, line);
    response
}

fn status_line(response: &mut Response<Body>, line: &str) {
    if let Ok(line) = HeaderValue::try_from(line) {
        response.headers_mut().append(CACHE_STATUS, line);
    }
}
