use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::envelope::Envelope;
use super::format::Format;
use super::script::Script;
use crate::body::{Reset, ResetFlag};
use crate::engine::Running;
use crate::stats::{Counters, count};
use crate::timer::{Sleep, Timer};

/// An answer on its way: the events of each token when it is due.
///
/// When the client goes away this is dropped, and with it the place in the batch or in the line.
pub(crate) struct TokenStream {
    pub(super) phase: Phase,
    pub(super) script: Script,
    pub(super) format: Format,
    pub(super) envelope: Envelope,
    pub(super) timer: Timer,
    pub(super) reset: ResetFlag,
    pub(super) counters: Arc<Counters>,
}

pub(super) enum Phase {
    /// Waiting for the first token.
    Starting(Pin<Box<dyn Future<Output = Option<Running>>>>),
    /// Waiting for the next.
    Streaming(Running, Sleep),
    Over,
}

/// Tokens that are due together go out together, up to about so many bytes.
const PIECE: usize = 16 * 1024;

impl TokenStream {
    /// The events that are due; none when the answer is over.
    pub(crate) fn poll_events(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Reset>>> {
        let running = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Starting(mut start) => match start.as_mut().poll(context) {
                Poll::Pending => {
                    self.phase = Phase::Starting(start);
                    return Poll::Pending;
                }
                Poll::Ready(Some(running)) => {
                    self.envelope.cached_tokens = running.cached();
                    running
                }
                // It had a place in the line when it was let in: the server is ending.
                Poll::Ready(None) => return Poll::Ready(Some(Err(self.reset.set()))),
            },
            Phase::Streaming(running, mut sleep) => {
                if Pin::new(&mut sleep).poll(context).is_pending() {
                    self.phase = Phase::Streaming(running, sleep);
                    return Poll::Pending;
                }
                running
            }
            Phase::Over => return Poll::Ready(None),
        };
        Poll::Ready(Some(self.give(running)))
    }

    fn give(&mut self, mut running: Running) -> Result<Bytes, Reset> {
        let now = self.timer.now();
        let mut out = BytesMut::with_capacity(512);
        loop {
            if running.is_reset() && out.is_empty() {
                running.leave();
                count(&self.counters.resets);
                return Err(self.reset.set());
            }
            let text = self.script.advance();
            self.format.token(&self.envelope, running.given(), text, &mut out);
            self.counters.tokens.fetch_add(1, Ordering::Relaxed);
            if !running.advance() {
                self.format.end(&self.envelope, &mut out);
                running.leave();
                return Ok(out.freeze());
            }
            if running.due() > now || out.len() >= PIECE || running.is_reset() {
                let sleep = self.timer.sleep_until(running.due());
                self.phase = Phase::Streaming(running, sleep);
                return Ok(out.freeze());
            }
        }
    }
}
