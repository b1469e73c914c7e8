//! Requests from the network: routed, invoked or relayed, answered.

mod arriving;
mod cached;
mod fill;
mod fork;
mod forward;
mod invoke;
mod recall;
mod typed;
mod wanted;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatewright_control::cache::Failure as Cause;
use gatewright_control::{End, Shed};
use gatewright_record::Status;
use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use parking_lot::RwLock;

pub(crate) use typed::PieceCheck;

use crate::answer::{Body, Refusal};
use crate::bodies::Bodies;
use crate::driver::Driver;
use crate::function::{Function, Runtime};
use crate::headers::{self, Client, REQUEST_ID};
use crate::metrics::Rejection;
use crate::records::{Book, Trail, status_of};
use crate::route::{Destination, Routes};
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
    pub(crate) refusal: Refusal,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { status: Status::Error, refusal }
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
}

impl Plane {
    /// Answers a request.
    pub(crate) async fn answer<B>(
        self: Arc<Self>,
        request: Request<B>,
        client: Client,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let received = self.book.clock.now();
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = headers::request_id(request.headers())
            .unwrap_or_else(|| headers::numbered(&self.run, id));
        let mut trail = Trail::begin(&self.book, id, received);
        let last = request.version() < Version::HTTP_2 && self.draining.load(Ordering::Relaxed);
        let urgency = headers::urgency(request.headers());
        let asked = Asked { id, request_id, client, urgency };
        let result = self.route(request, &asked, &mut trail).await;
        let mut response = result.unwrap_or_else(|failure| {
            if failure.status != Status::Ok {
                trail.invocation.status = failure.status;
            }
            trail.refused(&failure.refusal);
            failure.refusal.response(asked.request_id.to_str().unwrap_or_default())
        });
        response.headers_mut().insert(REQUEST_ID, asked.request_id);
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

    async fn route<B>(
        self: &Arc<Self>,
        request: Request<B>,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        self.acceptable(&parts)?;
        let path = parts.uri.path();
        let Some((destination, params)) = self.routes.find(path) else {
            let refusal =
                Refusal::new(StatusCode::NOT_FOUND, format!("nothing is served at {path}"));
            return Err(refusal.hint("functions are served at /function/{name}").into());
        };
        let (name, route) = match destination {
            Destination::Named => (params.get("name").unwrap_or_default(), None),
            Destination::Route(route) => (&*route.function, Some(route)),
        };
        let function = self.functions.read().get(name).cloned();
        let Some(function) = function else { return Err(self.unknown(name)) };
        trail.asks(&function);
        trail.invocation.route = route.map(|route| Arc::clone(&route.pattern));
        match &function.runtime {
            Runtime::Python(_) | Runtime::Remote => {
                return self.invoke(&function, &parts, body, asked, trail).await;
            }
            Runtime::Fork(program) => {
                return self.fork(&function, program, &parts, body, asked, trail).await;
            }
            Runtime::Program(_) | Runtime::Http(_) => {}
        }
        if let Some(route) = route
            && body.is_end_stream()
            && let Some(response) = self.hit(route, &parts, trail)
        {
            return Ok(response);
        }
        let path = match route {
            None => String::new(),
            Some(route) => route.upstream_path(path, &params).map_err(|_| {
                Refusal::new(StatusCode::BAD_REQUEST, "the path has `.` or `..` where a value goes")
            })?,
        };
        let uri = forward::upstream_path(&path, parts.uri.query())?;
        match route {
            Some(route) if route.cache.is_some() => {
                Box::pin(self.cached(route, &function, uri, parts, body, asked, trail)).await
            }
            _ => {
                let route = route.map(|route| &**route);
                self.relay(&function, route, uri, parts, body, asked, trail).await
            }
        }
    }

    /// Refuses what can mean two things (RFC 9112 section 3.2), and what goes in a circle.
    fn acceptable(&self, parts: &Parts) -> Result<(), Refusal> {
        let hosts = parts.headers.get_all(HOST).iter().count();
        let needed = parts.version == Version::HTTP_11 && parts.uri.authority().is_none();
        if hosts > 1 || (needed && hosts == 0) {
            let error = format!("a request names one host, not {hosts}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error));
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
            discard(body).await;
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
            return Err(Failure { status: Status::Timeout, refusal });
        };
        let bytes = match read {
            Err(refusal) if refusal.status == StatusCode::PAYLOAD_TOO_LARGE => {
                discard(body).await;
                return Err(refusal.into());
            }
            Err(refusal) if refusal.retry_after.is_some() => {
                discard(body).await;
                return Err(Failure { status: Status::Shed, refusal });
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

/// The answer to what comes after the functions are gone.
fn stopping() -> Failure {
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
    Failure { status: Status::Shed, refusal: refusal.come_back() }
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
    Failure { status: status_of(end), refusal }
}
