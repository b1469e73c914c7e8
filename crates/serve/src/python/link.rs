use std::io;

use bytes::{Buf, BytesMut};
use gatewright_protocol::{Frame, encode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::socket::Writer;

/// The way to a worker. Frames are written at once by whoever sends them; what the socket does not take is
/// written by the link's own task.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Writer,
    unsent: Mutex<BytesMut>,
    pending: Notify,
}

impl Link {
    pub(crate) fn new(socket: Writer) -> Self {
        Self { socket, unsent: Mutex::new(BytesMut::with_capacity(4096)), pending: Notify::new() }
    }

    /// Sends a frame without waiting. Whether it arrives, the reader of the connection will see.
    pub(crate) fn send(&self, frame: &Frame) {
        self.send_all(std::slice::from_ref(frame));
    }

    /// Sends frames without waiting and with nothing between them.
    pub(crate) fn send_all(&self, frames: &[Frame]) {
        self.send_with(|out| {
            for frame in frames {
                if let Err(error) = encode(frame, out) {
                    tracing::error!(%error, "a frame was not sent");
                }
            }
        });
    }

    /// Sends without waiting what is appended.
    pub(crate) fn send_with(&self, append: impl FnOnce(&mut BytesMut)) {
        let mut unsent = self.unsent.lock();
        let idle = unsent.is_empty();
        append(&mut unsent);
        if idle {
            self.write(&mut unsent);
        }
        if !unsent.is_empty() {
            self.pending.notify_one();
        }
    }

    /// Writes what the socket did not take at once, for as long as the link is used.
    pub(crate) async fn flush(&self) {
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
