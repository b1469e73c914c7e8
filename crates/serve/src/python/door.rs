use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gatewright_protocol::{FrameDecoder, Hello};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::greeting::{hello, refuse, until_ready};
use super::link::Link;
use super::refusal::{Cause, Refusal, Refusals};
use super::replica::{Origin, PythonReplica};
use super::secure;
use super::socket::{Reader, Writer, split_tcp, split_unix};
use super::talk::Line;
use crate::driver::Driver;
use crate::embedded::is_ours;
use crate::function::Function;
use crate::token::Token;
use gatewright_control::forwarded::Network;

/// Connections that have not said hello yet. When one more comes, the oldest of them is closed: a worker says hello
/// at once, so the oldest is none.
const STRANGERS: usize = 256;

/// Bytes that the system may take for a worker elsewhere beyond what is on its way.
const UNSENT: u32 = 128 * 1024;

/// What a worker of this machine is called in the log.
const NEAR: &str = "this machine";

/// Where workers from elsewhere come in, over TCP.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    guard: Arc<Guard>,
}

/// Whom a door is opened to.
#[derive(Debug)]
pub(crate) struct Rules {
    /// What a worker must present, if anything.
    pub(crate) token: Arc<Token>,
    /// Hosts and networks that it may come from; anywhere if there is none.
    pub(crate) allow: Vec<String>,
    /// The function of a worker that names none.
    pub(crate) default: Option<String>,
    /// Workers at a time.
    pub(crate) max_workers: u32,
    /// TLS is spoken if there is this.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// How long a connection may take to say hello, handshake included.
    pub(crate) hello_timeout: Duration,
}

#[derive(Debug)]
struct Guard {
    token: Arc<Token>,
    allow: Vec<Network>,
    default: Option<String>,
    /// One for each worker that may join.
    places: Arc<Semaphore>,
    tls: Option<Secure>,
    hello_timeout: Duration,
    refusals: Refusals,
}

/// What makes a connection a secure one.
#[derive(Clone)]
struct Secure(TlsAcceptor);

impl std::fmt::Debug for Secure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secure")
    }
}

impl Door {
    /// A door at this listener; the error is the entry of `allow` that is no network.
    pub(crate) fn new(
        listener: TcpListener,
        rules: Rules,
        refusals: Refusals,
    ) -> Result<Self, String> {
        let allow = rules.allow.iter();
        let allow = allow.map(|text| Network::parse(text).ok_or_else(|| text.clone()));
        let guard = Guard {
            token: rules.token,
            allow: allow.collect::<Result<_, _>>()?,
            default: rules.default,
            places: Arc::new(Semaphore::new(rules.max_workers as usize)),
            tls: rules.tls.map(|config| Secure(config.into())),
            hello_timeout: rules.hello_timeout,
            refusals,
        };
        Ok(Self { listener, guard: Arc::new(guard) })
    }

    /// Lets workers in for as long as it is polled.
    pub(crate) async fn accept(self, driver: Arc<Driver>) {
        let mut strangers = Strangers::default();
        loop {
            match self.listener.accept().await {
                Ok((_, peer)) if !self.guard.may_come(peer.ip()) => {
                    let refusal = Cause::Host.because("its host is not in hub.allow");
                    self.guard.refusals.note(&peer.to_string(), &refusal);
                }
                Ok((stream, peer)) => {
                    if let Some(peer) = strangers.make_room() {
                        let refusal = Cause::Crowd.because("too many others have said nothing yet");
                        self.guard.refusals.note(&peer.to_string(), &refusal);
                    }
                    let (guard, driver) = (Arc::clone(&self.guard), Arc::clone(&driver));
                    let greeting = tokio::spawn(async move {
                        guard.receive(stream, &peer.to_string(), driver).await;
                    });
                    strangers.0.push_back((peer, greeting.abort_handle()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a worker");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Lets workers of this machine and user in by a Unix socket, for as long as it is polled.
    pub(crate) fn accept_near(
        &self,
        listener: UnixListener,
        driver: Arc<Driver>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let guard = Arc::clone(&self.guard);
        async move {
            // They are of the same user, so that it is enough that each may only be silent for a while.
            let mut greetings = JoinSet::new();
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if is_ours(&stream) => {
                        let (guard, driver) = (Arc::clone(&guard), Arc::clone(&driver));
                        let until = Instant::now() + guard.hello_timeout;
                        greetings.spawn(async move {
                            match split_unix(stream) {
                                Ok((reader, writer)) => {
                                    guard.greet(reader, writer, NEAR, until, driver).await;
                                }
                                Err(error) => tracing::warn!(%error, "cannot hear a worker"),
                            }
                        });
                    }
                    Ok(_) => {
                        let refusal = Cause::Host.because("it is another user's");
                        guard.refusals.note(NEAR, &refusal);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a worker");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                while greetings.try_join_next().is_some() {}
            }
        }
    }
}

/// Those that are being greeted, the oldest first.
#[derive(Default)]
struct Strangers(VecDeque<(SocketAddr, AbortHandle)>);

impl Strangers {
    /// Makes room for one more; returns whom that cost the connection.
    fn make_room(&mut self) -> Option<SocketAddr> {
        self.0.retain(|(_, greeting)| !greeting.is_finished());
        if self.0.len() < STRANGERS {
            return None;
        }
        let (peer, greeting) = self.0.pop_front()?;
        greeting.abort();
        Some(peer)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for (_, greeting) in &self.0 {
            greeting.abort();
        }
    }
}

impl Guard {
    fn may_come(&self, peer: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.holds(peer))
    }

    /// Hears who came by TCP.
    async fn receive(&self, stream: TcpStream, peer: &str, driver: Arc<Driver>) {
        let until = Instant::now() + self.hello_timeout;
        let opened = timeout_at(until, self.open(stream)).await;
        match opened.unwrap_or_else(|_| Err((late(), None))) {
            Ok((reader, writer)) => self.greet(reader, writer, peer, until, driver).await,
            Err((refusal, mut writer)) => self.turn_away(peer, refusal, writer.as_mut()).await,
        }
    }

    /// Hears who somebody is, who says so before `until`; a worker that is taken lives on in a task of its own.
    async fn greet(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        peer: &str,
        until: Instant,
        driver: Arc<Driver>,
    ) {
        let greeting = timeout_at(until, hello(&mut reader, &self.token)).await;
        let hello = greeting.unwrap_or_else(|_| Err(late()));
        match hello.and_then(|hello| self.place(hello, &driver)) {
            Ok(guest) => {
                let living = guest.live(Arc::clone(&driver), reader, writer, peer.to_owned());
                driver.tasks.spawn(living);
            }
            Err(refusal) => self.turn_away(peer, refusal, Some(&mut writer)).await,
        }
    }

    /// A connection on which frames may come. If none may, the way to say why, if there is one.
    async fn open(&self, stream: TcpStream) -> Result<(Reader, Writer), (Refusal, Option<Writer>)> {
        limit_unsent(&stream);
        let broken = |error: std::io::Error| (Cause::Protocol.because(error.to_string()), None);
        let Some(Secure(acceptor)) = &self.tls else { return split_tcp(stream).map_err(broken) };
        match secure::accept(acceptor, stream).await {
            Ok(halves) => Ok(halves),
            Err(secure::NoTls::Plain(stream)) => {
                let refusal = Cause::Tls.because("it does not speak TLS, and this hub does");
                Err((refusal, split_tcp(stream).ok().map(|(_, writer)| writer)))
            }
            Err(secure::NoTls::Failed(error)) => Err((Cause::Tls.because(error.to_string()), None)),
        }
    }

    /// Says why somebody is not let in: to the log, the metrics and, if there is a way, to whom it concerns.
    async fn turn_away(&self, peer: &str, refusal: Refusal, writer: Option<&mut Writer>) {
        self.refusals.note(peer, &refusal);
        if let Some(writer) = writer {
            let refusing = refuse(writer, refusal.reason);
            drop(tokio::time::timeout(self.hello_timeout, refusing).await);
        }
    }

    fn place(&self, hello: Hello, driver: &Driver) -> Result<Guest, Refusal> {
        let no = |what: String| Cause::Function.because(what);
        let name = hello.function.clone().or_else(|| self.default.clone());
        let name =
            name.ok_or_else(|| no("it does not say which function it answers for".into()))?;
        let function = driver.function(&name);
        let function = function.ok_or_else(|| no(format!("there is no function `{name}`")))?;
        if !function.runs_workers() {
            return Err(no(format!("function `{name}` has no workers")));
        }
        if hello.window < function.window {
            let (theirs, ours) = (hello.window, function.window);
            return Err(no(format!("it takes {theirs} requests at a time, not {ours}")));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let full = "there are as many workers as hub.max_workers allows";
        let place = place.map_err(|_| Cause::Full.because(full))?;
        Ok(Guest { hello, function, _place: place })
    }
}

/// Keeps the system from taking megabytes that the network has not: whether a long request still moves could not be
/// seen.
fn limit_unsent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "a long request may look stuck on a slow network");
    }
}

fn late() -> Refusal {
    Cause::Silent.because("it did not say hello in time")
}

/// A worker that may come in.
struct Guest {
    hello: Hello,
    function: Arc<Function>,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    async fn live(self, driver: Arc<Driver>, mut reader: Reader, writer: Writer, peer: String) {
        let (function, limit) = (&self.function, driver.workplace.max_frame);
        let mut decoder = FrameDecoder::new(usize::try_from(limit).unwrap_or(usize::MAX));
        let link = Link::new(writer);
        let ready = until_ready(&link, &mut reader, &mut decoder, &function.init, limit);
        let ready = tokio::select! {
            ready = tokio::time::timeout(function.start_timeout, ready) => ready,
            () = driver.kill.cancelled() => return,
        };
        match ready {
            Ok(Ok(())) => {}
            Ok(Err(Some(failure))) => {
                return tracing::error!(peer, worker = self.hello.name, %failure, "did not start");
            }
            Ok(Err(None)) | Err(_) => {
                return tracing::warn!(peer, worker = self.hello.name, "was never ready");
            }
        }
        let Hello { name: who, node, labels, cpus, memory, .. } = self.hello;
        let origin = Arc::new(Origin { node: node.into(), labels, cpus, memory });
        let joined = driver.join(function, |key, number| {
            PythonReplica::joined(key, number, Arc::clone(function), origin, link)
        });
        if let Some(replica) = joined {
            let name = format!("{}/{} ({who} at {peer})", function.name, replica.number);
            tracing::info!(worker = name, "joined");
            replica.live_joined(driver, Line::new(reader, decoder), &name).await;
        }
    }
}
