//! The client of upstreams.

mod connector;
mod received;

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::balance::HashKey;
use gatewright_control::config;
use gatewright_control::health::ActiveCheck;
use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;

use connector::{ConnectError, Connector};

use crate::headers::strip_trailers;

pub(crate) use received::Received;

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept to one upstream.
const IDLE_CONNECTIONS: usize = 1024;
/// How often an HTTP/2 connection is asked whether it is still there, and how long it has to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// Bytes of an answer, and of all answers of an HTTP/2 connection, that an upstream may send before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Longest head of an answer in HTTP/2, in bytes.
const MAX_HEAD: u32 = 64 * 1024;

/// The upstreams of a function: where they are, and the connections to them.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) client: Client,
    /// What of a request its balancer goes by, if it does.
    pub(crate) hash: Option<HashKey>,
    /// How they are asked whether they are well.
    pub(crate) check: Option<ActiveCheck>,
    /// Statuses of answers that are worth another attempt.
    pub(crate) retry_statuses: Vec<u16>,
    /// Whether the next attempt waits as long as the answer says.
    pub(crate) retry_after: bool,
}

/// Where an upstream is.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    scheme: Scheme,
    authority: Authority,
    /// Path before every path, without a slash at its end.
    path: String,
}

/// The client of a function's upstreams; keeps connections and uses them again.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    client: legacy::Client<Connector, Sent>,
    /// The same in HTTP/1.1 alone, for connections that switch to another protocol.
    switching: legacy::Client<Connector, Sent>,
    timeouts: Timeouts,
    http2: bool,
}

/// How long the parts of an exchange with an upstream may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    connect: Duration,
    tls: Duration,
    /// Until the head of the answer.
    head: Option<Duration>,
    /// Between two pieces of its body.
    idle: Option<Duration>,
}

/// A part of an exchange with an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connect,
    Tls,
    Head,
    Body,
}

/// Why an upstream gave no answer, or not all of it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There was no connection: nothing was sent.
    #[error("{0}")]
    NotConnected(String),
    /// A part took too long.
    #[error("{0} took longer than {1:?}")]
    Late(Phase, Duration),
    /// What had begun broke.
    #[error("{0}")]
    Broken(String),
    /// It answered with a status that was worth another attempt, which there was not.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

/// A request to an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query, behind the upstream's own path.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Sent,
    /// Whom it is for.
    pub(crate) client: Option<IpAddr>,
    /// Whether it asks for another protocol.
    pub(crate) switches: bool,
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
        Self {
            method,
            uri,
            headers,
            body: Sent::Whole(Full::default()),
            client: None,
            switches: false,
        }
    }

    /// Whether an attempt has begun to send its body, which cannot be had again.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(&self.body, Sent::Streamed(stream) if stream.bytes() > 0 || stream.is_broken())
    }

    /// The hash of what the balancer goes by.
    pub(crate) fn key(&self, by: &HashKey) -> u64 {
        let part = match by {
            HashKey::Path => None,
            HashKey::Address => self.client.map(|client| client.to_string().into_bytes()),
            HashKey::Header(name) => self.headers.get(name).map(|value| value.as_bytes().to_vec()),
            HashKey::Cookie(name) => cookie(&self.headers, name).map(|value| value.into_bytes()),
        };
        let path = || self.uri.path_and_query().map_or("", PathAndQuery::as_str);
        gatewright_control::balance::hash(part.as_deref().unwrap_or_else(|| path().as_bytes()))
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
            Some(Ok(mut frame)) => {
                frame.trailers_mut().into_iter().for_each(strip_trailers);
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

impl Endpoint {
    /// Reads an upstream's URL.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("http = \"{url}\": {error}"))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(format!("http = \"{url}\" names no host"));
        };
        let path = parts.path_and_query.map_or(String::new(), |path| path.path().to_owned());
        let path = path.trim_end_matches('/').to_owned();
        Ok(Self { url: url.to_owned(), scheme, authority, path })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Where `path`, with its query, is at this upstream.
    fn uri(&self, path: &Uri, address: Option<Authority>) -> Result<Uri, http::Error> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(address.unwrap_or_else(|| self.authority.clone()));
        let path = path.path_and_query().map_or("/", PathAndQuery::as_str);
        parts.path_and_query = Some(match (self.path.as_str(), path) {
            ("", path) => PathAndQuery::try_from(path)?,
            // Behind a path of its own, the root is no further slash.
            (own, path) if path == "/" || path.starts_with("/?") => {
                PathAndQuery::try_from(format!("{own}{}", &path[1..]))?
            }
            (own, path) => PathAndQuery::try_from(format!("{own}{path}"))?,
        });
        Ok(Uri::from_parts(parts)?)
    }
}

impl Client {
    /// A client that speaks HTTP/1.1, HTTP/2 over TLS where the upstream offers it, and only HTTP/2 if `http2` says
    /// so.
    pub(crate) fn new(tls: Option<ClientConfig>, timeouts: &config::Timeouts, http2: bool) -> Self {
        let timeouts = Timeouts {
            connect: timeouts.connect.get(),
            tls: timeouts.tls.get(),
            head: timeouts.head.map(config::HumanDuration::get),
            idle: timeouts.idle.map(config::HumanDuration::get),
        };
        let client = |http2: bool, alpn: &[&[u8]]| {
            let tls = tls.clone().map(|mut tls| {
                tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
                tls
            });
            legacy::Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http2_only(http2)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .http2_max_header_list_size(MAX_HEAD)
                .http2_keep_alive_interval(HTTP2_PING)
                .http2_keep_alive_timeout(HTTP2_PING)
                .build(Connector::new(tls, timeouts))
        };
        let switching = client(false, &[b"http/1.1"]);
        let client = client(http2, if http2 { &[b"h2"] } else { &[b"h2", b"http/1.1"] });
        Self { client, switching, timeouts, http2 }
    }

    /// Sends it to an upstream, at another address if one is given, and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        to: &Endpoint,
        address: Option<Authority>,
        outgoing: Outgoing,
    ) -> Result<http::Response<Received>, SendError> {
        let uri = to.uri(&outgoing.uri, address);
        let uri = uri.map_err(|error| SendError::NotConnected(error.to_string()))?;
        let mut request = Request::new(outgoing.body);
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = outgoing.headers;
        if self.http2 || (to.is_secure() && is_grpc(request.headers())) {
            // What comes after the body is passed on, as gRPC needs it. That is HTTP/2 wherever it is spoken, where TE
            // has no Connection beside it.
            request.headers_mut().remove(CONNECTION);
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        let client = if outgoing.switches { &self.switching } else { &self.client };
        let answer = client.request(request);
        let answered = match self.timeouts.head {
            None => answer.await,
            Some(limit) => match tokio::time::timeout(limit, answer).await {
                Ok(answered) => answered,
                Err(_) => return Err(SendError::Late(Phase::Head, limit)),
            },
        };
        let response = answered.map_err(|error| SendError::from(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !outgoing.switches {
            let error = "it switches to a protocol that nobody asked for";
            return Err(SendError::Broken(error.to_owned()));
        }
        Ok(response.map(|incoming| Received::new(incoming, self.timeouts.idle)))
    }
}

impl Upstreams {
    /// Asks one of them whether it is well: 200 to 399 is a yes.
    pub(crate) async fn is_well(&self, endpoint: usize, check: &ActiveCheck) -> bool {
        let (Some(at), Ok(path)) = (self.endpoints.get(endpoint), check.path.parse()) else {
            return false;
        };
        let asked = self.client.send(at, None, Outgoing::new(Method::GET, path, HeaderMap::new()));
        let answer = tokio::time::timeout(check.timeout.get(), asked).await;
        matches!(answer, Ok(Ok(answer)) if (200..400).contains(&answer.status().as_u16()))
    }
}

impl From<&legacy::Error> for SendError {
    fn from(error: &legacy::Error) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(ConnectError::Late(phase, limit)) = cause.downcast_ref() {
                return Self::Late(*phase, *limit);
            }
            source = cause.source();
        }
        if error.is_connect() {
            Self::NotConnected(causes(error))
        } else {
            Self::Broken(causes(error))
        }
    }
}

impl SendError {
    /// Whether nothing was sent.
    pub(crate) fn is_not_started(&self) -> bool {
        matches!(self, Self::NotConnected(_) | Self::Late(Phase::Connect | Phase::Tls, _))
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting (timeouts.connect)",
            Self::Tls => "the TLS handshake (timeouts.tls)",
            Self::Head => "the head of the answer (timeouts.head)",
            Self::Body => "the next piece of the answer (timeouts.idle)",
        })
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes = format!("{causes}: {error}");
        cause = error.source();
    }
    causes
}

/// Whether a request is gRPC's own, which HTTP/2 alone carries: gRPC-Web is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.split_at_checked(b"application/grpc".len()).is_some_and(|(grpc, rest)| {
        grpc.eq_ignore_ascii_case(b"application/grpc") && !rest.starts_with(b"-")
    })
}

/// The value of a cookie of this name.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_behind_the_upstreams_own() {
        let uri = |url: &str, path: &str| {
            let endpoint = Endpoint::parse(url).unwrap();
            endpoint.uri(&path.parse().unwrap(), None).unwrap().to_string()
        };
        assert_eq!(uri("http://a:1", "/x?q"), "http://a:1/x?q");
        assert_eq!(uri("http://a:1/", "/"), "http://a:1/");
        assert_eq!(uri("https://a/base/", "/x"), "https://a/base/x");
        assert_eq!(uri("http://a/base", "/?q=1"), "http://a/base?q=1");
        assert!(Endpoint::parse("/base").is_err());
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let of = |kind: &'static str| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind))];
            is_grpc(&headers.into_iter().collect())
        };
        for kind in ["application/grpc", "Application/gRPC+proto", "application/grpc;a=b"] {
            assert!(of(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grp", "", "text/application/grpc"] {
            assert!(!of(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn requests_with_the_same_part_have_the_same_key() {
        let request = |path: &str, cookie: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(cookie));
            Outgoing::new(Method::GET, path.parse().unwrap(), headers)
        };
        let by_path = |path| request(path, "").key(&HashKey::Path);
        assert_eq!(by_path("/a"), by_path("/a"));
        assert_ne!(by_path("/a"), by_path("/a?b"));
        let by_cookie = |path, cookie| request(path, cookie).key(&HashKey::Cookie("id".to_owned()));
        assert_eq!(by_cookie("/a", "x=1; id=7"), by_cookie("/b", "id=7; y=2"));
        assert_ne!(by_cookie("/a", "id=7"), by_cookie("/a", "id=8"));
        assert_eq!(by_cookie("/a", "x=1"), by_path("/a"), "by its path without one");
    }
}
