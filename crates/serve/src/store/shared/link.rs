use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatewright_control::config::{HumanDuration, SharedUrl};
use gatewright_control::health::{Breaker, BreakerRules, Condition, Verdict};
use gatewright_determinism::Time;
use parking_lot::Mutex;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, RedisResult};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::Clock;

/// Failures in a row after which the server is left alone. A connection that broke needs no second one.
const FAILURES: u32 = 3;
/// Pause before the first try to connect anew, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// How long a connection may take to stand.
const CONNECTING: Duration = Duration::from_millis(500);

/// The connection to the server, and the circuit breaker that says whether it is used: that of upstreams. It is opened
/// by failures, and closed by whoever keeps the connection up once the server answers again; no request is the one to
/// find out.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    tls: Option<Arc<ClientConfig>>,
    server: String,
    connection: Mutex<Option<MultiplexedConnection>>,
    breaker: Mutex<Breaker>,
    clock: Clock,
    broken: Notify,
    tried: watch::Sender<bool>,
    refused: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Troubles {
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) given_up: u64,
}

/// Why an operation came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server works, but does not want to: it is full, or still loading.
    Refused,
    /// It did not answer, not in time, or nonsense.
    Failed,
}

fn rules() -> BreakerRules {
    BreakerRules {
        failures: FAILURES,
        // Failures in a row alone count.
        rate: 1.0,
        min_requests: u32::MAX,
        open: HumanDuration::new(PAUSES[0]),
        max_open: HumanDuration::new(PAUSES[1]),
        ..BreakerRules::default()
    }
}

impl Link {
    /// With `tls`, TLS is spoken below Redis' protocol.
    pub(super) fn new(
        url: &SharedUrl,
        tls: Option<ClientConfig>,
        clock: Clock,
    ) -> Result<Self, String> {
        // The error may repeat the address with its password: its kind is enough.
        let client = Client::open(url.inside_tls())
            .map_err(|error| format!("the address is not understood ({:?})", error.kind()))?;
        Ok(Self {
            client,
            tls: tls.map(Arc::new),
            server: url.server().to_owned(),
            connection: Mutex::default(),
            breaker: Mutex::new(Breaker::new(rules())),
            clock,
            broken: Notify::new(),
            tried: watch::Sender::new(false),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The connection, while it is used.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.lock().clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.lock().is_some()
    }

    pub(super) fn trouble(&self) -> Troubles {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Troubles {
            refused: count(&self.refused),
            failed: count(&self.failed),
            given_up: count(&self.given_up),
        }
    }

    /// Waits for an answer, and takes note of how that went.
    pub(super) async fn within<T>(
        &self,
        until: Instant,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Trouble> {
        let began = self.clock.now();
        let error = match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(answer)) => {
                self.note(began, Verdict::Good);
                return Ok(answer);
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if let Some(error) = &error
            && matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
        {
            tracing::debug!(code = error.code(), "the shared tier refused an operation");
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Trouble::Refused);
        }
        self.failed.fetch_add(1, Ordering::Relaxed);
        if error.is_some_and(|error| error.is_unrecoverable_error())
            || self.note(began, Verdict::Gone) == Condition::Open
        {
            self.give_up();
        }
        Err(Trouble::Failed)
    }

    /// Takes in how something went that began at `began`.
    fn note(&self, began: Time, verdict: Verdict) -> Condition {
        let mut breaker = self.breaker.lock();
        breaker.record(self.clock.now(), began, verdict);
        breaker.condition()
    }

    /// Uses the server no longer.
    pub(super) fn give_up(&self) {
        self.breaker.lock().trip(self.clock.now());
        if self.connection.lock().take().is_some() {
            self.given_up.fetch_add(1, Ordering::Relaxed);
            self.broken.notify_one();
        }
    }

    /// Waits until it is given up.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Waits until it may be tried to connect.
    pub(super) async fn rested(&self) {
        loop {
            let next = {
                let mut breaker = self.breaker.lock();
                breaker.wake(self.clock.now());
                breaker.next()
            };
            let Some(instant) = self.clock.instant(next) else { return };
            tokio::time::sleep_until(instant.into()).await;
        }
    }

    /// Connects twice: to ask, and to listen. It may take for ever.
    pub(super) async fn connect(&self) -> RedisResult<(MultiplexedConnection, PubSub)> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTING))
            .set_response_timeout(None);
        let Some(tls) = &self.tls else {
            let connection = self.client.get_multiplexed_async_connection_with_config(&config);
            let connection = answers(connection.await?).await?;
            return Ok((connection, self.client.get_async_pubsub().await?));
        };
        let settings = self.client.get_connection_info().redis_settings();
        let stream = self.secure(tls).await?;
        let connected = MultiplexedConnection::new_with_config(settings, stream, config);
        let (connection, driver) = connected.await?;
        // It ends when the connection is given up.
        tokio::spawn(driver);
        let connection = answers(connection).await?;
        Ok((connection, PubSub::new(settings, self.secure(tls).await?).await?))
    }

    /// A connection on which TLS is spoken.
    async fn secure(&self, tls: &Arc<ClientConfig>) -> RedisResult<TlsStream<TcpStream>> {
        let wrong = |what: &'static str| (ErrorKind::InvalidClientConfig, what);
        let ConnectionAddr::Tcp(host, port) = self.client.get_connection_info().addr() else {
            return Err(wrong("its address is none of TCP").into());
        };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| wrong("its host is no name that a certificate could be for"))?;
        let connecting = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.inspect_err(|error| {
                tracing::warn!(server = self.server, %error, "no TLS with the shared tier");
            })
        };
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        Ok(tokio::time::timeout(CONNECTING, connecting).await.unwrap_or_else(|_| Err(late()))?)
    }

    /// Uses the server from now on.
    pub(super) fn take_up(&self, connection: MultiplexedConnection) {
        let now = self.clock.now();
        self.note(now, Verdict::Good);
        *self.connection.lock() = Some(connection);
        self.tried.send_replace(true);
    }

    /// It was tried to connect, and failed.
    pub(super) fn not_connected(&self) {
        self.breaker.lock().trip(self.clock.now());
        self.tried.send_replace(true);
    }

    /// Waits until it was tried once to connect, but not for long.
    pub(super) async fn tried(&self) {
        let mut tried = self.tried.subscribe();
        // Whether it was or not: nobody needs it to be there.
        drop(tokio::time::timeout(CONNECTING * 2, tried.wait_for(|tried| *tried)).await);
    }
}

/// A connection whose server speaks.
async fn answers(mut connection: MultiplexedConnection) -> RedisResult<MultiplexedConnection> {
    let () = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(connection)
}
