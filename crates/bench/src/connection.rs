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
use crate::http2;
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
    /// If the connection speaks HTTP/2: what is in flight on it. Its phase is then never busy.
    pub(crate) http2: Option<Box<http2::Session>>,
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
#[derive(Clone, Copy, Debug, Default)]
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
    /// Begins to connect to `address`; by HTTP/2 with that many requests at a time, if `streams` says so.
    pub(crate) fn open(
        address: &Address,
        tls: Option<&Tls>,
        streams: Option<u32>,
        now: Time,
    ) -> Result<Self, Errno> {
        let mut connection = Self::open_plain(address, now)?;
        if let Some(tls) = tls {
            connection.tls = Some(tls.session().map_err(|_| Errno::PROTO)?);
            connection.phase = Phase::Connecting { since: now };
        }
        if let Some(limit) = streams {
            connection.http2 = Some(Box::new(http2::Session::new(limit)));
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
        Self {
            socket,
            phase,
            parser,
            tls: None,
            http2: None,
            tokens: None,
            written: 0,
            all_written: true,
        }
    }

    pub(crate) const fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether connecting has come to a good end, or goes on: both sides of HTTP/2 have to know what the other wants.
    pub(crate) fn connected(&mut self, buffer: &mut [u8], now: Time) -> Result<bool, Errno> {
        sockopt::socket_error(&self.socket)??;
        if let Some(tls) = &mut self.tls
            && !tls.shake(&self.socket)?
        {
            return Ok(false);
        }
        if self.http2.is_none() {
            return Ok(true);
        }
        self.flush()?;
        while let Some(count) = self.read(buffer)? {
            let Some(session) = self.http2.as_mut().filter(|_| count > 0) else {
                return Err(Errno::CONNRESET);
            };
            // Nothing is in flight yet that could end.
            session.receive(&buffer[..count], now, &mut Vec::new()).map_err(|error| {
                tracing::warn!(%error, "HTTP/2");
                Errno::PROTO
            })?;
        }
        self.flush()?;
        Ok(self.http2.as_ref().is_some_and(|session| session.is_agreed()))
    }

    /// Requests that may be given to it now.
    pub(crate) fn room(&self) -> usize {
        match (&self.phase, &self.http2) {
            (Phase::Idle, Some(session)) => session.room(),
            (Phase::Idle, None) => 1,
            (Phase::Connecting { .. } | Phase::Busy(_), _) => 0,
        }
    }

    /// Whether a request is in flight on it.
    pub(crate) fn has_requests(&self) -> bool {
        let on_streams = self.http2.as_ref().is_some_and(|http2| http2.requests().next().is_some());
        on_streams || matches!(self.phase, Phase::Busy(_))
    }

    /// Gives the socket as much as it takes of what is to go out by HTTP/2.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        let Some(session) = &mut self.http2 else { return Ok(()) };
        loop {
            if let Some(tls) = &mut self.tls
                && !tls.flush(&self.socket)?
            {
                return Ok(());
            }
            let pending = session.pending();
            if pending.is_empty() {
                return Ok(());
            }
            let count = match &mut self.tls {
                Some(tls) => tls.write(pending).map(|()| pending.len())?,
                None => match send(&self.socket, pending, SendFlags::NOSIGNAL) {
                    Ok(count) => count,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => 0,
                    Err(error) => return Err(error),
                },
            };
            session.sent(count);
        }
    }

    /// Begins a request, whose bytes are then to be given to [`Connection::write`].
    /// `keeps_text`: what is answered matters.
    pub(crate) fn begin(&mut self, request: InFlight, kind: AnswerKind, keeps_text: bool) {
        match (kind, &mut self.tokens) {
            (AnswerKind::Opaque, tokens) => *tokens = None,
            (AnswerKind::OpenAi, Some(tokens)) => tokens.reset(),
            (AnswerKind::OpenAi, tokens) => *tokens = Some(Box::default()),
        }
        if let Some(tokens) = self.tokens.as_mut().filter(|_| keeps_text) {
            tokens.keep_text();
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
