use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// The end of a connection that a worker is heard on.
#[derive(Debug)]
pub(crate) enum Reader {
    Unix(unix::OwnedReadHalf),
    Tcp(tcp::OwnedReadHalf),
}

/// The end of a connection that a worker is spoken to on.
#[derive(Debug)]
pub(crate) enum Writer {
    Unix(unix::OwnedWriteHalf),
    Tcp(tcp::OwnedWriteHalf),
}

pub(crate) fn split_unix(stream: UnixStream) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    (Reader::Unix(reader), Writer::Unix(writer))
}

pub(crate) fn split_tcp(stream: TcpStream) -> (Reader, Writer) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small frames may be held back");
    }
    let (reader, writer) = stream.into_split();
    (Reader::Tcp(reader), Writer::Tcp(writer))
}

impl Reader {
    /// Whether the other end is on this machine, with nothing in between.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Appends what has come; 0 at the end of the connection.
    pub(crate) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.read_buf(buffer).await,
            Self::Tcp(half) => half.read_buf(buffer).await,
        }
    }

    /// Appends what is here already; an error of kind `WouldBlock` if nothing is.
    pub(crate) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_read_buf(buffer),
            Self::Tcp(half) => half.try_read_buf(buffer),
        }
    }
}

impl Writer {
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.writable().await,
            Self::Tcp(half) => half.writable().await,
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_write(bytes),
            Self::Tcp(half) => half.try_write(bytes),
        }
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.write_all(bytes).await,
            Self::Tcp(half) => half.write_all(bytes).await,
        }
    }
}
