use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gatewright_protocol::{FrameDecoder, Hello};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::greeting::{HELLO_TIMEOUT, hello, refuse, until_ready};
use super::link::Link;
use super::replica::PythonReplica;
use super::socket::{Reader, Writer, split_tcp};
use crate::driver::Driver;
use crate::function::Function;

/// Connections that have not said hello yet.
const STRANGERS: usize = 64;

/// Where workers from elsewhere come in, over TCP.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    guard: Arc<Guard>,
}

/// Whom the door is opened to.
#[derive(Debug)]
struct Guard {
    /// What a worker must present, if anything.
    token: Option<String>,
    /// Where it may come from; anywhere if there is none.
    allow: Vec<Network>,
    /// The function of a worker that names none.
    default: Option<String>,
    /// One for each worker that may join.
    places: Arc<Semaphore>,
}

/// An address, or the addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Bits that count.
    prefix: u8,
}

impl Network {
    /// "10.0.0.0/8", "127.0.0.1", "fd00::/8".
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix })
    }

    fn holds(self, peer: IpAddr) -> bool {
        let same = |left: u128, right: u128, bits: u32| {
            let differing = bits - u32::from(self.prefix);
            left.checked_shr(differing).unwrap_or(0) == right.checked_shr(differing).unwrap_or(0)
        };
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                same(u32::from(own).into(), u32::from(peer).into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(peer)) => same(own.into(), peer.into(), 128),
            _ => false,
        }
    }
}

impl Door {
    /// A door at this listener; the error is the entry of `allow` that is no network.
    pub(crate) fn new(
        listener: TcpListener,
        token: Option<String>,
        allow: &[String],
        default: Option<String>,
        max_workers: u32,
    ) -> Result<Self, String> {
        let allow = allow.iter().map(|text| Network::parse(text).ok_or_else(|| text.clone()));
        let guard = Guard {
            token,
            allow: allow.collect::<Result<_, _>>()?,
            default,
            places: Arc::new(Semaphore::new(max_workers as usize)),
        };
        Ok(Self { listener, guard: Arc::new(guard) })
    }

    /// Lets workers in for as long as it is polled.
    pub(crate) async fn accept(self, driver: Arc<Driver>) {
        let mut strangers: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            match self.listener.accept().await {
                Ok((_, peer)) if !self.guard.may_come(peer.ip()) => {
                    tracing::warn!(%peer, "a worker's host is not in hub.allow");
                }
                Ok((stream, peer)) => {
                    let (guard, driver) = (Arc::clone(&self.guard), Arc::clone(&driver));
                    let greeting = async move { guard.receive(stream, peer, driver).await };
                    strangers.retain(|stranger| !stranger.is_finished());
                    if strangers.len() == STRANGERS
                        && let Some(silent) = strangers.pop_front()
                    {
                        // Whoever has said nothing for longest goes: silence keeps nobody else out.
                        silent.abort();
                    }
                    strangers.push_back(tokio::spawn(greeting).abort_handle());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a worker");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Guard {
    fn may_come(&self, peer: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|network| network.holds(peer))
    }

    /// Hears who somebody is; a worker that is taken lives on in a task of its own.
    async fn receive(&self, stream: TcpStream, peer: SocketAddr, driver: Arc<Driver>) {
        let (mut reader, mut writer) = split_tcp(stream);
        let greeting = hello(&mut reader, self.token.as_deref());
        let hello = tokio::time::timeout(HELLO_TIMEOUT, greeting).await;
        let hello = hello.unwrap_or_else(|_| Err("it did not say hello in time".to_owned()));
        match hello.and_then(|hello| self.place(hello, &driver)) {
            Ok(guest) => {
                let living = guest.live(Arc::clone(&driver), reader, writer, peer);
                driver.tasks.spawn(living);
            }
            Err(reason) => {
                tracing::warn!(%peer, reason, "refused a worker");
                let refusing = refuse(&mut writer, reason);
                drop(tokio::time::timeout(HELLO_TIMEOUT, refusing).await);
            }
        }
    }

    fn place(&self, hello: Hello, driver: &Driver) -> Result<Guest, String> {
        let name = hello.function.clone().or_else(|| self.default.clone());
        let name = name.ok_or("it does not say which function it answers for")?;
        let function = driver.function(&name);
        let function = function.ok_or_else(|| format!("there is no function `{name}`"))?;
        if !function.runs_workers() {
            return Err(format!("function `{name}` has no workers"));
        }
        if hello.window < function.window {
            let (theirs, ours) = (hello.window, function.window);
            return Err(format!("it takes {theirs} requests at a time, not {ours}"));
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| "there are as many workers as hub.max_workers allows")?;
        Ok(Guest { hello, function, _place: place })
    }
}

/// A worker that may come in.
struct Guest {
    hello: Hello,
    function: Arc<Function>,
    _place: OwnedSemaphorePermit,
}

impl Guest {
    async fn live(self, driver: Arc<Driver>, mut reader: Reader, writer: Writer, peer: SocketAddr) {
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
                return tracing::error!(%peer, worker = self.hello.name, %failure, "did not start");
            }
            Ok(Err(None)) | Err(_) => {
                return tracing::warn!(%peer, worker = self.hello.name, "was never ready");
            }
        }
        let node = Arc::from(&*self.hello.node);
        let joined = driver.join(function, |key, number| {
            PythonReplica::joined(key, number, Arc::clone(function), node, link)
        });
        if let Some(replica) = joined {
            let name =
                format!("{}/{} ({} at {peer})", function.name, replica.number, self.hello.name);
            tracing::info!(worker = name, "joined");
            replica.live_joined(driver, reader, decoder, &name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, peer: &str) -> bool {
        Network::parse(network).unwrap().holds(peer.parse().unwrap())
    }

    #[test]
    fn networks_hold_what_begins_alike() {
        assert!(holds("10.0.0.0/8", "10.200.3.4") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("127.0.0.1", "127.0.0.1") && !holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("::/0", "fe80::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"), "an IPv4 peer of an IPv6 socket");
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "1.2.3.4/"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
