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
    outgoing: Mutex<Outgoing>,
    pending: Notify,
}

/// What goes out, and how far it has come.
#[derive(Debug)]
struct Outgoing {
    /// Bytes that the socket has not taken.
    unsent: BytesMut,
    /// Bytes that it has.
    written: u64,
    /// The requests sent last, each with the place in the stream where what it was sent with ends.
    last: Vec<(u64, u64)>,
}

impl Link {
    pub(crate) fn new(socket: Writer) -> Self {
        let unsent = BytesMut::with_capacity(4096);
        let outgoing = Outgoing { unsent, written: 0, last: Vec::new() };
        Self { socket, outgoing: Mutex::new(outgoing), pending: Notify::new() }
    }

    /// Sends a frame without waiting. Whether it arrives, the reader of the connection will see.
    pub(crate) fn send(&self, frame: &Frame) {
        self.send_all(std::slice::from_ref(frame));
    }

    /// Sends frames without waiting and with nothing between them.
    pub(crate) fn send_all(&self, frames: &[Frame]) {
        let mut outgoing = self.outgoing.lock();
        let idle = outgoing.unsent.is_empty();
        for frame in frames {
            if let Err(error) = encode(frame, &mut outgoing.unsent) {
                tracing::error!(%error, "a frame was not sent");
            }
        }
        outgoing.note_requests(frames, idle);
        if idle {
            self.write(&mut outgoing);
        }
        if !outgoing.unsent.is_empty() {
            self.pending.notify_one();
        }
    }

    /// The requests that the worker, which is gone, has certainly not read to their end, and so not begun.
    /// `reset`: its socket was closed with bytes unread, so that the last byte written is one of them.
    pub(crate) fn unread(&self, reset: bool) -> Vec<u64> {
        let outgoing = self.outgoing.lock();
        let read_at_most = outgoing.written - u64::from(reset && outgoing.written > 0);
        let unread = outgoing.last.iter().filter(|(end, _)| *end > read_at_most);
        unread.map(|(_, request)| *request).collect()
    }

    /// Writes what the socket did not take at once, for as long as the link is used.
    pub(crate) async fn flush(&self) {
        loop {
            // Looked at first: an earlier flush may have been dropped on its way.
            while !self.outgoing.lock().unsent.is_empty() {
                if self.socket.writable().await.is_err() {
                    return;
                }
                self.write(&mut self.outgoing.lock());
            }
            self.pending.notified().await;
        }
    }

    fn write(&self, outgoing: &mut Outgoing) {
        while !outgoing.unsent.is_empty() {
            match self.socket.try_write(&outgoing.unsent) {
                Ok(written) => {
                    outgoing.unsent.advance(written);
                    outgoing.written += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // The worker takes no more. Its reader sees the end and reports what was lost.
                    tracing::debug!(%error, "cannot write to a worker");
                    outgoing.unsent.clear();
                }
            }
        }
    }
}

impl Outgoing {
    /// Notes the requests among frames that were just added; `idle` if everything before them was written.
    fn note_requests(&mut self, frames: &[Frame], idle: bool) {
        let end = self.written + self.unsent.len() as u64;
        let mut forget = idle;
        for frame in frames {
            if let Frame::Request(request) = frame {
                if std::mem::take(&mut forget) {
                    self.last.clear();
                }
                self.last.push((end, request.id));
            }
        }
    }
}
