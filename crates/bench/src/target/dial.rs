//! Connections that block: one to learn whether the server is there, and those of single requests before a run.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use gatewright_determinism::Time;

use super::ParsedTarget;
use crate::connection::{Address, InFlight};
use crate::feed::Turn;
use crate::http2;
use crate::response::{self, ResponseParser};
use crate::tls::Tls;
use crate::{AnswerKind, BenchError};

/// What is kept of an answer that is read whole.
const MAX_FETCHED: usize = 1 << 20;

/// Where the server is, how it is spoken to, and perhaps a connection.
pub(crate) type Connected = (Address, Option<Tls>, Option<OwnedFd>);

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) code: u16,
    /// Where it says that the answer is to be found instead.
    pub(crate) location: Option<String>,
    /// Its body, up to a megabyte.
    pub(crate) body: Vec<u8>,
}

/// A connection that blocks.
#[derive(Debug)]
enum Dialled {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ParsedTarget {
    /// Finds the server and makes sure that it is there: the connection made for it is the run's first one.
    ///
    /// A connection that is secure, or of HTTP/2, is made once to learn what is wrong with it, if anything is, and not
    /// used.
    pub(crate) fn connect(&self, timeout: Duration) -> Result<Connected, BenchError> {
        let (address, tls, stream) = self.dial(timeout, timeout)?;
        let first = self.first(tls.as_ref(), stream)?;
        Ok((address, tls, first))
    }

    /// Makes the first request over a connection of its own, which may take `connect` to be made.
    pub(crate) fn fetch(
        &mut self,
        connect: Duration,
        timeout: Duration,
    ) -> Result<Fetched, BenchError> {
        let (_, tls, mut stream) = self.dial(connect, timeout)?;
        let Some(tls) = tls else { return self.ask(&mut stream, timeout) };
        let host = self.host.clone();
        let secure = tls.stream(stream);
        let mut stream = secure.map_err(|what| BenchError::Tls { host, what })?;
        self.ask(&mut stream, timeout)
    }

    fn ask(
        &mut self,
        stream: &mut (impl Read + Write),
        timeout: Duration,
    ) -> Result<Fetched, BenchError> {
        let deadline = Instant::now() + timeout;
        if self.http2 {
            let (block, body) = self.requests.parts(0, 0, Turn::default());
            return exchange_http2(stream, block, body, deadline);
        }
        exchange(stream, self.requests.bytes(0, 0, Turn::default()), deadline)
    }

    fn dial(
        &self,
        connect: Duration,
        timeout: Duration,
    ) -> Result<(Address, Option<Tls>, Dialled), BenchError> {
        let tls = self.trust.as_ref().map(|trust| Tls::new(&self.host, trust, self.http2));
        let tls = tls.transpose()?;
        if let Some(path) = &self.unix_socket {
            let stream = UnixStream::connect(path)
                .map_err(|source| BenchError::ConnectUnix { path: path.clone(), source })?;
            stream.set_read_timeout(Some(timeout))?;
            return Ok((Address::Unix(path.clone()), tls, Dialled::Unix(stream)));
        }
        let host = format!("{}:{}", self.host, self.port);
        let resolve = |source| BenchError::Resolve { host: host.clone(), source };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(resolve)?;
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, connect) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(timeout))?;
                    return Ok((Address::Tcp(address), tls, Dialled::Tcp(stream)));
                }
                Err(source) => last = Some(BenchError::Connect { address, source }),
            }
        }
        Err(last.unwrap_or_else(|| resolve(std::io::Error::other("it has no address"))))
    }

    fn first(&self, tls: Option<&Tls>, mut stream: Dialled) -> Result<Option<OwnedFd>, BenchError> {
        let host = self.host.clone();
        match tls {
            Some(tls) => tls.check(&mut stream).map_err(|what| BenchError::Tls { host, what })?,
            None if self.http2 => {
                let host = format!("{host}:{}", self.port);
                greet(&mut stream).map_err(|what| BenchError::Http2 { host, what })?;
            }
            None => return Ok(Some(stream.into())),
        }
        Ok(None)
    }
}

impl Read for Dialled {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Dialled {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl From<Dialled> for OwnedFd {
    fn from(dialled: Dialled) -> Self {
        match dialled {
            Dialled::Tcp(stream) => stream.into(),
            Dialled::Unix(stream) => stream.into(),
        }
    }
}

/// Says the first words of HTTP/2 to a server that was not asked whether it speaks it.
fn greet(stream: &mut (impl Read + Write)) -> Result<(), String> {
    let mut first = [0; 9];
    let done = stream.write_all(&http2::PREFACE).and_then(|()| stream.read_exact(&mut first));
    match done {
        Ok(()) if http2::is_greeting(&first) => Ok(()),
        Ok(()) if first.starts_with(b"HTTP/1") => Err("it answers in HTTP/1".to_owned()),
        Ok(()) => Err("it answers otherwise".to_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err("it does not answer".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What comes of a stream within the time; a read that waits is bounded by the socket's own timeout.
fn read(stream: &mut impl Read, buffer: &mut [u8], deadline: Instant) -> Result<usize, BenchError> {
    let late = || std::io::Error::new(ErrorKind::TimedOut, "the answer did not come in time");
    if Instant::now() >= deadline {
        return Err(late().into());
    }
    stream.read(buffer).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late().into(),
        _ => error.into(),
    })
}

/// Asks by HTTP/1.1 and reads the answer.
fn exchange(
    stream: &mut (impl Read + Write),
    request: &[u8],
    deadline: Instant,
) -> Result<Fetched, BenchError> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut parser = ResponseParser::new();
    let (mut head, mut body, mut buffer) = (Vec::new(), Vec::new(), [0; 8_192]);
    loop {
        let count = read(stream, &mut buffer, deadline)?;
        if parser.code().is_none() {
            head.extend_from_slice(&buffer[..count]);
        }
        let keep = |_: u16, piece: &[u8]| keep(&mut body, piece);
        let done = parser.feed(&buffer[..count], false, keep);
        let done = done.map_err(|error| BenchError::System(std::io::Error::other(error)))?;
        match parser.code() {
            Some(code) if done.is_some() || (count == 0 && parser.end()) => {
                return Ok(Fetched { code, location: response::location(&head), body });
            }
            _ if count == 0 => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            _ => {}
        }
    }
}

fn keep(body: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_FETCHED.saturating_sub(body.len()).min(piece.len());
    body.extend_from_slice(&piece[..room]);
}

/// Asks by HTTP/2 and reads the answer.
fn exchange_http2(
    stream: &mut (impl Read + Write),
    block: &[u8],
    body: &[u8],
    deadline: Instant,
) -> Result<Fetched, BenchError> {
    let other = |error: String| BenchError::System(std::io::Error::other(error));
    let mut session = http2::Session::new(1);
    session.keep_answers();
    let (mut ended, mut buffer, mut has_begun) = (Vec::new(), [0; 8_192], false);
    loop {
        if session.room() > 0 && !has_begun {
            has_begun = true;
            session.begin(InFlight::default(), (AnswerKind::Opaque, false), block, body);
        }
        while !session.pending().is_empty() {
            let count = session.pending().len();
            stream.write_all(session.pending())?;
            session.sent(count);
        }
        stream.flush()?;
        let count = read(stream, &mut buffer, deadline)?;
        if count == 0 {
            return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        let taken = session.receive(&buffer[..count], Time::ZERO, &mut ended);
        taken.map_err(|error| other(error.to_string()))?;
        if let Some(end) = ended.pop() {
            let code = end.code.ok_or_else(|| other("the answer has no status".to_owned()))?;
            // Fields but the status are not read: where a redirect leads to remains unknown.
            return Ok(Fetched { code, location: None, body: end.kept.unwrap_or_default() });
        }
    }
}
