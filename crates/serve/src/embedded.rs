mod asked;
mod doors;
mod guests;
mod requests;
mod shared;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gatewright_control::config::{self, HumanDuration, RetryRules, ServerTls};
use gatewright_control::{End, FunctionKey, Shed};
use gatewright_protocol::{Arguments, CallError};
use parking_lot::Mutex;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use crate::ServeError;
use crate::call::{Answer, Call, Step};
use crate::driver::{Driver, Workplace};
use crate::function::Function;
use crate::gateway::{MAX_FRAME, token_for_workers};
use crate::metrics::Metrics;
use crate::python::{Attendance, Door, Hub, Load, Refusals, Rules};
use crate::streams::Witness;

use asked::Place;
pub use asked::{Caller, ROOM};
use doors::Doors;
pub(crate) use doors::is_ours;
pub use shared::SharedHub;

/// Name of the one function of such a hub; a worker may leave it out.
const FUNCTION: &str = "hub";
/// How long a request without a time limit may take: ten years.
const NO_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// What an [`EmbeddedHub`] is told.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Address for workers, "host:port"; port 0 takes a free one.
    pub listen: String,
    /// What workers must present; needed off loopback.
    pub token: Option<String>,
    /// Hosts that may connect: addresses, or networks such as "10.0.0.0/8". All of them if the list is empty.
    pub allow: Vec<String>,
    /// Workers at a time.
    pub max_workers: u32,
    /// Requests that one worker works on at a time, from 1. A worker must take at least so many.
    pub concurrency: u32,
    /// Requests that may wait; one more is refused.
    pub queue_capacity: u32,
    /// Attempts of a request that loses its worker; 1 means that no request is ever run twice.
    pub attempts: u32,
    /// How long one attempt may take before its worker's connection is cut; no limit unless set.
    pub max_execution: Option<Duration>,
    /// How long a worker may leave pings unanswered before its connection is cut.
    pub silence: Duration,
    /// How long a connection may take to say hello, TLS handshake included.
    pub hello_timeout: Duration,
    /// The certificate that is shown to workers, with paths relative to the working directory; no TLS unless set.
    pub tls: Option<ServerTls>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5019".to_owned(),
            token: None,
            allow: Vec::new(),
            max_workers: 1_000,
            concurrency: 1,
            queue_capacity: 100_000,
            attempts: 2,
            max_execution: None,
            silence: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// A hub without HTTP, for programs that ask workers themselves: workers join over TCP, and each request goes to
/// a free one, first come, first served. Dropped, it ends, and its workers look for another one.
#[derive(Debug)]
pub struct EmbeddedHub {
    driver: Arc<Driver>,
    function: Arc<Function>,
    key: FunctionKey,
    address: SocketAddr,
    requests: AtomicU64,
    place: Arc<Place>,
    /// What lets workers in.
    listening: Mutex<JoinSet<()>>,
    background: JoinSet<()>,
    _kill: DropGuard,
}

/// Why a request to an [`EmbeddedHub`] has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// The user's code failed.
    #[error("{}: {}", .0.kind, .0.message)]
    Call(CallError),
    /// There was no answer in time, in any of the tries.
    #[error("there was no answer within {0:?}")]
    TimedOut(Duration),
    /// The worker was lost, and the request may not be tried again.
    #[error("the worker that worked on the request was lost")]
    Lost,
    /// As many requests wait as may.
    #[error("too many requests wait for a worker")]
    QueueFull {
        /// When there is a place again, as far as the queue's length and the calls so far can tell.
        retry_after: Duration,
    },
    /// The hub was stopped.
    #[error("the hub was stopped")]
    Stopped,
}

/// What an [`EmbeddedHub`] is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStatus {
    /// Workers that take requests.
    pub workers: u32,
    /// Requests that wait for one.
    pub queued: usize,
    /// Requests at workers.
    pub in_flight: u32,
    /// Requests so far.
    pub arrived: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Workers that were lost.
    pub workers_lost: u64,
}

impl EmbeddedHub {
    /// Listens for workers. To be called in a tokio runtime, which must live as long as the hub.
    ///
    /// # Errors
    /// The address cannot be listened on; off loopback there is no token; `allow` names no network.
    pub async fn start(options: HubOptions) -> Result<Self, ServeError> {
        let Some(doors) = Doors::open(&options.listen).await? else {
            let address = doors::resolve(&options.listen).await?;
            let source = std::io::ErrorKind::AddrInUse.into();
            return Err(ServeError::Bind { key: "listen", address, source });
        };
        let Doors { tcp, workers, callers: _, address } = doors;
        Self::listen(&options, tcp, workers, address, None)
    }

    fn listen(
        options: &HubOptions,
        tcp: TcpListener,
        workers: UnixListener,
        address: SocketAddr,
        attendance: Option<Arc<Attendance>>,
    ) -> Result<Self, ServeError> {
        let metrics = Metrics::new();
        let tls = options.tls.as_ref();
        let tls = tls.map(|tls| crate::tls::server(tls, Path::new("."), &[])).transpose();
        let rules = Rules {
            token: token_for_workers(options.token.clone(), None, address)?,
            allow: options.allow.clone(),
            default: Some(FUNCTION.to_owned()),
            max_workers: options.max_workers,
            tls: tls.map_err(|source| ServeError::Tls { at: "tls".to_owned(), source })?,
            hello_timeout: options.hello_timeout,
        };
        let door = Door::new(tcp, rules, Refusals::new(metrics.refusals.clone()));
        let door = door.map_err(|entry| ServeError::Allow { entry })?;
        let (hub, accepting) = Hub::open(MAX_FRAME).map_err(ServeError::Hub)?;
        let workplace = Workplace {
            base_dir: ".".into(),
            python: "python3".into(),
            grace: Duration::from_secs(5),
            liveness: options.silence,
            remote_liveness: options.silence,
            max_frame: MAX_FRAME,
        };
        let driver = Driver::new(1, hub, attendance, workplace, Witness::default());
        let described = describe(options);
        let metrics = metrics.function(FUNCTION);
        let function = Arc::new(Function::new(FUNCTION, &described, Path::new("."), metrics)?);
        let deployed = driver.deploy(Arc::clone(&function), described.deployment(FUNCTION));
        let key = deployed.map_err(|error| ServeError::Function {
            function: FUNCTION.to_owned(),
            what: error.to_string(),
        })?;
        let mut listening = JoinSet::new();
        listening.spawn(door.accept_near(workers, Arc::clone(&driver)));
        listening.spawn(door.accept(Arc::clone(&driver)));
        let mut background = JoinSet::new();
        background.spawn(accepting);
        background.spawn(Arc::clone(&driver).keep_time());
        if let Some(attendance) = &driver.attendance {
            let driver = Arc::clone(&driver);
            let load = move || {
                driver.look(|system| {
                    let view = system.function(key);
                    view.map_or_else(Load::default, |view| Load {
                        waiting: view.queued,
                        under_way: view.in_flight,
                    })
                })
            };
            background.spawn(Arc::clone(attendance).stand_by(load));
        }
        let kill = driver.kill.clone().drop_guard();
        let place = Arc::new(Place {
            driver: Arc::clone(&driver),
            function: Arc::clone(&function),
            rooms: Mutex::default(),
            runtime: Handle::current(),
        });
        Ok(Self {
            driver,
            function,
            key,
            address,
            requests: AtomicU64::new(0),
            place,
            listening: Mutex::new(listening),
            background,
            _kill: kill,
        })
    }

    /// Where workers join.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        self.driver.look(|system| {
            let view = system.function(self.key);
            view.map_or_else(HubStatus::default, |view| HubStatus {
                workers: view.running,
                queued: view.queued,
                in_flight: view.in_flight,
                arrived: view.totals.arrived,
                retries: view.totals.retries,
                workers_lost: view.totals.replicas_lost,
            })
        })
    }

    /// Asks a worker: `args` is one msgpack array, `kwargs` one msgpack map with string keys. The result is one
    /// msgpack value; pieces of a generator come joined, as one string or as bytes.
    ///
    /// A try that has no answer within `timeout` is abandoned and made again up to `retries` times, for ever with
    /// `None`. Dropping the future gives the request up: it never starts, or its worker is told.
    ///
    /// # Errors
    /// See [`HubError`].
    pub fn request(
        &self,
        args: Bytes,
        kwargs: Bytes,
        timeout: Option<Duration>,
        retries: Option<u32>,
    ) -> impl Future<Output = Result<Bytes, HubError>> + Send + use<> {
        let (driver, function) = (Arc::clone(&self.driver), Arc::clone(&self.function));
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut left = retries;
            loop {
                let arguments = Arguments { args: args.clone(), kwargs: kwargs.clone() };
                let answer = ask(&driver, &function, id, arguments, timeout).await;
                match (&answer, left) {
                    (Err(HubError::TimedOut(_)), None) => {}
                    (Err(HubError::TimedOut(_)), Some(tries @ 1..)) => left = Some(tries - 1),
                    _ => return answer,
                }
            }
        }
    }

    /// Takes no more requests, lets workers finish theirs within `grace`, and ends.
    pub async fn stop(mut self, grace: Duration) {
        let finished = async {
            while self.status().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        drop(tokio::time::timeout(grace, finished).await);
        self.driver.kill.cancel();
        self.driver.tasks.close();
        drop(tokio::time::timeout(grace, self.driver.tasks.wait()).await);
        self.stop_listening().await;
        self.background.shutdown().await;
    }

    /// Takes no more workers. The port and the names beside it are free when it returns.
    async fn stop_listening(&self) {
        let mut listening = std::mem::take(&mut *self.listening.lock());
        listening.shutdown().await;
    }
}

fn describe(options: &HubOptions) -> config::Function {
    config::Function {
        remote: true,
        concurrency: Some(options.concurrency.max(1)),
        queue: config::Queue { capacity: options.queue_capacity },
        timeout: HumanDuration::new(NO_TIMEOUT),
        max_execution: options.max_execution.map(HumanDuration::new),
        retries: RetryRules {
            attempts: options.attempts.max(1),
            budget: 1.0,
            ..RetryRules::default()
        },
        ..config::Function::default()
    }
}

/// One try.
async fn ask(
    driver: &Arc<Driver>,
    function: &Function,
    id: u64,
    arguments: Arguments,
    timeout: Option<Duration>,
) -> Result<Bytes, HubError> {
    let deadline = driver.clock.now() + timeout.unwrap_or(NO_TIMEOUT);
    let call = Arc::new(Call::new(id, Some(arguments), deadline));
    let ticket = driver.invoke(function, Arc::clone(&call)).ok_or(HubError::Stopped)?;
    loop {
        let end = match call.step().await {
            Step::Dispatched => continue,
            Step::Pieces { text, mut pieces } => {
                let mut joined = BytesMut::new();
                while let Some(piece) = pieces.recv().await {
                    joined.extend_from_slice(&piece);
                }
                match call.step().await {
                    Step::Ended(End::Ok) => return Ok(packed(text, &joined)),
                    Step::Ended(end) => end,
                    Step::Dispatched | Step::Pieces { .. } => End::Lost,
                }
            }
            Step::Ended(end) => end,
        };
        drop(ticket);
        return result(driver, function, end, call.take_answer(), timeout);
    }
}

/// What the end of a request means for who asked.
fn result(
    driver: &Driver,
    function: &Function,
    end: End,
    answer: Option<Answer>,
    timeout: Option<Duration>,
) -> Result<Bytes, HubError> {
    match (end, answer) {
        (End::Ok, Some(Answer::Value(value))) => Ok(value),
        (End::Error, Some(Answer::Failed(error))) => Err(HubError::Call(error)),
        (End::TimedOut, _) => Err(HubError::TimedOut(timeout.unwrap_or(NO_TIMEOUT))),
        (End::Shed(Shed::QueueFull), _) => {
            let wait =
                driver.look(|system| Some(system.function(*function.key.get()?)?.expected_wait));
            Err(HubError::QueueFull { retry_after: wait.unwrap_or_default() })
        }
        (End::Shed(_), _) => Err(HubError::Stopped),
        _ => Err(HubError::Lost),
    }
}

/// The pieces as one msgpack string or binary.
fn packed(text: bool, joined: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(joined.len() + 5);
    // str 32 and bin 32 of the msgpack specification; what came in frames fits their lengths.
    out.put_u8(if text { 0xdb } else { 0xc6 });
    out.put_u32(u32::try_from(joined.len()).unwrap_or(u32::MAX));
    out.put_slice(joined);
    out.freeze()
}
