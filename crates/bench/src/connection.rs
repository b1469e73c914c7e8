use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use gatewright_determinism::Time;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, ipproto,
    recv, send, socket_with, sockopt,
};

use crate::answer::{AnswerKind, TokenWatch};
use crate::feed::Turn;
use crate::response::ResponseParser;
use crate::tls::{Session, Tls};

/// One connection to the server and the request that is on it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) parser: ResponseParser,
    /// If the connection is secure.
    tls: Option<Session>,
    /// For answers of language models.
    pub(crate) tokens: Option<Box<TokenWatch>>,
    /// Bytes of the request that were given to the socket.
    written: usize,
    /// Whether that is all of them.
    all_written: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Connecting { since: Time },
    Idle,
    Busy(InFlight),
}

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A request that was sent and is not answered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) number: u64,
    pub(crate) scheduled: Option<Time>,
    pub(crate) turn: Turn,
    /// Which of several requests it is.
    pub(crate) choice: usize,
    /// Bytes of its body.
    pub(crate) body_len: u64,
    /// Which attempt it is, from 1.
    pub(crate) attempt: u32,
    /// When the first attempt was sent.
    pub(crate) sent: Time,
    pub(crate) first_byte: Option<Time>,
}

impl InFlight {
    /// The moment from which its time counts.
    pub(crate) fn start(&self) -> Time {
        self.scheduled.unwrap_or(self.sent)
    }
}

impl Connection {
    /// Begins to connect to `address`.
    pub(crate) fn open(address: &Address, tls: Option<&Tls>, now: Time) -> Result<Self, Errno> {
        let mut connection = Self::open_plain(address, now)?;
        if let Some(tls) = tls {
            connection.tls = Some(tls.session().map_err(|_| Errno::PROTO)?);
            connection.phase = Phase::Connecting { since: now };
        }
        Ok(connection)
    }

    fn open_plain(address: &Address, now: Time) -> Result<Self, Errno> {
        match address {
            Address::Tcp(address) => Self::open_tcp(address, now),
            Address::Unix(path) => {
                let address = SocketAddrUnix::new(path)?;
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                // A Unix socket is connected at once, or refuses because too many wait for the server.
                connect(&socket, &address)?;
                Ok(Self::new(socket, Phase::Idle))
            }
        }
    }

    fn open_tcp(address: &SocketAddr, now: Time) -> Result<Self, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let phase = match connect(&socket, address) {
            Ok(()) => Phase::Idle,
            Err(Errno::INPROGRESS) => Phase::Connecting { since: now },
            Err(error) => return Err(error),
        };
        Ok(Self::new(socket, phase))
    }

    /// Takes over a connection that was made elsewhere.
    pub(crate) fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self::new(socket, Phase::Idle))
    }

    const fn new(socket: OwnedFd, phase: Phase) -> Self {
        let parser = ResponseParser::new();
        Self { socket, phase, parser, tls: None, tokens: None, written: 0, all_written: true }
    }

    pub(crate) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether connecting has come to a good end, or goes on.
    pub(crate) fn connected(&mut self) -> Result<bool, Errno> {
        sockopt::socket_error(&self.socket)??;
        self.tls.as_mut().map_or(Ok(true), |tls| tls.shake(&self.socket))
    }

    /// Begins a request, whose bytes are then to be given to [`Connection::write`].
    pub(crate) fn begin(&mut self, request: InFlight, kind: AnswerKind) {
        match (kind, &mut self.tokens) {
            (AnswerKind::Opaque, tokens) => *tokens = None,
            (AnswerKind::OpenAi, Some(tokens)) => tokens.reset(),
            (AnswerKind::OpenAi, tokens) => *tokens = Some(Box::default()),
        }
        self.phase = Phase::Busy(request);
        self.parser.reset();
        self.written = 0;
        self.all_written = false;
    }

    pub(crate) const fn is_all_written(&self) -> bool {
        self.all_written
    }

    /// Gives the socket as much of `request` as it takes now and has not had.
    pub(crate) fn write(&mut self, request: &[u8]) -> Result<(), Errno> {
        if let Some(tls) = &mut self.tls {
            if self.written < request.len() {
                tls.write(&request[self.written..])?;
                self.written = request.len();
            }
            self.all_written = tls.flush(&self.socket)?;
            return Ok(());
        }
        while self.written < request.len() {
            match send(&self.socket, &request[self.written..], SendFlags::NOSIGNAL) {
                Ok(count) => self.written += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.all_written = true;
        Ok(())
    }

    /// Reads what is there; none if nothing is, 0 at the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        if let Some(tls) = &mut self.tls {
            return tls.read(&self.socket, buffer);
        }
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => return Ok(Some(count)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
