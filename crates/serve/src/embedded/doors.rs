//! What a hub listens at: its port, and beside it two Unix sockets for this machine.
//!
//! The Unix sockets have *abstract* names made of the port: they need no file, belong to the network namespace as
//! the port does, and are free as soon as their process is gone, however it went. Anybody could take such a name,
//! so both sides look at whose process the other one is.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::ServeError;
use crate::gateway::bind;

/// A port whose hub has just ended may be taken for a moment longer than its Unix sockets.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The listeners of one hub.
#[derive(Debug)]
pub(super) struct Doors {
    /// For workers, from this machine or another.
    pub(super) tcp: TcpListener,
    /// For workers of this machine and user: half the way of TCP.
    pub(super) workers: UnixListener,
    /// For processes that share the hub.
    pub(super) callers: UnixListener,
    pub(super) address: SocketAddr,
}

impl Doors {
    /// Listens; `None` if another hub of this machine has the port.
    pub(super) async fn open(listen: &str) -> Result<Option<Self>, ServeError> {
        if listen.rsplit_once(':').is_some_and(|(_, port)| port == "0") {
            let tcp = bind("listen", listen).await?;
            return Self::beside(tcp).map(Some).map_err(ServeError::Hub);
        }
        let address = resolve(listen).await?;
        // Whoever has this name is the hub.
        let callers = match listener(address, CALLERS) {
            Ok(callers) => callers,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(ServeError::Hub(error)),
        };
        let mut tries = 0;
        let tcp = loop {
            match bind("listen", listen).await {
                Err(ServeError::Bind { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse && tries < TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                tcp => break tcp?,
            }
        };
        let workers = listener(address, WORKERS).map_err(ServeError::Hub)?;
        Ok(Some(Self { tcp, workers, callers, address }))
    }

    fn beside(tcp: TcpListener) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let callers = listener(address, CALLERS)?;
        Ok(Self { tcp, workers: listener(address, WORKERS)?, callers, address })
    }
}

/// What the socket for workers is called after the port.
const WORKERS: &str = "workers";
/// What the socket for processes that share the hub is called.
const CALLERS: &str = "callers";

/// "gatewright-hub/5019/workers". Where a hub may be asked for as "localhost", its host is left out.
fn name(address: SocketAddr, kind: &str) -> String {
    let usual = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    match address.ip() {
        ip if usual.contains(&ip) => format!("gatewright-hub/{}/{kind}", address.port()),
        ip => format!("gatewright-hub/{}/{kind}/{ip}", address.port()),
    }
}

fn listener(address: SocketAddr, kind: &str) -> io::Result<UnixListener> {
    let name = unix::SocketAddr::from_abstract_name(name(address, kind))?;
    let listener = unix::UnixListener::bind_addr(&name)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Connects to the hub at this address, as a process that shares it.
pub(super) fn connect(address: SocketAddr) -> io::Result<UnixStream> {
    let name = unix::SocketAddr::from_abstract_name(name(address, CALLERS))?;
    let stream = unix::UnixStream::connect_addr(&name)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    if is_ours(&stream) {
        return Ok(stream);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the hub there is another user's"))
}

/// Whether the other end is a process of this user, or of the superuser.
pub(crate) fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

pub(super) async fn resolve(listen: &str) -> Result<SocketAddr, ServeError> {
    let wrong = |source| ServeError::Address { key: "listen", address: listen.to_owned(), source };
    let mut resolved = tokio::net::lookup_host(listen).await.map_err(wrong)?;
    resolved.next().ok_or_else(|| wrong(io::Error::other("it stands for no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_the_usual_one_is_in_the_name() {
        let of = |text: &str| name(text.parse().unwrap(), WORKERS);
        assert_eq!(of("127.0.0.1:5019"), "gatewright-hub/5019/workers");
        assert_eq!(of("0.0.0.0:5019"), of("[::1]:5019"));
        assert_eq!(of("127.0.0.2:5019"), "gatewright-hub/5019/workers/127.0.0.2");
    }
}
