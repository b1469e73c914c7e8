//! TLS between a remote worker and its socket in the hub.

use std::io;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket::{Reader, Writer, split_unix};

/// First byte of a TLS connection: the content type of a handshake record (RFC 8446, section 5.1).
pub(super) const HANDSHAKE: u8 = 0x16;

/// Why a connection speaks no TLS.
pub(super) enum NoTls {
    /// It began with something else, which is still unread.
    Plain(TcpStream),
    /// The handshake failed.
    Failed(io::Error),
}

/// Shakes hands and returns where the plain frames go. They pass through a pair of sockets in this process, so that
/// senders need not wait for a cipher: what is sent is taken at once or waits as it does without TLS.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Result<(Reader, Writer), NoTls> {
    let mut first = [0];
    stream.peek(&mut first).await.map_err(NoTls::Failed)?;
    if first[0] != HANDSHAKE {
        return Err(NoTls::Plain(stream));
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small frames may be held back");
    }
    let stream = acceptor.accept(stream).await.map_err(NoTls::Failed)?;
    let (near, far) = UnixStream::pair().map_err(NoTls::Failed)?;
    tokio::spawn(carry(stream, far));
    split_unix(near).map_err(NoTls::Failed)
}

/// Carries bytes in both directions until either side ends; what the hub said last still goes out.
async fn carry(worker: TlsStream<TcpStream>, hub: UnixStream) {
    let (mut from_worker, mut to_worker) = tokio::io::split(worker);
    let (mut from_hub, mut to_hub) = hub.into_split();
    let outward = async {
        copy(&mut from_hub, &mut to_worker).await?;
        to_worker.shutdown().await
    };
    let ended = tokio::select! {
        ended = copy(&mut from_worker, &mut to_hub) => ended.map(|_| ()),
        ended = outward => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a worker's connection broke");
    }
}
