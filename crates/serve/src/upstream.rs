use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;

/// How long a connection to an upstream may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept to one upstream.
const IDLE_CONNECTIONS: usize = 1024;

/// The client of one upstream; keeps connections and uses them again.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Plain(legacy::Client<HttpConnector, Sent>),
    Tls(legacy::Client<HttpsConnector<HttpConnector>, Sent>),
}

/// A request to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Sent,
}

/// The body of a request to an upstream.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// All of it is here, so that another attempt can send it again.
    Whole(Full<Bytes>),
    /// It is passed on as it comes. Another attempt can send it as long as none has begun to.
    Streamed(Arc<Stream>),
}

/// A client's body on its way to an upstream.
pub(crate) struct Stream {
    body: Mutex<Pin<Box<dyn Body<Data = Bytes, Error = String> + Send>>>,
    /// Largest length in bytes.
    max: u64,
    bytes: AtomicU64,
    /// It broke off, or is too long.
    broken: AtomicBool,
}

/// A request's body that could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("the request's body is longer than {0} bytes")]
    TooLong(u64),
    #[error("the request's body did not come whole: {0}")]
    Broken(String),
}

impl Outgoing {
    /// One without a body.
    pub(crate) fn new(method: Method, uri: Uri, headers: HeaderMap) -> Self {
        Self { method, uri, headers, body: Sent::Whole(Full::default()) }
    }
}

impl Outgoing {
    /// The same, for the server at this address if one is given.
    pub(crate) fn to(&self, address: Option<Authority>) -> Self {
        let mut outgoing = self.clone();
        if let Some(address) = address {
            let mut parts = outgoing.uri.into_parts();
            parts.authority = Some(address);
            outgoing.uri = Uri::from_parts(parts).expect("only its address is another one");
        }
        outgoing
    }

    /// Whether an attempt has begun to send its body, which cannot be had again.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(&self.body, Sent::Streamed(stream) if stream.bytes() > 0 || stream.is_broken())
    }
}

impl Stream {
    pub(crate) fn new<B>(body: B, max: usize) -> Arc<Self>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display,
    {
        let body = body.map_err(|error| error.to_string());
        Arc::new(Self {
            body: Mutex::new(Box::pin(body)),
            max: max as u64,
            bytes: 0.into(),
            broken: false.into(),
        })
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is longer than it may be.
    pub(crate) fn is_too_long(&self) -> bool {
        self.bytes() > self.max
    }

    /// Whether its client broke it off, or it is too long.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NotSent>>> {
        let next = ready!(self.body.lock().as_mut().poll_frame(context));
        let result = match next {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.bytes.fetch_add(length, Ordering::Relaxed) + length <= self.max {
                    return Poll::Ready(Some(Ok(frame)));
                }
                NotSent::TooLong(self.max)
            }
            Some(Err(error)) => NotSent::Broken(error),
            None => return Poll::Ready(None),
        };
        self.broken.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(result)))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = NotSent;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NotSent>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map(|next| next.map(|next| next.map_err(|never| match never {}))),
            Self::Streamed(stream) => stream.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(stream) => stream.body.lock().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(stream) => stream.body.lock().size_hint(),
        }
    }
}

impl Client {
    /// A client that speaks plain HTTP/1.1; with `tls` TLS, and HTTP/2 where the upstream offers it.
    pub(crate) fn new(tls: Option<ClientConfig>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        let Some(tls) = tls else { return Self::Plain(builder.build(connector)) };
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_all_versions()
            .wrap_connector(connector);
        Self::Tls(builder.build(connector))
    }

    /// Sends it and waits for the head of the answer.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<http::Response<Incoming>, Error> {
        let mut request = Request::new(outgoing.body);
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.uri;
        *request.headers_mut() = outgoing.headers;
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
    }
}
