use std::io;

use bytes::{Buf, BytesMut};
use gatewright_protocol::{Frame, encode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::socket::Writer;

/// Bytes that may wait for a worker before its pings are left unanswered.
const BACKLOG: usize = 1024 * 1024;

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
    /// Set while nothing is written, because more is about to come.
    corked: bool,
    /// The requests sent last, each with the place in the stream where what it was sent with ends.
    last: Vec<(u64, u64)>,
}

impl Link {
    pub(crate) fn new(socket: Writer) -> Self {
        let unsent = BytesMut::with_capacity(4096);
        let outgoing = Outgoing { unsent, written: 0, corked: false, last: Vec::new() };
        Self { socket, outgoing: Mutex::new(outgoing), pending: Notify::new() }
    }

    /// Sends a frame without waiting. Whether it arrives, the reader of the connection will see.
    pub(crate) fn send(&self, frame: &Frame) {
        self.send_all(std::slice::from_ref(frame));
    }

    /// Answers a ping, unless the worker has long read nothing: one that only sends must not fill the memory.
    pub(crate) fn pong(&self, nonce: u64) {
        if self.outgoing.lock().unsent.len() < BACKLOG {
            self.send(&Frame::Pong { nonce });
        }
    }

    /// Sends frames without waiting and with nothing between them.
    pub(crate) fn send_all(&self, frames: &[Frame]) {
        self.append(frames, |out| {
            for frame in frames {
                if let Err(error) = encode(frame, out) {
                    tracing::error!(%error, "a frame was not sent");
                }
            }
        });
    }

    /// Sends without waiting what is appended, which are no frames for a worker.
    pub(crate) fn send_with(&self, write: impl FnOnce(&mut BytesMut)) {
        self.append(&[], write);
    }

    fn append(&self, frames: &[Frame], write: impl FnOnce(&mut BytesMut)) {
        let mut outgoing = self.outgoing.lock();
        let idle = outgoing.unsent.is_empty();
        write(&mut outgoing.unsent);
        outgoing.note_requests(frames, idle);
        if outgoing.corked {
            return;
        }
        if idle {
            self.write(&mut outgoing);
        }
        if !outgoing.unsent.is_empty() {
            self.pending.notify_one();
        }
    }

    /// Writes nothing until what this returns is dropped: then all that was sent meanwhile goes out at once.
    pub(crate) fn cork(&self) -> Corked<'_> {
        self.outgoing.lock().corked = true;
        Corked(self)
    }

    fn uncork(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.corked = false;
        self.write(&mut outgoing);
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

    /// How many bytes the socket has taken, if there are more that it has not.
    pub(crate) fn taken_of_more(&self) -> Option<u64> {
        let outgoing = self.outgoing.lock();
        (!outgoing.unsent.is_empty()).then_some(outgoing.written)
    }

    /// Writes what the socket did not take at once, for as long as the link is used.
    pub(crate) async fn flush(&self) {
        loop {
            // Looked at first: an earlier flush may have been dropped on its way.
            while !self.outgoing.lock().unsent.is_empty() {
                if self.socket.writable().await.is_err() {
                    return;
                }
                let mut outgoing = self.outgoing.lock();
                self.write(&mut outgoing);
                if outgoing.unsent.is_empty() {
                    // It may have grown to the largest request there is, and is not needed every day.
                    outgoing.unsent = BytesMut::with_capacity(4096);
                }
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

/// A link that gathers what is sent.
#[derive(Debug)]
pub(crate) struct Corked<'a>(&'a Link);

impl Drop for Corked<'_> {
    fn drop(&mut self) {
        self.0.uncork();
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
                // With bytes written after them, those can never again be said to be unread.
                let written = self.written;
                self.last.retain(|(before, _)| *before >= written);
                self.last.push((end, request.id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gatewright_protocol::Request;
    use tokio::net::UnixStream;

    use super::*;
    use crate::python::socket::{Reader, split_unix};

    fn pair() -> (Link, Reader, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = split_unix(ours).unwrap();
        (Link::new(writer), reader, theirs)
    }

    fn request(id: u64) -> Frame {
        let (args, kwargs) = (Bytes::from_static(b"\x90"), Bytes::from_static(b"\x80"));
        Frame::Request(Request { id, deadline_ms: None, attempt: 1, args, kwargs })
    }

    /// Whether the end of the connection says that bytes were left unread.
    async fn reset(reader: &mut Reader) -> bool {
        reader.read(&mut BytesMut::with_capacity(64)).await.is_err()
    }

    #[tokio::test]
    async fn what_the_other_end_left_unread_is_known() {
        let (link, mut reader, theirs) = pair();
        link.send(&request(1));
        link.send_all(&[request(2), request(3)]);
        drop(theirs);
        assert!(reset(&mut reader).await);
        assert_eq!(link.unread(true), [2, 3], "the last bytes, and what they belong to");
    }

    #[tokio::test]
    async fn nothing_is_said_of_a_request_that_may_have_been_read() {
        let (link, mut reader, theirs) = pair();
        link.send(&request(1));
        link.send(&Frame::Ping { nonce: 1 });
        drop(theirs);
        assert!(reset(&mut reader).await);
        assert!(link.unread(true).is_empty());

        let (link, mut reader, theirs) = pair();
        link.send(&request(1));
        theirs.readable().await.unwrap();
        let read = theirs.try_read(&mut [0; 64]).unwrap();
        assert!(read > 4);
        drop(theirs);
        assert!(!reset(&mut reader).await);
        assert!(link.unread(false).is_empty());
    }

    #[tokio::test]
    async fn what_is_sent_under_a_cork_goes_out_together() {
        let (link, _reader, theirs) = pair();
        let corked = link.cork();
        link.send(&Frame::Ping { nonce: 1 });
        link.send(&Frame::Ping { nonce: 2 });
        assert!(theirs.try_read(&mut [0; 64]).is_err(), "nothing yet");
        drop(corked);
        theirs.readable().await.unwrap();
        assert_eq!(theirs.try_read(&mut [0; 64]).unwrap(), 14, "both, in one piece");
    }

    #[tokio::test]
    async fn what_could_not_be_written_was_not_read() {
        let (link, _reader, theirs) = pair();
        drop(theirs);
        link.send(&request(1));
        assert_eq!(link.unread(false), [1]);
    }

    #[tokio::test]
    async fn a_worker_that_only_sends_does_not_fill_the_memory() {
        let (link, _reader, _theirs) = pair();
        for nonce in 0..1_000_000 {
            link.pong(nonce);
        }
        assert!(link.outgoing.lock().unsent.len() <= BACKLOG + 64);
    }
}
