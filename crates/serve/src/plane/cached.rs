//! Requests that may be answered from the store.

use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::cache::{
    CacheStatus, Forward, ForwardReason, Found, Moment, Plan, PrimaryKey, Request, SendAs, Serve,
    decide, invalidated, on_failure,
};
use gatewright_control::compress::Coding;
use gatewright_record::CacheResult;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::sync::oneshot;

use super::coded::is_to_be_made;
use super::fetch::{Fetch, Filled};
use super::forward::streamed;
use super::wanted::{Wanted, from_entry, mark, target};
use super::{Asked, Failure, Plane, cause_of};
use crate::answer::{Body, Refusal, Shared};
use crate::call::Call;
use crate::function::Function;
use crate::headers::FieldsOf;
use crate::records::Trail;
use crate::route::Route;
use crate::store::{Fill, Flight, Line, Matcher, Purge, Reader, Stage, Turn, Variant, number};

/// How many fetches of others a request waits for before it asks for itself: each may have been for other
/// selecting fields, or broken off.
const ROUNDS: usize = 8;

impl Plane {
    #[expect(clippy::too_many_arguments, reason = "what a request consists of at this point")]
    pub(super) async fn cached<B>(
        self: &Arc<Self>,
        route: &Arc<Route>,
        function: &Arc<Function>,
        upstream: Uri,
        parts: Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let received = trail.invocation.received.unwrap_or_default();
        let wanted = Wanted {
            route: Arc::clone(route),
            function: Arc::clone(function),
            upstream,
            parts,
            asked: asked.clone(),
            deadline: received + function.timeout,
        };
        let fields = wanted.fields();
        let reads = body.is_end_stream() && wanted.read(&fields).method().reads_store();
        let Some(key) = wanted.key().filter(|_| reads) else {
            return self.through(wanted, body, trail).await;
        };
        trail.invocation.cache_key = Some(number(key.as_str().as_bytes()));
        Box::pin(self.missed(Arc::new(wanted), key.as_str(), trail)).await
    }

    /// Answers at once, if something fresh is stored: what most requests of a cached route come to.
    pub(super) fn hit(
        &self,
        route: &Route,
        parts: &Parts,
        coding: Option<Coding>,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        let policy = route.cache.as_ref()?;
        let fields = FieldsOf(&parts.headers);
        let request = Request::read(parts.method.as_str(), &fields, policy);
        if !request.method().reads_store() {
            return None;
        }
        let key = PrimaryKey::of(&target(parts), &fields, &policy.key)?;
        let line = self.store.get(key.as_str())?;
        // It came a moment ago: the clock is not read again for that.
        let moment = self.store.moment_at(trail.invocation.received.unwrap_or_default());
        let plan = decide(&request, &found(&line, false, moment), moment);
        let Plan::Serve(Serve { revalidate: None, variant, age, shape, status }) = plan else {
            return None;
        };
        let (age, head) = (Some(age.as_secs()), parts.method == Method::HEAD);
        let entry = &line.variants[variant].0;
        if is_to_be_made(route, entry, shape, coding) {
            return None;
        }
        let response = from_entry(entry, shape, age, status, head, coding)?;
        trail.invocation.cache_key = Some(number(key.as_str().as_bytes()));
        trail.cache(result_of(status));
        Some(response)
    }

    /// Answers from the store.
    pub(super) fn serve(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        line: &Line,
        serve: &Serve,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        trail.cache(result_of(serve.status));
        let entry = &line.variants[serve.variant].0;
        let age = Some(serve.age.as_secs());
        self.coded(wanted, key, entry, serve.shape, age, serve.status)
    }

    /// Answers what the first look at the store could not.
    async fn missed(
        self: &Arc<Self>,
        wanted: Arc<Wanted>,
        key: &str,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let mut passed: Option<Flight> = None;
        for _ in 0..ROUNDS {
            match self.turn(&wanted, key, passed.as_ref()) {
                Turn::Do(Plan::Serve(serve), line) => {
                    let Some(response) = self.serve(&wanted, key, &line, &serve, trail) else {
                        break;
                    };
                    if let Some(send) = serve.revalidate {
                        self.revalidate(&wanted, key, send, &line);
                    }
                    return Ok(response);
                }
                Turn::Do(Plan::NotCached, _) => {
                    let recalled = self.recall_only(&wanted, key, trail).await;
                    return recalled.ok_or_else(not_cached);
                }
                Turn::Do(Plan::Forward(forward), line) => {
                    return self.ask(wanted, key, forward, line, None, trail).await;
                }
                Turn::Lead(forward, line, fill) => {
                    return self.ask(wanted, key, forward, line, Some(fill), trail).await;
                }
                Turn::Do(Plan::Collapse, _) => break,
                Turn::Wait(mut flight) => {
                    let landed = self.in_time(&wanted, flight.landed()).await?;
                    match landed {
                        // It was broken off: somebody else leads.
                        None => continue,
                        Some(Stage::Own | Stage::Asking) => break,
                        Some(Stage::Failed(failure)) => {
                            return self.shared_failure(&wanted, key, &failure, trail);
                        }
                        Some(stage) => {
                            if let Some(response) = self.share(&wanted, key, stage, trail) {
                                return Ok(response);
                            }
                        }
                    }
                    passed = Some(flight);
                }
            }
        }
        let line = self.store.get(key).unwrap_or_default();
        let forward = match self.plan(&wanted, &line, false, true) {
            Plan::Forward(forward) => forward,
            Plan::NotCached => return Err(not_cached()),
            Plan::Serve(_) | Plan::Collapse => alone(),
        };
        self.ask(wanted, key, forward, line, None, trail).await
    }

    pub(super) fn plan(&self, wanted: &Wanted, line: &Line, fetching: bool, alone: bool) -> Plan {
        let moment = self.store.moment();
        let fields = wanted.fields();
        let mut found = found(line, fetching, moment);
        found.uncacheable |= alone;
        decide(&wanted.read(&fields), &found, moment)
    }

    fn turn(self: &Arc<Self>, wanted: &Wanted, key: &str, passed: Option<&Flight>) -> Turn {
        self.store.turn(key, passed, |line, fetching| self.plan(wanted, line, fetching, false))
    }

    /// Waits for others no longer than the request's time.
    async fn in_time<T>(
        &self,
        wanted: &Wanted,
        waits: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let late = || super::without_answer(gatewright_control::End::TimedOut, &wanted.function);
        let left = wanted.deadline - self.store.moment().now.min(wanted.deadline);
        tokio::time::timeout(left, waits).await.map_err(|_| late())
    }

    /// Answers with what another request's fetch brings, if it is for this one too.
    fn share(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        stage: Stage,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        let collapsed =
            CacheStatus { collapsed: true, ..CacheStatus::forwarded(ForwardReason::UriMiss) };
        let response = match stage {
            Stage::Head(entry) => {
                let (fields, moment) = (wanted.fields(), self.store.moment());
                let variants = [Variant(entry)];
                let found = Found { variants: &variants, fetching: true, uncacheable: false };
                let Plan::Serve(serve) = decide(&wanted.read(&fields), &found, moment) else {
                    return None;
                };
                let age = Some(serve.age.as_secs()).filter(|age| *age > 0);
                let status = CacheStatus { ttl: serve.status.ttl, ..collapsed };
                self.coded(wanted, key, &variants[0].0, serve.shape, age, status)?
            }
            Stage::Error(passing) => {
                let body = Body::Shared(Box::new(Shared::new(Reader::new(&passing.body)?)));
                let mut response = Response::new(body);
                *response.status_mut() = passing.status;
                *response.headers_mut() = passing.headers.clone();
                mark(response.headers_mut(), collapsed);
                response
            }
            Stage::Asking | Stage::Own | Stage::Failed(_) => return None,
        };
        trail.cache(CacheResult::Collapsed);
        self.note_answer(response.status(), trail);
        Some(response)
    }

    /// Another request's fetch failed: a stale response may do, or the failure is this request's too.
    fn shared_failure(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        failure: &Failure,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let line = self.store.get(key).unwrap_or_default();
        if let Plan::Forward(forward) = self.plan(wanted, &line, false, true)
            && let Some(response) = self.stale(wanted, key, &forward, &line, failure, trail)
        {
            return Ok(response);
        }
        trail.cache(CacheResult::Collapsed);
        Err(failure.clone())
    }

    /// A stale response in place of a failure, if that is allowed.
    fn stale(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        forward: &Forward,
        line: &Line,
        failure: &Failure,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        let variant = forward.fallback?;
        let (fields, moment) = (wanted.fields(), self.store.moment());
        let meta = &line.variants.get(variant)?.0.meta;
        let serve = on_failure(&wanted.read(&fields), variant, meta, cause_of(failure), moment)?;
        self.serve(wanted, key, line, &serve, trail)
    }

    /// Asks the upstream, in a task of its own: a fetch for others goes on when this client goes away.
    async fn ask(
        self: &Arc<Self>,
        wanted: Arc<Wanted>,
        key: &str,
        forward: Forward,
        line: Arc<Line>,
        fill: Option<Fill>,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        if line.is_paused(self.store.moment().now) {
            // It failed a moment ago: what is stale is served at once.
            let failure = Refusal::new(StatusCode::BAD_GATEWAY, "the upstream failed just now");
            let failure = Failure::from(failure);
            if let Some(response) = self.stale(&wanted, key, &forward, &line, &failure, trail) {
                return Ok(response);
            }
        }
        trail.cache(if forward.store { CacheResult::Miss } else { CacheResult::Bypass });
        let call = self.upstream_call(&wanted.function, &wanted.asked, trail);
        let (reply, answer) = oneshot::channel();
        self.spawn_fetch(Fetch {
            wanted: Arc::clone(&wanted),
            key: key.into(),
            forward,
            line,
            fill,
            lease: None,
            call,
            reply: Some(reply),
        });
        let filled = answer.await.map_err(|_| Failure::from(broken_off()))?;
        self.filled(&wanted, key, filled, trail)
    }

    /// The answer that came of asking the upstream.
    fn filled(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        filled: Filled,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let mut response = match filled {
            Filled::Entry { entry, shape, age, status, result } => {
                trail.cache(result);
                let age = Some(age).filter(|age| *age > 0 || result == CacheResult::Stale);
                self.coded(wanted, key, &entry, shape, age, status).ok_or_else(broken_off)?
            }
            Filled::First { parts, body, status } => {
                let mut response = Response::from_parts(parts, body);
                mark(response.headers_mut(), status);
                response
            }
            Filled::Stream { parts, body, status } => {
                let mut response = streamed(parts, *body);
                mark(response.headers_mut(), status);
                response
            }
            Filled::Failed(failure) => return Err(failure),
        };
        if wanted.is_head() && matches!(response.body(), Body::Shared(_)) {
            *response.body_mut() = Body::empty();
        }
        self.note_answer(response.status(), trail);
        Ok(response)
    }

    /// Asks for a stale response anew, unless somebody does already.
    pub(super) fn revalidate(
        self: &Arc<Self>,
        wanted: &Wanted,
        key: &str,
        send: SendAs,
        line: &Arc<Line>,
    ) {
        let Some(fill) = self.store.refresh(key) else { return };
        let mut wanted = wanted.clone();
        wanted.parts.method = Method::GET;
        let id = self.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        wanted.deadline = self.store.moment().now + wanted.function.timeout;
        let call = Arc::new(Call::new(id, None, wanted.deadline));
        let why = ForwardReason::Stale;
        let forward = Forward { why, send, lead: true, store: true, fallback: None };
        self.spawn_fetch(Fetch {
            wanted: Arc::new(wanted),
            key: key.into(),
            forward,
            line: Arc::clone(line),
            fill: Some(fill),
            lease: None,
            call,
            reply: None,
        });
    }

    /// Passes on what no store answers, and forgets what it changes.
    async fn through<B>(
        self: &Arc<Self>,
        wanted: Wanted,
        body: B,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        trail.cache(CacheResult::Bypass);
        let Wanted { function, upstream, parts, asked, route, .. } = wanted.clone();
        let sent = self.relay(&function, Some(&route), upstream, parts, body, &asked, trail);
        let mut response = sent.await?;
        self.invalidate(&wanted, response.status().as_u16(), response.headers());
        let why = if wanted.parts.method == Method::GET || wanted.is_head() {
            ForwardReason::Bypass
        } else {
            ForwardReason::Method
        };
        mark(response.headers_mut(), CacheStatus::forwarded(why));
        Ok(response)
    }

    /// Forgets what a response to an unsafe method makes invalid.
    fn invalidate(&self, wanted: &Wanted, status: u16, headers: &HeaderMap) {
        let fields = wanted.fields();
        let method = wanted.read(&fields).method();
        for url in invalidated(method, status, &wanted.target(), &FieldsOf(headers)) {
            let rules = &wanted.policy().key;
            let key = PrimaryKey::of(&url.as_target(), &fields, rules);
            if let Some(key) = key {
                let matcher = Matcher::Url(key.url().to_owned());
                self.store.purge(Purge { matcher, soft: false });
            }
        }
    }
}

fn found(line: &Line, fetching: bool, moment: Moment) -> Found<'_, Variant> {
    let uncacheable = line.is_uncacheable(moment.now);
    Found { variants: &line.variants, fetching, uncacheable }
}

pub(super) fn result_of(served: CacheStatus) -> CacheResult {
    let stale = served.ttl.is_some_and(|ttl| ttl < 0);
    if stale { CacheResult::Stale } else { CacheResult::Hit }
}

/// For a request that nobody else's fetch helped.
fn alone() -> Forward {
    let (why, send) = (ForwardReason::UriMiss, SendAs::AsReceived);
    Forward { why, send, lead: false, store: true, fallback: None }
}

fn not_cached() -> Failure {
    let refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, "nothing stored answers the request")
        .hint("it says only-if-cached; without that, the upstream is asked");
    refusal.into()
}

pub(super) fn broken_off() -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "the upstream broke off its answer")
}
