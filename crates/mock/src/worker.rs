use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::body::{Body, Reset, ResetFlag};
use crate::io::Socket;
use crate::openai::Endpoint;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::stats::{Lateness, count};
use crate::timer::Timer;
use crate::visit::Visit;

/// One thread that serves.
pub(crate) struct Worker {
    pub(crate) server: Arc<Server>,
    pub(crate) timer: Timer,
    /// Connections open on this thread.
    open: Cell<usize>,
    builder: auto::Builder<Local>,
}

/// Runs hyper's tasks on the thread that started them.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Worker {
    /// To be made inside the runtime of the thread.
    pub(crate) fn new(server: Arc<Server>, lateness: Arc<Lateness>) -> io::Result<Self> {
        let longest_lead = server.config.wake_early_micros * 1000;
        let timer = Timer::new(server.clock, longest_lead, lateness)?;
        let limits = &server.config.limits;
        let mut builder = auto::Builder::new(Local);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs_f64(limits.head_seconds))
            .max_buf_size(limits.head_bytes)
            .half_close(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
        Ok(Self { server, timer, open: Cell::new(0), builder })
    }

    /// Serves the connections that come until `stop`, and then those that are open until the grace is over.
    pub(crate) async fn run(
        self,
        mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let worker = Rc::new(self);
        let alarm = tokio::task::spawn_local(worker.timer.clone().run());
        let stops = stop.clone();
        loop {
            tokio::select! {
                stream = connections.recv() => match stream {
                    Some(stream) => worker.open(stream, stops.clone()),
                    None => break,
                },
                // An error means that nobody can say it any more, which says it too.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        drop(connections);
        worker.drain().await;
        alarm.abort();
        match alarm.await {
            Ok(failed) => failed,
            Err(_) => Ok(()),
        }
    }

    async fn drain(&self) {
        let grace = Duration::from_secs_f64(self.server.config.limits.grace_seconds);
        let empty = async {
            while self.open.get() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(grace, empty).await.is_err() {
            tracing::warn!(open = self.open.get(), "connections are cut off: the grace is over");
        }
    }

    fn open(self: &Rc<Self>, stream: std::net::TcpStream, stop: watch::Receiver<bool>) {
        let opened = Opened::new(self);
        // One that died meanwhile is no loss.
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            worker.connection(stream, stop).await;
            drop(opened);
        });
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, mut stop: watch::Receiver<bool>) {
        let reset = ResetFlag::default();
        let io = TokioIo::new(Socket::new(stream, reset.clone()));
        let service = service_fn(|request| Rc::clone(&self).answer(request, reset.clone()));
        let mut connection = std::pin::pin!(self.builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stop.wait_for(|stop| *stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        reset: ResetFlag,
    ) -> Result<Response<Body>, Reset> {
        let arrival = self.timer.now();
        let server = Arc::clone(&self.server);
        let number = server.counters.requests.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        tracing::debug!(number, method = %head.method, path = head.uri.path(), "request");
        let body = if body.is_end_stream() {
            Bytes::new()
        } else {
            let limits = &server.config.limits;
            let whole = read(body, limits.body_bytes);
            let patience = Duration::from_secs_f64(limits.head_seconds);
            match tokio::time::timeout(patience, whole).await {
                Ok(Ok(body)) => body,
                Ok(Err(refusal)) => return Ok(refusal.into_response()),
                Err(_) => return Ok(Refusal::too_slow().into_response()),
            }
        };
        let visit = Visit { number, arrival, reset, worker: self };
        let endpoint = server.openai.as_ref().and_then(|_| Endpoint::of(head.uri.path()));
        if let (Some(openai), Some(endpoint)) = (&server.openai, endpoint) {
            return openai.answer(endpoint, &head, &body, &visit).await;
        }
        match &server.plain {
            Some(plain) => plain.answer(&visit).await,
            None => Ok(Refusal::no_path(head.uri.path()).into_response()),
        }
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(limit)),
        Err(_) => Err(Refusal::broken_body()),
    }
}

/// Counts a connection while it is open.
struct Opened {
    worker: Rc<Worker>,
}

impl Opened {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        count(&worker.server.counters.connections);
        Self { worker: Rc::clone(worker) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        self.worker.server.open.fetch_sub(1, Ordering::Relaxed);
    }
}
