//! Requests from the network: routed, invoked or relayed, answered.

mod admit;
mod arriving;
mod cached;
mod coded;
mod fetch;
mod fill;
mod fork;
mod forward;
mod invoke;
mod recall;
mod tunnel;
mod typed;
mod wanted;

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatewright_control::cache::Failure as Cause;
use gatewright_control::compress::{Coding, CompressRules};
use gatewright_control::{End, Shed};
use gatewright_record::Status;
use http::header::{ACCEPT_ENCODING, CONNECTION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use parking_lot::RwLock;

use self::admit::Goal;
pub(crate) use self::typed::PieceCheck;

use crate::access::Access;
use crate::answer::{Body, Refusal};
use crate::bodies::Bodies;
use crate::driver::Driver;
use crate::forwarding::Forwarding;
use crate::function::{Function, Runtime};
use crate::headers::{self, Client, REQUEST_ID};
use crate::limits::Told;
use crate::metrics::Rejection;
use crate::records::{Book, Trail, status_of};
use crate::route::{Route, Routes};
use crate::squeeze;
use crate::store::Store;

/// Bytes of a body that is too long that are read and thrown away.
const DISCARDED: usize = 4 * 1024 * 1024;
/// How long that may take.
const DISCARDED_WITHIN: Duration = Duration::from_secs(1);

/// Everything that a request may need.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) driver: Arc<Driver>,
    pub(crate) book: Arc<Book>,
    pub(crate) store: Arc<Store>,
    pub(crate) routes: Routes,
    pub(crate) access: Access,
    pub(crate) forwarding: Forwarding,
    /// The functions that can be asked for, by name.
    pub(crate) functions: RwLock<HashMap<Arc<str>, Arc<Function>>>,
    /// Largest request body in bytes.
    pub(crate) max_body: usize,
    /// Memory of request bodies that are held whole.
    pub(crate) bodies: Arc<Bodies>,
    /// Set when every function of the system file has started.
    pub(crate) started: AtomicBool,
    /// Set when the gateway is told to stop.
    pub(crate) draining: AtomicBool,
    /// Requests so far.
    pub(crate) requests: AtomicU64,
    /// Tells the request ids of this run from those of others.
    pub(crate) run: String,
    /// What this gateway calls itself in `Via`.
    pub(crate) pseudonym: String,
}

/// Why a request was not answered as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// How the system ended it, if it did.
    pub(crate) end: Option<End>,
    pub(crate) refusal: Refusal,
}

impl Failure {
    pub(crate) const fn new(status: Status, refusal: Refusal) -> Self {
        Self { status, end: None, refusal }
    }

    /// Notes it in the request's record.
    fn note(&self, trail: &mut Trail) {
        if let Some(reason) = self.end.and_then(End::reason) {
            trail.failed(self.status, reason);
        }
        if self.status != Status::Ok {
            trail.invocation.status = self.status;
        }
        trail.refused(&self.refusal);
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(Status::Error, refusal)
    }
}

/// An answer, or what becomes one.
pub(crate) enum Answering {
    Ready(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("it is asked for once")))
            }
            Self::Later(answer) => answer.as_mut().poll(context).map(Ok),
        }
    }
}

/// What is known of a request besides its HTTP.
#[derive(Clone, Debug)]
struct Asked {
    id: u64,
    request_id: HeaderValue,
    client: Client,
    /// Which class of a queue it is in.
    urgency: u8,
    /// How its answer is compressed, if its route says so.
    squeeze: Option<Squeeze>,
}

/// How an answer is compressed.
#[derive(Clone, Debug)]
struct Squeeze {
    rules: Arc<CompressRules>,
    /// What its client likes best, if that is any.
    coding: Option<Coding>,
    head: bool,
}

impl Asked {
    /// The content coding that its client likes best, of those that its route has.
    fn coding(&self) -> Option<Coding> {
        self.squeeze.as_ref()?.coding
    }
}

impl Squeeze {
    /// What a request says of it. It then asks for the plain answer, as all do: one that is stored is for all of them.
    fn wanted(route: &Route, parts: &mut Parts) -> Option<Self> {
        let rules = Arc::clone(route.compress.as_ref()?);
        let lines = parts.headers.get_all(ACCEPT_ENCODING);
        let coding = rules.choose(lines.iter().map(HeaderValue::as_bytes));
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Some(Self { rules, coding, head: parts.method == Method::HEAD })
    }
}

impl Plane {
    /// Answers a request: at once, if something fresh is stored for it.
    pub(crate) fn answer<B>(self: Arc<Self>, request: Request<B>, client: Client) -> Answering
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let received = self.book.clock.now();
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut request_id = headers::request_id(request.headers())
            .unwrap_or_else(|| headers::numbered(&self.run, id));
        let http2 = request.version() == Version::HTTP_2;
        // No two are the same: not worth a place in the table of HTTP/2's header fields.
        request_id.set_sensitive(http2);
        let mut trail = Trail::begin(&self.book, id, received);
        let last = !http2 && self.draining.load(Ordering::Relaxed);
        let urgency = headers::urgency(request.headers());
        let client = self.forwarding.client(client, request.headers());
        let mut asked = Asked { id, request_id, client, urgency, squeeze: None };
        let (mut parts, body) = request.into_parts();
        let mut told = None;
        let goal = match self.let_in(&mut parts, &mut asked, &mut trail, &mut told) {
            Ok(goal) => goal,
            Err(failure) => {
                return Answering::Ready(Some(finished(Err(failure), asked, told, last, trail)));
            }
        };
        if let Some(response) = self.at_once(&goal, &parts, &body, &asked, &mut trail) {
            return Answering::Ready(Some(finished(Ok(response), asked, told, last, trail)));
        }
        Answering::Later(Box::pin(async move {
            let result = self.pursue(goal, parts, body, &asked, &mut trail).await;
            finished(result, asked, told, last, trail)
        }))
    }

    /// The answer to what something fresh is stored for.
    fn at_once<B: http_body::Body>(
        &self,
        goal: &Goal,
        parts: &Parts,
        body: &B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        let route = goal.route.as_ref()?;
        let switches = || route.upgrade.as_ref().is_some_and(|rules| rules.asked(parts).is_some());
        if route.cache.is_none() || !body.is_end_stream() || switches() {
            return None;
        }
        self.hit(route, parts, asked.coding(), trail)
    }

    /// Answers a request that was let in.
    async fn pursue<B>(
        self: &Arc<Self>,
        goal: Goal,
        parts: Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let Goal { function, route } = goal;
        match &function.runtime {
            Runtime::Python(_) | Runtime::Remote => {
                return self.invoke(&function, &parts, body, asked, trail).await;
            }
            Runtime::Fork(program) => {
                return self.fork(&function, program, &parts, body, asked, trail).await;
            }
            Runtime::Program(_) | Runtime::Http(_) => {}
        }
        let switch = route.as_ref().filter(|_| body.is_end_stream());
        let switch = switch.and_then(|route| route.upgrade.as_ref()?.asked(&parts));
        if parts.method == Method::CONNECT && switch.is_none() {
            return Err(no_tunnel().into());
        }
        let uri = self.upstream_uri(route.as_deref(), &parts)?;
        match (&route, switch) {
            (Some(route), Some(switch)) => {
                let tunnel = self.tunnel(switch?, &function, route, uri, parts, asked, trail);
                Box::pin(tunnel).await
            }
            (Some(route), None) if route.cache.is_some() => {
                Box::pin(self.cached(route, &function, uri, parts, body, asked, trail)).await
            }
            (route, _) => {
                let route = route.as_deref();
                self.relay(&function, route, uri, parts, body, asked, trail).await
            }
        }
    }

    /// Where a request goes behind the URL of its upstream.
    fn upstream_uri(&self, route: Option<&Route>, parts: &Parts) -> Result<Uri, Refusal> {
        let asked = parts.uri.path();
        let path = match route.zip(self.routes.find(asked)) {
            None => String::new(),
            Some((route, (_, params))) => route.upstream_path(asked, &params).map_err(|_| {
                Refusal::new(StatusCode::BAD_REQUEST, "the path has `.` or `..` where a value goes")
            })?,
        };
        forward::upstream_path(&path, parts.uri.query())
    }

    fn unknown(&self, name: &str) -> Failure {
        if self.draining.load(Ordering::Relaxed) {
            return stopping();
        }
        let refusal = Refusal::new(StatusCode::NOT_FOUND, format!("there is no function `{name}`"));
        let mut names: Vec<_> = self.functions.read().keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names.truncate(20);
        let hint = format!("there is {}", names.join(", "));
        if names.is_empty() { refusal.into() } else { refusal.hint(hint).into() }
    }

    /// Reads a whole body, within the bound and the function's time.
    async fn body<B>(
        &self,
        mut body: B,
        headers: &HeaderMap,
        function: &Function,
        trail: &mut Trail,
    ) -> Result<Bytes, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let announced = body.size_hint().lower();
        if announced > self.max_body as u64 {
            // Who waits to be asked for it sends nothing that would have to be read.
            if headers::waits_to_send(headers) != Some(true) {
                discard(body).await;
            }
            return Err(self.too_large().into());
        }
        let mut held = self.bodies.hold();
        let read = async {
            let mut whole: Option<Bytes> = None;
            let mut more = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    let error = format!("the request's body did not come whole: {error}");
                    Refusal::new(StatusCode::BAD_REQUEST, error)
                })?;
                let Ok(data) = frame.into_data() else { continue };
                let length = whole.as_ref().map_or(more.len(), Bytes::len) + data.len();
                if length > self.max_body {
                    return Err(self.too_large());
                }
                if !held.grow(data.len()) {
                    function.metrics.rejected(Rejection::Memory);
                    return Err(no_memory().come_back_after(self.expected_wait(function)));
                }
                // Most bodies come in one piece, which is used as it is.
                match whole.take() {
                    None if more.is_empty() => whole = Some(data),
                    None => more.extend_from_slice(&data),
                    Some(first) => {
                        more.reserve(length.max(usize::try_from(announced).unwrap_or(0)));
                        more.extend_from_slice(&first);
                        more.extend_from_slice(&data);
                    }
                }
            }
            Ok(whole.unwrap_or_else(|| more.freeze()))
        };
        let Ok(read) = tokio::time::timeout(function.timeout, read).await else {
            let error = format!("the request's body did not come within {:?}", function.timeout);
            let refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, error);
            return Err(Failure::new(Status::Timeout, refusal));
        };
        let bytes = match read {
            Err(refusal) if refusal.status == StatusCode::PAYLOAD_TOO_LARGE => {
                discard(body).await;
                return Err(refusal.into());
            }
            Err(refusal) if refusal.retry_after.is_some() => {
                discard(body).await;
                return Err(Failure::new(Status::Shed, refusal));
            }
            read => read?,
        };
        trail.body = Some(held);
        trail.invocation.bytes_in = bytes.len() as u64;
        Ok(bytes)
    }

    /// What an end without an answer means to the client.
    fn ended(&self, end: End, function: &Function) -> Failure {
        if let End::Shed(reason) = end {
            function.metrics.rejected(Rejection::Queue(reason));
        }
        let stopping_now = self.draining.load(Ordering::Relaxed);
        if stopping_now && end == End::Shed(Shed::Removed) {
            return stopping();
        }
        let mut failure = without_answer(end, function);
        if failure.refusal.retry_after.is_some() {
            failure.refusal = failure.refusal.come_back_after(self.expected_wait(function));
        }
        failure
    }

    /// How long a request that came now would wait for its turn.
    fn expected_wait(&self, function: &Function) -> Duration {
        let wait =
            self.driver.look(|system| Some(system.function(*function.key.get()?)?.expected_wait));
        wait.unwrap_or_default()
    }

    fn too_large(&self) -> Refusal {
        let error = format!("the request's body is longer than {} bytes", self.max_body);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error)
            .hint("send less, or raise gateway.max_body")
    }
}

/// Completes an answer; its record is written when the last of it is handed over.
fn finished(
    mut result: Result<Response<Body>, Failure>,
    asked: Asked,
    told: Option<Told>,
    last: bool,
    mut trail: Trail,
) -> Response<Body> {
    if let (Some(Squeeze { rules, coding, head }), Ok(response)) = (&asked.squeeze, &mut result) {
        squeeze::apply(rules, *coding, *head, response);
    }
    let mut response = result.unwrap_or_else(|failure| {
        failure.note(&mut trail);
        failure.refusal.response(asked.request_id.to_str().unwrap_or_default())
    });
    response.headers_mut().insert(REQUEST_ID, asked.request_id);
    if let Some(told) = told {
        told.add_to(response.headers_mut());
    }
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let code = response.status().as_u16();
    match response.body().len() {
        Some(bytes) => trail.close(code, bytes),
        None => {
            trail.invocation.code = Some(code);
            response.body_mut().follow(trail);
        }
    }
    response
}

/// Reads on for a while what a refused client still sends: a connection that is closed with bytes unread is
/// reset, and the client may never see why.
async fn discard<B>(mut body: B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut left = DISCARDED;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whether it came to its end or not, enough was done.
    drop(tokio::time::timeout(DISCARDED_WITHIN, read).await);
}

/// The answer where the bodies of others take all the memory for bodies.
fn no_memory() -> Refusal {
    let error = "the gateway holds as many request bodies as it may";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
        .hint("come back when others are answered, or raise gateway.body_memory")
        .come_back()
}

/// How an upstream failed, as the rules of the cache see it.
fn cause_of(failure: &Failure) -> Cause {
    match failure.status {
        Status::Timeout => Cause::Timeout,
        Status::Shed | Status::Lost => Cause::Connect,
        _ => Cause::Broken,
    }
}

/// The answer to a CONNECT that leads nowhere.
fn no_tunnel() -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "nothing here is a tunnel")
        .hint("a route says with `upgrade` what may be switched to")
}

/// The answer to what comes after the functions are gone.
fn stopping() -> Failure {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
    Failure::new(Status::Shed, refusal.come_back())
}

/// What an end without an answer means to the client.
fn without_answer(end: End, function: &Function) -> Failure {
    let name = &function.name;
    let refusal = match end {
        End::TimedOut => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("function `{name}` did not answer within {} s", function.timeout.as_secs_f64()),
        ),
        End::Shed(Shed::QueueFull) => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("too many requests wait for function `{name}`"),
        )
        .come_back(),
        End::Shed(Shed::Removed) => {
            Refusal::new(StatusCode::NOT_FOUND, format!("function `{name}` was removed"))
        }
        End::Shed(Shed::Unavailable) if function.upstreams().is_some() => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no upstream of function `{name}` is well"),
        )
        .come_back(),
        End::Shed(Shed::Unavailable) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the replicas of function `{name}` fail to start"),
        )
        .come_back(),
        End::Lost => Refusal::new(
            StatusCode::BAD_GATEWAY,
            format!("the replica of function `{name}` that worked on the request was lost"),
        )
        .hint("it may have been done in part; raise retries.attempts if it may be done again"),
        End::Ok | End::Error | End::Cancelled => Refusal::new(
            StatusCode::BAD_GATEWAY,
            format!("function `{name}` ended the request without an answer"),
        ),
    };
    Failure { status: status_of(end), end: Some(end), refusal }
}
