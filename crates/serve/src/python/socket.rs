//! Sockets that only those watch who wait for them: a thread that waits for nothing is not woken by what comes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::BytesMut;
use rustix::net::SendFlags;
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};

/// With less room than this a buffer is given more.
const LITTLE: usize = 1024;
const MORE: usize = 8 * 1024;
/// Bytes that are read at a time, at most.
const AT_ONCE: usize = 64 * 1024;

/// The end of a connection that a worker is heard on.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: Arc<OwnedFd>,
    local: bool,
    /// Tells when there is something to read, once somebody has waited for it.
    ///
    /// It is none of a pipe, but what tokio calls so is a descriptor that is watched in one direction only. A stream's
    /// would also wake this thread each time the other end has read something.
    watch: Option<pipe::Receiver>,
}

/// The end of a connection that a worker is spoken to on.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: Arc<OwnedFd>,
}

/// The two ends of a connection within this machine.
///
/// # Errors
/// The runtime does not let go of the socket.
pub(crate) fn split_unix(stream: UnixStream) -> io::Result<(Reader, Writer)> {
    Ok(split(stream.into_std()?.into(), true))
}

/// The two ends of a connection over a network.
///
/// # Errors
/// As [`split_unix`].
pub(crate) fn split_tcp(stream: TcpStream) -> io::Result<(Reader, Writer)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small frames may be held back");
    }
    Ok(split(stream.into_std()?.into(), false))
}

fn split(socket: OwnedFd, local: bool) -> (Reader, Writer) {
    let socket = Arc::new(socket);
    (Reader { socket: Arc::clone(&socket), local, watch: None }, Writer { socket })
}

impl Reader {
    /// Whether the other end is on this machine, with nothing in between.
    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    /// The socket, for somebody else to wait for.
    pub(super) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Waits for nothing any more, until the next [`Reader::read`].
    pub(crate) fn look_away(&mut self) {
        self.watch = None;
    }

    /// Appends what has come; 0 at the end of the connection.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(pipe::Receiver::from_owned_fd_unchecked(self.socket.try_clone()?)?),
        };
        loop {
            watch.readable().await?;
            match watch.try_io(|| receive(&self.socket, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Appends what is here already; an error of kind `WouldBlock` if nothing is.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.watch {
            Some(watch) => watch.try_io(|| receive(&self.socket, buffer)),
            None => receive(&self.socket, buffer),
        }
    }
}

impl Writer {
    /// Waits until the socket takes more. It rarely does not, and is watched only then.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        pipe::Sender::from_owned_fd_unchecked(self.socket.try_clone()?)?.writable().await
    }

    /// Writes what the socket takes at once; an error of kind `WouldBlock` if it takes nothing.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // Not a signal but an error if nobody reads any more.
            match rustix::net::send(&*self.socket, bytes, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Appends what the socket has.
fn receive(socket: &OwnedFd, buffer: &mut BytesMut) -> io::Result<usize> {
    let before = buffer.len();
    if buffer.capacity() - before < LITTLE {
        buffer.reserve(MORE);
    }
    buffer.resize(buffer.capacity().min(before + AT_ONCE), 0);
    let read = loop {
        match rustix::io::read(socket, &mut buffer[before..]) {
            Err(rustix::io::Errno::INTR) => {}
            read => break read,
        }
    };
    buffer.truncate(before + *read.as_ref().unwrap_or(&0));
    Ok(read?)
}
