use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::fate::Fates;
use crate::openai::OpenAi;
use crate::plain::Plain;
use crate::stats::{Counters, Lateness, Summary};
use crate::worker::Worker;
use crate::{MockError, OpenAiConfig};

/// What the threads of a mock server share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) openai: Option<OpenAi>,
    pub(crate) plain: Option<Plain>,
    pub(crate) fates: Arc<Fates>,
    pub(crate) counters: Arc<Counters>,
    /// Connections that are open, on whichever thread.
    pub(crate) open: AtomicUsize,
}

/// A mock server that runs. Dropping it tells it to stop as [`Mock::stop`] does, without waiting.
#[derive(Debug)]
pub struct Mock {
    address: SocketAddr,
    server: Arc<Server>,
    lateness: Vec<Arc<Lateness>>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Told when a thread has ended.
    any_ended: Option<mpsc::Receiver<()>>,
}

/// Tells that a thread ends, even if it panics.
struct LastWord(mpsc::Sender<()>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // One word is enough, so it is no loss if there is no room for another.
        self.0.try_send(()).unwrap_or_default();
    }
}

/// Starts a mock server on threads of its own.
///
/// # Errors
/// If the configuration is wrong, the address cannot be listened on, or a thread cannot be started.
pub fn start(config: Config) -> Result<Mock, MockError> {
    config.check()?;
    let address = config.address()?;
    let listener = listen(address).map_err(|source| MockError::Bind { address, source })?;
    let bound = listener.local_addr().map_err(|source| MockError::Bind { address, source })?;
    let threads = config.threads;
    let server = Arc::new(Server::new(config));
    let (stop, stopped) = watch::channel(false);
    let (ended, any_ended) = mpsc::channel(1);
    let mut mock = Mock {
        address: bound,
        server,
        lateness: vec![],
        stop,
        threads: vec![],
        any_ended: Some(any_ended),
    };
    let mut lanes = Vec::new();
    let (ready, started) = std::sync::mpsc::channel();
    for number in 0..threads {
        let (lane, connections) = mpsc::unbounded_channel();
        lanes.push(lane);
        let lateness = Arc::new(Lateness::new());
        mock.lateness.push(Arc::clone(&lateness));
        let server = Arc::clone(&mock.server);
        let (stopped, ready) = (stopped.clone(), ready.clone());
        mock.spawn(&format!("mock-{number}"), &ended, move || {
            let runtime = runtime()?;
            let inside = runtime.enter();
            let worker = Worker::new(server, lateness)?;
            drop(inside);
            // Nobody listens if another thread has failed already.
            ready.send(()).unwrap_or_default();
            drop(ready);
            runtime.block_on(worker.run(connections, stopped))
        })?;
    }
    let server = Arc::clone(&mock.server);
    mock.spawn("mock-accept", &ended, move || accept(&server, listener, &lanes, stopped))?;
    drop(ready);
    for _ in 0..threads {
        if started.recv().is_err() {
            return Err(mock.end().err().unwrap_or(MockError::Died));
        }
    }
    Ok(mock)
}

/// Runs a mock server until `shutdown` is done; then it takes nothing new, and what is under way has
/// `limits.grace_seconds` to end.
///
/// # Errors
/// As [`start`], and if a thread of the server fails.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<Summary, MockError> {
    let mut mock = start(config)?;
    tracing::info!(address = %mock.address(), "the mock server listens");
    let mut any_ended = mock.any_ended.take();
    let died = async {
        match &mut any_ended {
            Some(ended) => ended.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown => {}
        _ = died => {}
    }
    let ended = tokio::task::spawn_blocking(move || mock.stop());
    ended.await.map_err(|_| MockError::Died)?
}

impl Mock {
    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.server.counters.summary(&self.lateness)
    }

    /// Takes nothing new, lets what is under way end within `limits.grace_seconds`, and says what was done.
    /// Blocks until then.
    ///
    /// # Errors
    /// If a thread of the server failed.
    pub fn stop(mut self) -> Result<Summary, MockError> {
        self.end()?;
        Ok(self.summary())
    }

    fn spawn(
        &mut self,
        name: &str,
        ended: &mpsc::Sender<()>,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), MockError> {
        let last_word = LastWord(ended.clone());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _last_word = last_word;
            run()
        });
        self.threads.push(thread.map_err(MockError::Thread)?);
        Ok(())
    }

    fn end(&mut self) -> Result<(), MockError> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(MockError::Thread(error)),
                Err(_) => result = Err(MockError::Died),
            }
        }
        result
    }
}

impl Server {
    fn new(config: Config) -> Self {
        let clock = Clock::start();
        let fates = Arc::new(Fates::new(config.faults.clone()));
        let counters = Arc::new(Counters::default());
        let shared = || (Arc::clone(&fates), Arc::clone(&counters));
        let plain = config.http.as_ref().map(|http| {
            let (fates, counters) = shared();
            Plain::new(http, config.seed, clock, fates, counters)
        });
        let openai = match (&config.openai, &plain) {
            (None, Some(_)) => None,
            (openai, _) => {
                let (fates, counters) = shared();
                let openai = openai.clone().unwrap_or_else(OpenAiConfig::default);
                Some(OpenAi::new(openai, config.seed, clock, fates, counters))
            }
        };
        Self { config, clock, openai, plain, fates, counters, open: AtomicUsize::new(0) }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn runtime() -> io::Result<tokio::runtime::LocalRuntime> {
    // Looks at sockets and timer after a few tasks, not after 61: what is due must not wait behind a crowd.
    Builder::new_current_thread()
        .enable_all()
        .event_interval(8)
        .build_local(LocalOptions::default())
}

/// Deals out connections to the threads in turn.
fn accept(
    server: &Server,
    listener: TcpListener,
    lanes: &[mpsc::UnboundedSender<std::net::TcpStream>],
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: some will be free again.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            if server.open.fetch_add(1, Ordering::Relaxed) >= server.config.limits.connections {
                server.open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            if let Err(error) = SockRef::from(&stream).set_tcp_nodelay(true) {
                tracing::debug!(%error, "small answers may wait for one another");
            }
            // A lane is closed when its thread ends, and then all do.
            if lanes[turn % lanes.len()].send(stream).is_err() {
                return Ok(());
            }
            turn += 1;
        }
    })
}
