use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::gather::{Gathered, InPlace};
use crate::headers::Client;
use crate::quiet::{Half, Heard, Held, Limits, Talk};
use crate::tls::Identity;

/// Longest head of a request in bytes, and the buffer of a connection.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields of a request.
const MAX_FIELDS: usize = 128;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 1024;
/// Bytes of a request's body, and of all bodies of an HTTP/2 connection, that a client may send before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that wait to be sent on one HTTP/2 stream.
const MAX_SEND_BUFFER: usize = 256 * 1024;
/// Requests of an HTTP/2 connection that their client takes back before they were looked at; one more ends it.
const MAX_TAKEN_BACK: usize = 64;
/// Mistakes of a client's streams that an HTTP/2 connection survives.
const MAX_MISTAKES: usize = 256;
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
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let server = Arc::new(Server::new());
    let secure = listener.tls.is_some();
    // A connection listens to one word alone while it is served.
    let (hush, calm) = (CancellationToken::new(), ends.kill.child_token());
    let mut late = 0;
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
        let (server, ends) = (Arc::clone(&server), ends.clone());
        let (hush, calm) = (hush.clone(), calm.clone());
        let service = service(Client { address: Some(address), secure, proxy: None });
        let tls = listener.tls.as_ref().map(|identity| identity.acceptor());
        tokio::spawn(async move {
            let greeting = tokio::time::timeout(bounds.header_timeout, greet(stream, tls));
            let greeted = tokio::select! {
                greeted = greeting => greeted,
                () = hush.cancelled() => return,
                () = ends.kill.cancelled() => return,
            };
            let Ok(Some((stream, protocol))) = greeted else { return };
            server.serve_greeted(stream, protocol, slot, service, bounds, &calm, &ends.kill).await;
        });
    }
    drop(listener);
    // Every connection has a slot, also when it has become a tunnel.
    let all = u32::try_from(bounds.connections).unwrap_or(u32::MAX);
    // All may have been answered before; what is not is waited for below.
    drop(tokio::time::timeout(LINGER.min(drain), slots.acquire_many(all)).await);
    hush.cancel();
    calm.cancel();
    if tokio::time::timeout(drain, slots.acquire_many(all)).await.is_err() {
        tracing::warn!("connections were closed before their requests were answered");
    }
}

/// A connection whose client has begun to speak.
enum Greeted {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Waits until it can be seen which HTTP a connection speaks, after its TLS handshake if it has one; nothing if it
/// ended before.
async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<(Greeted, Protocol)> {
    let Some(tls) = tls else {
        let protocol = first_bytes(&stream).await?;
        return Some((Greeted::Plain(stream), protocol));
    };
    match tls.accept(stream).await {
        Ok(stream) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
            Some((Greeted::Tls(Box::new(stream)), protocol))
        }
        Err(error) => {
            tracing::debug!(%error, "no TLS handshake");
            None
        }
    }
}

/// What speaks HTTP on connections.
struct Server {
    http1: http1::Builder,
    http2: http2::Builder<InPlace>,
}

/// Until when a connection is served, besides its own end.
struct Until<'a, F> {
    /// It was silent for too long.
    silence: F,
    /// All are to end when their requests are answered; or at once, if `kill` says so.
    calm: &'a CancellationToken,
    kill: &'a CancellationToken,
}

impl Server {
    fn new() -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS);
        let mut http2 = http2::Builder::new(InPlace);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_TAKEN_BACK)
            .max_local_error_reset_streams(MAX_MISTAKES)
            .enable_connect_protocol()
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING);
        Self { http1, http2 }
    }

    /// Serves a connection that has a slot among those there may be.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of at this point")]
    async fn serve_greeted<S, B>(
        &self,
        stream: Greeted,
        protocol: Protocol,
        slot: OwnedSemaphorePermit,
        service: S,
        bounds: Bounds,
        calm: &CancellationToken,
        kill: &CancellationToken,
    ) where
        S: Service<Request<Held<Incoming>>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + Unpin + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let talk = Talk::new(protocol == Protocol::Http1);
        let service = Watched { service, talk: Arc::clone(&talk) };
        let until = Until { silence: silence(&talk, protocol, bounds), calm, kill };
        match stream {
            Greeted::Plain(stream) => {
                let stream = Heard::new(stream, &talk, slot);
                self.serve(stream, protocol, service, until).await;
            }
            Greeted::Tls(stream) => {
                let stream = Heard::new(*stream, &talk, slot);
                self.serve(stream, protocol, service, until).await;
            }
        }
    }

    async fn serve<I, S, B, F>(
        &self,
        stream: I,
        protocol: Protocol,
        service: S,
        until: Until<'_, F>,
    ) where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + Unpin + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Future<Output = ()>,
    {
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(TokioIo::new(stream), service);
                let connection = connection.with_upgrades();
                until.ends(connection, |it| it.graceful_shutdown(), protocol).await;
            }
            Protocol::Http2 => {
                let serve = |stream| self.http2.serve_connection(TokioIo::new(stream), service);
                let connection = Gathered::new(stream).serve(serve);
                until
                    .ends(connection, |it| it.get_mut().connection().graceful_shutdown(), protocol)
                    .await;
            }
        }
    }
}

impl<F: Future<Output = ()>> Until<'_, F> {
    /// Serves a connection to its end. One of HTTP/1 that was silent for too long is closed; one of HTTP/2 is told to
    /// end, as all are when the gateway does.
    async fn ends<C>(self, connection: C, end: impl Fn(Pin<&mut C>), protocol: Protocol)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let (mut connection, mut silence) =
            (std::pin::pin!(connection), std::pin::pin!(self.silence));
        let mut ending = false;
        loop {
            tokio::select! {
                biased;
                served = connection.as_mut() => {
                    if let Err(error) = served {
                        tracing::debug!(?error, "a connection ended with an error");
                    }
                    return;
                }
                () = silence.as_mut(), if !ending => {
                    if protocol == Protocol::Http1 {
                        return;
                    }
                }
                () = self.calm.cancelled(), if !ending => {
                    if self.kill.is_cancelled() {
                        return;
                    }
                }
                () = self.kill.cancelled(), if ending => return,
            }
            ending = true;
            end(connection.as_mut());
        }
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

/// Returns when a connection has been silent for too long. One of HTTP/2 is told then that it ends; whether its
/// client is still there is asked meanwhile.
async fn silence(talk: &Talk, protocol: Protocol, bounds: Bounds) {
    let idle = bounds.idle_timeout;
    let head = if protocol == Protocol::Http1 { bounds.header_timeout } else { idle };
    talk.is_over(Limits { head, idle }).await;
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
    S::Future: Unpin,
{
    type Response = Response<Held<B>>;
    type Error = Infallible;
    type Future = Answered<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (request, half) = self.talk.begin(request);
        Answered { response: self.service.call(request), half: Some(half) }
    }
}

/// An answer to come that is noticed.
struct Answered<F> {
    response: F,
    half: Option<Half>,
}

impl<F, B> Future for Answered<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<Held<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match ready!(Pin::new(&mut self.response).poll(context)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let half = self.half.take().expect("an answer comes once");
        Poll::Ready(Ok(half.with(response)))
    }
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
