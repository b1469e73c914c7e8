use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// How long a connection to an upstream may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept to one upstream.
const IDLE_CONNECTIONS: usize = 1024;

/// The client for HTTP functions; keeps connections and uses them again.
#[derive(Clone, Debug)]
pub(crate) struct Upstreams {
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A request to an upstream. Its body is all here, so that another attempt can send it again.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn new(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Self {
        Self { method, uri, headers, body }
    }
}

impl Upstreams {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client }
    }

    /// Sends it and waits for the head of the answer.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<http::Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(outgoing.body));
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = outgoing.uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = outgoing.headers;
        self.client.request(request).await
    }
}
