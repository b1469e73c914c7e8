use std::io;

use bytes::{Buf, BytesMut};
use gatewright_protocol::{Frame, encode};
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

/// The way to a worker. Frames are written at once by whoever sends them; what the socket does not take is
/// written by the link's own task.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedWriteHalf,
    unsent: Mutex<BytesMut>,
    pending: Notify,
}

impl Link {
    pub(super) fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket, unsent: Mutex::new(BytesMut::with_capacity(4096)), pending: Notify::new() }
    }

    /// Sends a frame without waiting. Whether it arrives, the reader of the connection will see.
    pub(super) fn send(&self, frame: &Frame) {
        let mut unsent = self.unsent.lock();
        let idle = unsent.is_empty();
        if let Err(error) = encode(frame, &mut unsent) {
            tracing::error!(%error, "a frame was not sent");
            return;
        }
        if idle {
            self.write(&mut unsent);
        }
        if !unsent.is_empty() {
            self.pending.notify_one();
        }
    }

    /// Writes what the socket did not take at once, for as long as the link is used.
    pub(super) async fn flush(&self) {
        loop {
            // Looked at first: an earlier flush may have been dropped on its way.
            while !self.unsent.lock().is_empty() {
                if self.socket.writable().await.is_err() {
                    return;
                }
                self.write(&mut self.unsent.lock());
            }
            self.pending.notified().await;
        }
    }

    fn write(&self, unsent: &mut BytesMut) {
        while !unsent.is_empty() {
            match self.socket.try_write(unsent) {
                Ok(written) => unsent.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // The worker takes no more. Its reader sees the end and reports what was lost.
                    tracing::debug!(%error, "cannot write to a worker");
                    unsent.clear();
                }
            }
        }
    }
}
