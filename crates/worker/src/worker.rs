use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatewright_determinism::{Purpose, Stream};
use gatewright_protocol::{Hello, VERSION};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::connection::{End, converse};
use crate::{Failure, Service, Tls};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the second try to reach a hub; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A worker that joins a hub: where, as what, and how much it takes.
#[derive(Clone, Debug)]
pub struct Worker {
    hub: String,
    function: Option<String>,
    name: String,
    node: String,
    token: String,
    labels: BTreeMap<String, String>,
    cpus: Option<u32>,
    memory: Option<u64>,
    concurrency: u32,
    grace: Duration,
    tls: Option<Tls>,
}

/// What ends a worker that was not told to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The service did not start; the hub was told too.
    #[error("the service did not start: {0}")]
    NotStarted(Failure),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
}

impl Worker {
    /// A worker for the hub at `hub`, "host:port". Its token is that of the environment variable
    /// `GATEWRIGHT_WORKER_TOKEN`, its node this machine's name, with its processors and memory.
    #[must_use]
    pub fn new(hub: impl Into<String>) -> Self {
        let info = rustix::system::sysinfo();
        Self {
            hub: hub.into(),
            function: None,
            name: "worker".to_owned(),
            node: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            token: std::env::var("GATEWRIGHT_WORKER_TOKEN").unwrap_or_default(),
            labels: BTreeMap::new(),
            cpus: std::thread::available_parallelism()
                .ok()
                .and_then(|n| u32::try_from(n.get()).ok()),
            memory: Some(info.totalram * u64::from(info.mem_unit)),
            concurrency: 1,
            grace: Duration::from_secs(30),
            tls: None,
        }
    }

    /// The function that it answers for; needed unless the hub has only one.
    #[must_use]
    pub fn function(mut self, name: impl Into<String>) -> Self {
        self.function = Some(name.into());
        self
    }

    /// Its name in the hub's log.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The name of its machine in records.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// The secret that the hub wants to see.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// A label of its node, such as `zone`, `eu-west`.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Requests that it takes at a time, at least 1. No fewer than the function's `concurrency`.
    #[must_use]
    pub fn concurrency(mut self, requests: u32) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How long it may take to answer what it has when it is told to stop; 30 s unless set.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Speaks TLS with a hub that has `hub.tls`.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Serves until SIGTERM or SIGINT. To be called in a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// If the service does not start, or signals cannot be listened for. A hub that is gone, or refuses this worker,
    /// is none: it is tried again, in growing pauses, and the log says why.
    pub async fn run(self, service: impl Service) -> Result<(), WorkerError> {
        let listen = |kind| signal(kind).map_err(WorkerError::Signals);
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let told = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        self.run_until(service, told).await
    }

    /// Serves until `stop` is done, and then until what it has is answered.
    ///
    /// # Errors
    /// If the service does not start.
    pub async fn run_until(
        self,
        service: impl Service,
        stop: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let stopping = CancellationToken::new();
        let serving = self.join_again_and_again(Arc::new(service), stopping.clone());
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            () = stop => stopping.cancel(),
        }
        serving.await
    }

    async fn join_again_and_again(
        self,
        service: Arc<impl Service>,
        stop: CancellationToken,
    ) -> Result<(), WorkerError> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut luck =
            Stream::new(since.as_nanos() as u64, Purpose::Jitter, std::process::id().into());
        let (mut pause, mut said) = (PAUSE, String::new());
        while !stop.is_cancelled() {
            let reason = match self.join(&service, &stop).await {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::NotStarted(failure)) => return Err(WorkerError::NotStarted(failure)),
                Ok(End::Over { reason, served }) => {
                    if served {
                        (pause, said) = (PAUSE, String::new());
                    }
                    reason
                }
                Err(error) => error.to_string(),
            };
            if reason != said {
                tracing::warn!(hub = self.hub, reason, "not at the hub; trying again");
                said = reason;
            }
            // Not all workers at once, when a hub comes back.
            let part = pause.mul_f64(0.5 + luck.unit() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(part) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }

    /// One connection.
    async fn join(&self, service: &Arc<impl Service>, stop: &CancellationToken) -> io::Result<End> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.hub));
        let socket = tokio::select! {
            connected = connecting => connected.map_err(|_| io::ErrorKind::TimedOut)??,
            () = stop.cancelled() => return Ok(End::Stopped),
        };
        socket.set_nodelay(true)?;
        // A hub whose machine is gone says nothing: noticed in a dozen seconds.
        let alive = TcpKeepalive::new()
            .with_time(Duration::from_secs(4))
            .with_interval(Duration::from_secs(2))
            .with_retries(4);
        SockRef::from(&socket).set_tcp_keepalive(&alive)?;
        if socket.local_addr()? == socket.peer_addr()? {
            // Linux may connect a socket to itself when nobody listens.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let hello = self.hello(service.batch_size());
        let Some(tls) = &self.tls else {
            return Ok(converse(service, hello, socket, stop, self.grace).await);
        };
        let host = self.hub.rsplit_once(':').map_or(&*self.hub, |(host, _)| host);
        let shaking = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(host, socket));
        let socket = shaking.await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(converse(service, hello, socket, stop, self.grace).await)
    }

    fn hello(&self, batch: u32) -> Hello {
        Hello {
            version: VERSION,
            name: self.name.clone(),
            pid: std::process::id(),
            window: self.concurrency.max(batch),
            token: self.token.clone(),
            function: self.function.clone(),
            node: self.node.clone(),
            labels: self.labels.clone(),
            cpus: self.cpus,
            memory: self.memory,
        }
    }
}
