//! Requests that an upstream answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{End, Outcome, is_idempotent};
use gatewright_record::Status;
use http::header::{ACCEPT_ENCODING, EXPECT, IF_RANGE, RANGE, RETRY_AFTER, TRAILER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body_util::Full;

use super::{Asked, Failure, Plane};
use crate::answer::{Attempt, Body, Refusal, Relayed};
use crate::call::{Call, Step};
use crate::check::Check;
use crate::function::Function;
use crate::headers;
use crate::records::Trail;
use crate::route::Route;
use crate::upstream::{Outgoing, Received, SendError, Sent, Stream};

/// Longest request body in bytes that is read whole before it is passed on.
const READ_WHOLE: u64 = 64 * 1024;

/// How long after a broken connection the end of a program is waited for, so that its request is tried again as
/// that of a lost replica.
const LOSS_SEEN_WITHIN: Duration = Duration::from_millis(100);

impl Plane {
    /// Passes a request on and its answer back, as it comes; all at once if it is to be checked.
    #[expect(clippy::too_many_arguments, reason = "what a request consists of at this point")]
    pub(super) async fn relay<B>(
        &self,
        function: &Arc<Function>,
        route: Option<&Route>,
        uri: Uri,
        mut parts: Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let body = self.sent(body, function, &parts, trail).await?;
        let trailers = headers::takes_trailers(&parts.headers);
        let check = self.prepare(function, route, &mut parts, asked);
        if trailers && check.is_none() {
            headers::ask_for_trailers(&mut parts.headers);
        }
        if matches!(body, Sent::Whole(_)) {
            // What comes behind it is not here, and its client has been told to send it.
            parts.headers.remove(TRAILER);
            parts.headers.remove(EXPECT);
        }
        let outgoing = Outgoing::new(parts.method, uri, parts.headers);
        let outgoing = Outgoing { body, client: asked.client.address, ..outgoing };
        let stream = match &outgoing.body {
            Sent::Streamed(stream) => Some(Arc::clone(stream)),
            Sent::Whole(_) => None,
        };
        let call = self.upstream_call(function, asked, trail);
        let answered = self.fetch(function, outgoing, Arc::clone(&call)).await;
        if let Some(stream) = &stream {
            trail.invocation.bytes_in = stream.bytes();
        }
        let (response, attempt) = answered.map_err(|failure| match stream {
            Some(stream) if stream.is_too_long() => self.too_large().into(),
            Some(stream) if stream.is_broken() => {
                let error = "the request's body did not come whole";
                Refusal::new(StatusCode::BAD_REQUEST, error).into()
            }
            _ => failure,
        })?;
        self.passed_back(response, attempt, check, &call, trailers, function, trail).await
    }

    /// Makes the fields of a client's request those of one to the upstream. What its answer is to be checked against,
    /// if it is.
    pub(super) fn prepare<'a>(
        &self,
        function: &'a Function,
        route: Option<&'a Route>,
        parts: &mut Parts,
        asked: &Asked,
    ) -> Option<&'a Check> {
        self.address(&mut parts.headers, asked);
        let check = route.and_then(|route| route.check.as_ref()).or(function.output.as_ref());
        let check = check.filter(|_| parts.method != Method::HEAD);
        if check.is_some() {
            // What is looked at must be whole and readable.
            for name in [ACCEPT_ENCODING, RANGE, IF_RANGE] {
                parts.headers.remove(name);
            }
        }
        check
    }

    /// Passes an upstream's answer back, with what comes behind its body if the client takes that.
    #[expect(clippy::too_many_arguments, reason = "what an answer consists of at this point")]
    pub(super) async fn passed_back(
        &self,
        mut response: Response<Received>,
        attempt: Attempt,
        check: Option<&Check>,
        call: &Call,
        trailers: bool,
        function: &Function,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        headers::strip_hop_by_hop(response.headers_mut());
        let check = check.filter(|check| check.concerns(response.status()));
        if !trailers || check.is_some() {
            response.headers_mut().remove(TRAILER);
        }
        let (parts, incoming) = response.into_parts();
        self.note_answer(parts.status, trail);
        let status = parts.status;
        if let Some(check) = check {
            let max = self.store.max_body;
            let body = self.checked(check, &parts, incoming, attempt, call, max, function).await?;
            return Ok(Response::from_parts(parts, Body::whole(body)));
        }
        let body = Relayed::new(None, incoming, attempt, status);
        Ok(streamed(parts, if trailers { body.with_trailers() } else { body }))
    }

    /// Makes the fields of a request to an upstream of those of the client's.
    pub(super) fn address(&self, fields: &mut HeaderMap, asked: &Asked) {
        let (id, name) = (&asked.request_id, &self.pseudonym);
        headers::to_upstream(fields, &self.forwarding, asked.client, id, name);
    }

    /// The body for the upstream: a short one is read whole, so that it can be sent twice; a long one, or one of
    /// unknown length, is passed on as it comes.
    async fn sent<B>(
        &self,
        body: B,
        function: &Function,
        parts: &Parts,
        trail: &mut Trail,
    ) -> Result<Sent, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let announced = body.size_hint();
        let short = announced.exact().is_some_and(|length| length <= READ_WHOLE);
        let looked_at = function.input.is_some() && !parts.method.is_safe();
        if looked_at || short || announced.lower() > self.max_body as u64 {
            // One that says that it is too long is refused there.
            let body = self.body(body, &parts.headers, function, trail).await?;
            if looked_at {
                self.check_input(function, &parts.headers, &body)?;
            }
            return Ok(Sent::Whole(Full::new(body)));
        }
        Ok(Sent::Streamed(Stream::new(body, self.max_body)))
    }

    /// Notes in the record what an upstream's answer says of itself.
    pub(super) fn note_answer(&self, status: StatusCode, trail: &mut Trail) {
        trail.invocation.first_byte = Some(self.book.clock.now());
        if status.is_server_error() {
            trail.failed(Status::Error, "the upstream answered with an error");
        }
    }

    /// A call of an upstream, known to the request's record.
    pub(super) fn upstream_call(
        &self,
        function: &Function,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Arc<Call> {
        let received = trail.invocation.received.unwrap_or_default();
        let call = Call::new(asked.id, None, received + function.timeout);
        let call = Arc::new(call.with_urgency(asked.urgency));
        trail.call = Some(Arc::clone(&call));
        call
    }

    /// Sends a request as often as the system wants, until there is the head of an answer.
    pub(super) async fn fetch(
        &self,
        function: &Function,
        outgoing: Outgoing,
        call: Arc<Call>,
    ) -> Result<(Response<Received>, Attempt), Failure> {
        let Some(upstreams) = function.upstreams() else {
            return Err(self.unknown(&function.name));
        };
        let key = upstreams.hash.as_ref().map_or(0, |by| outgoing.key(by));
        let Some(ticket) = self.driver.invoke_for(function, Arc::clone(&call), key) else {
            return Err(self.unknown(&function.name));
        };
        let mut attempt = Attempt::new(ticket);
        let mut problem: Option<SendError> = None;
        let mut step = next_step(&call).await;
        loop {
            if let Next::Ended(end) = step {
                return Err(self.failed(end, problem.as_ref(), function));
            }
            if outgoing.is_spent() {
                // Its body is gone with an attempt before: it cannot be sent whole again.
                return Err(self.failed(End::Error, problem.as_ref(), function));
            }
            let dispatch = call.last_dispatch();
            let place = dispatch.as_ref().map_or(0, |dispatch| dispatch.endpoint);
            let address = dispatch.and_then(|dispatch| dispatch.address);
            let serves = address.is_some();
            // A replica that stays for a while after an update may stand for an upstream that is gone.
            let endpoint = upstreams.endpoints.get(place).unwrap_or(&upstreams.endpoints[0]);
            let answer = tokio::select! {
                biased;
                answer = upstreams.client.send(endpoint, address, outgoing.clone()) => answer,
                // Its program was lost meanwhile, or its time is up.
                next = next_step(&call) => {
                    problem = None;
                    step = next;
                    continue;
                }
            };
            let may_repeat = is_idempotent(outgoing.method.as_str()) && !outgoing.is_spent();
            let error = match answer {
                Ok(response) => {
                    let status = response.status();
                    let again = may_repeat && upstreams.retry_statuses.contains(&status.as_u16());
                    let busy = status == StatusCode::TOO_MANY_REQUESTS;
                    let after = upstreams.retry_after.then(|| retry_after(response.headers()));
                    if !again || !attempt.ticket.try_again(after.flatten(), busy) {
                        return Ok((response, attempt));
                    }
                    problem = Some(SendError::Refused(status));
                    step = next_step(&call).await;
                    continue;
                }
                Err(error) => error,
            };
            let (name, upstream) = (&*function.name, endpoint.url.as_str());
            tracing::warn!(function = name, upstream, %error, "no answer");
            // Before the connection was there, nothing has begun: another attempt is safe.
            let outcome = match error.is_not_started() {
                true => Outcome::NotStarted,
                false if may_repeat && !serves => Outcome::Again { after: None, busy: false },
                false => Outcome::Unavailable,
            };
            problem = Some(error);
            if serves
                && let Ok(next) = tokio::time::timeout(LOSS_SEEN_WITHIN, next_step(&call)).await
            {
                // Its program is gone: what becomes of the request is decided already.
                step = next;
                continue;
            }
            attempt.finish(outcome);
            step = next_step(&call).await;
        }
    }

    /// The answer for a request whose upstream gave none.
    fn failed(&self, end: End, problem: Option<&SendError>, function: &Function) -> Failure {
        let Some(problem) = problem.filter(|_| end == End::Error) else {
            return self.ended(end, function);
        };
        let name = &function.name;
        let error = match problem {
            SendError::NotConnected(_) => {
                format!("the upstream of function `{name}` cannot be reached")
            }
            SendError::Broken(_) => {
                format!("the upstream of function `{name}` broke off its answer")
            }
            SendError::Refused(status) => {
                let error = format!("the upstream of function `{name}` answered {status}");
                return Refusal::new(*status, error).into();
            }
            SendError::Late(phase, limit) => {
                let error = format!("the upstream of function `{name}`: {phase} took {limit:?}");
                let refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, error);
                return Failure::new(Status::Timeout, refusal);
            }
        };
        Refusal::new(StatusCode::BAD_GATEWAY, error).into()
    }
}

/// How long an upstream wants to be left alone (RFC 9110 section 10.2.3), in seconds; a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What becomes of a request.
enum Next {
    /// An attempt begins.
    Attempt,
    Ended(End),
}

async fn next_step(call: &Call) -> Next {
    loop {
        match call.step().await {
            Step::Dispatched => return Next::Attempt,
            Step::Ended(end) => return Next::Ended(end),
            Step::Pieces { .. } => {}
        }
    }
}

/// An upstream's answer, passed on as it comes.
pub(super) fn streamed(parts: http::response::Parts, body: Relayed) -> Response<Body> {
    let mut response = Response::new(Body::Upstream(Box::new(body)));
    *response.status_mut() = parts.status;
    *response.headers_mut() = parts.headers;
    response
}

/// Where a request goes behind the path of its upstream: the route's path, the client's query.
pub(super) fn upstream_path(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let path = if path.is_empty() { "/" } else { path };
    let whole = match query {
        None => PathAndQuery::try_from(path),
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
    };
    whole.map(Uri::from).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the path cannot be passed on: {error}"))
    })
}
