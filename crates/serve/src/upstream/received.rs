use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{Phase, SendError, causes};

/// The body of an upstream's answer, as it comes.
#[derive(Debug)]
pub(crate) struct Received {
    incoming: Incoming,
    /// How long it may be silent between two pieces.
    idle: Option<Duration>,
    /// Runs while the next piece is waited for.
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Received {
    pub(super) fn new(incoming: Incoming, idle: Option<Duration>) -> Self {
        Self { incoming, idle, silence: None, waiting: false }
    }

    /// Whether it has been silent for too long.
    fn poll_silence(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !std::mem::replace(&mut self.waiting, true) {
            silence.as_mut().reset(Instant::now() + limit);
        }
        silence.as_mut().poll(context)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let received = self.get_mut();
        if let Poll::Ready(next) = Pin::new(&mut received.incoming).poll_frame(context) {
            received.waiting = false;
            return Poll::Ready(
                next.map(|next| next.map_err(|error| SendError::Broken(causes(&error)))),
            );
        }
        let Some(limit) = received.idle else { return Poll::Pending };
        ready!(received.poll_silence(limit, context));
        Poll::Ready(Some(Err(SendError::Late(Phase::Body, limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
