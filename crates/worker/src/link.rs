use std::io;

use bytes::BytesMut;
use gatewright_protocol::{Frame, encode};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::request::Gone;

/// Bytes that may wait to be written before pieces of answers wait too.
const UNSENT: usize = 1 << 20;

/// Frames on their way to the hub. Whoever has one puts it here; one task writes them, many at a time.
#[derive(Debug, Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    unsent: BytesMut,
    /// Nothing is taken any more; the writer ends when the rest is written.
    closed: bool,
}

impl Link {
    /// Takes a frame without waiting; dropped if the link is closed.
    pub(crate) fn send(&self, frame: &Frame) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let idle = state.unsent.is_empty();
        if let Err(error) = encode(frame, &mut state.unsent) {
            tracing::error!(%error, "a frame was not sent");
        }
        drop(state);
        if idle {
            self.filled.notify_one();
        }
    }

    /// Takes a frame when there is room for it.
    pub(crate) async fn send_with_patience(&self, frame: &Frame) -> Result<(), Gone> {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // From here on no word is missed.
            emptied.as_mut().enable();
            let (closed, full) = {
                let state = self.state.lock();
                (state.closed, state.unsent.len() >= UNSENT)
            };
            if closed {
                return Err(Gone);
            }
            if !full {
                self.send(frame);
                return Ok(());
            }
            emptied.await;
        }
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }

    /// Writes what is there, and what comes, until the link is closed and all is written.
    pub(crate) async fn write(&self, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        loop {
            let (mut bytes, closed) = {
                let mut state = self.state.lock();
                (state.unsent.split(), state.closed)
            };
            if bytes.is_empty() {
                if closed {
                    return socket.shutdown().await;
                }
                self.filled.notified().await;
                continue;
            }
            self.emptied.notify_waiters();
            socket.write_all_buf(&mut bytes).await?;
            socket.flush().await?;
        }
    }
}
