use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::headers::Client;
use crate::quiet::{Heard, Held, Limits, Talk};
use crate::tls::Identity;

/// Longest head of a request in bytes, and the buffer of a connection.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields of a request.
const MAX_FIELDS: usize = 128;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;
/// What an HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Connections that are taken after the end has come: those that waited to be.
const LATE: usize = 1024;
/// How long a client that keeps its connection may still ask after the end has come: a request that crosses with it is
/// answered, and its answer says that the connection ends.
const LINGER: Duration = Duration::from_millis(500);
/// How often an HTTP/2 connection is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    /// How long a client may take to send a head.
    pub(crate) header_timeout: Duration,
    /// How long an HTTP/1 connection may be silent between two requests.
    pub(crate) idle_timeout: Duration,
}

/// When to stop.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// No more connections are taken, those there are finish their requests.
    pub(crate) closing: CancellationToken,
    /// Every connection is closed.
    pub(crate) kill: CancellationToken,
}

/// Where connections come in, and what they speak below HTTP.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Identity>>,
}

impl Listener {
    /// Its certificate, if it speaks TLS.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.tls.clone()
    }

    pub(crate) fn new(tcp: TcpListener, tls: Option<Arc<Identity>>) -> Self {
        Self { tcp, tls }
    }
}

/// Serves connections until `closing`; then lets each finish its requests, for at most `drain`. Each connection
/// has the service that `service` makes for its client.
pub(crate) async fn serve<S, B>(
    listener: Listener,
    service: impl Fn(Client) -> S,
    bounds: Bounds,
    ends: Ends,
    drain: Duration,
) where
    S: Service<Request<Held<Incoming>>, Response = Response<B>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let server = Arc::new(server());
    let secure = listener.tls.is_some();
    let (hush, mut late) = (CancellationToken::new(), 0);
    loop {
        let accepted = tokio::select! {
            biased;
            // Whoever had connected when the end came is not turned away.
            accepted = accept(&listener.tcp, &slots), if late < LATE => accepted,
            () = ends.closing.cancelled() => break,
        };
        late += usize::from(ends.closing.is_cancelled());
        let (stream, address, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(_) if ends.closing.is_cancelled() => break,
            Err(error) => {
                // Out of file descriptors, or a client that left: neither ends the gateway.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let (server, watcher, ends) = (Arc::clone(&server), graceful.watcher(), ends.clone());
        let hush = hush.clone();
        let service = service(Client { address: Some(address), secure, proxy: None });
        let tls = listener.tls.as_ref().map(|identity| identity.acceptor());
        tokio::spawn(async move {
            let greeting = tokio::time::timeout(bounds.header_timeout, greet(stream, tls));
            let greeted = tokio::select! {
                greeted = greeting => greeted,
                () = hush.cancelled() => return,
                () = ends.kill.cancelled() => return,
            };
            let talk = Talk::new();
            let service = Watched { service, talk: Arc::clone(&talk) };
            match greeted {
                Ok(Some(Greeted::Plain(stream, protocol))) => {
                    let stream = TokioIo::new(Heard::new(stream, &talk));
                    let connection = server.serve_connection(stream, service);
                    let silence = silence(&talk, protocol, bounds);
                    until_its_end(watcher.watch(connection.into_owned()), silence, &ends).await;
                }
                Ok(Some(Greeted::Tls(stream))) => {
                    // Told by the handshake: looking at the first bytes for it could wait for ever.
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let server = (*server).clone();
                    let server = if h2 { server.http2_only() } else { server.http1_only() };
                    let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
                    let stream = TokioIo::new(Heard::new(*stream, &talk));
                    let connection = server.serve_connection(stream, service);
                    let silence = silence(&talk, protocol, bounds);
                    until_its_end(watcher.watch(connection.into_owned()), silence, &ends).await;
                }
                Ok(None) | Err(_) => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    let asked = async {
        while graceful.count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // All may have been answered before; what is not is waited for below.
    drop(tokio::time::timeout(LINGER.min(drain), asked).await);
    hush.cancel();
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were closed before their requests were answered");
    }
}

/// A connection whose client has begun to speak.
enum Greeted {
    Plain(TcpStream, Protocol),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Waits until it can be seen which HTTP a connection speaks, after its TLS handshake if it has one; nothing if it
/// ended before.
async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Greeted> {
    let Some(tls) = tls else {
        let protocol = first_bytes(&stream).await?;
        return Some(Greeted::Plain(stream, protocol));
    };
    match tls.accept(stream).await {
        Ok(stream) => Some(Greeted::Tls(Box::new(stream))),
        Err(error) => {
            tracing::debug!(%error, "no TLS handshake");
            None
        }
    }
}

async fn until_its_end<E: std::fmt::Debug>(
    connection: impl Future<Output = Result<(), E>>,
    silence: impl Future<Output = ()>,
    ends: &Ends,
) {
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(?error, "a connection ended with an error");
            }
        }
        () = silence => {}
        () = ends.kill.cancelled() => {}
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, client) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, client.ip(), slot))
}

/// Returns when a connection has been silent for too long. One of HTTP/2 is asked whether it is still there.
async fn silence(talk: &Talk, protocol: Protocol, bounds: Bounds) {
    match protocol {
        Protocol::Http1 => {
            let (head, idle) = (bounds.header_timeout, bounds.idle_timeout);
            talk.is_over(Limits { head, idle }).await;
        }
        Protocol::Http2 => std::future::pending().await,
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// A service whose exchanges are noticed.
struct Watched<S> {
    service: S,
    talk: Arc<Talk>,
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Held<Incoming>>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Held<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (request, answer) = self.talk.begin(request);
        let response = self.service.call(request);
        Box::pin(async move { response.await.map(|response| answer.with(response)) })
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(HTTP2_PING);
    server
}

/// Waits until it can be seen which HTTP a connection speaks; hyper itself would wait for ever. `None` if it
/// ended before.
async fn first_bytes(stream: &TcpStream) -> Option<Protocol> {
    let mut bytes = [0; HTTP2_PREFACE.len()];
    loop {
        match stream.peek(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(seen) if !HTTP2_PREFACE.starts_with(&bytes[..seen]) => return Some(Protocol::Http1),
            Ok(seen) if seen == bytes.len() => return Some(Protocol::Http2),
            // The same bytes can be peeked at once again: a moment for more of them to come.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
