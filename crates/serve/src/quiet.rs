//! How long a connection may be silent: while it sends a head, and between requests.

use std::cell::RefCell;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Bytes that are copied together sooner than written from where they are: the system takes one piece in less time than
/// two, and the copy costs less than that.
const FLAT: usize = 4 * 1024;

thread_local! {
    static FLATTENED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(FLAT));
}

/// What one HTTP/1 connection is doing. hyper cannot tell a client that sends a head slowly from one that has
/// nothing to ask, so that is seen here, from the bytes that come while no request is under way.
#[derive(Debug)]
pub(crate) struct Talk {
    start: Instant,
    /// Halves of exchanges under way: the request's body counts, and the answer.
    open: AtomicU64,
    /// When the last exchange ended, in nanoseconds since the start.
    idle: AtomicU64,
    /// When the first byte of a head came, and 1 more; 0 if there is none.
    head: AtomicU64,
    /// Whether bytes between two exchanges are a head: not where they may be a ping.
    hears_heads: bool,
}

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// While it sends a head.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
}

/// One half of an exchange.
#[derive(Debug)]
pub(crate) struct Half(Arc<Talk>);

/// A stream whose bytes are noticed. Its slot among the connections is free when it is gone.
#[derive(Debug)]
pub(crate) struct Heard<S> {
    stream: S,
    talk: Arc<Talk>,
    _slot: OwnedSemaphorePermit,
}

/// A body that is one half of an exchange.
#[derive(Debug)]
pub(crate) struct Held<B> {
    body: B,
    _half: Half,
}

impl Talk {
    /// A connection on which a head is coming, if it is one on which heads can be told from other bytes.
    pub(crate) fn new(hears_heads: bool) -> Arc<Self> {
        let start = Instant::now();
        let (open, idle, head) = (0.into(), 0.into(), u64::from(hears_heads).into());
        Arc::new(Self { start, open, idle, head, hears_heads })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn half(self: &Arc<Self>) -> Half {
        self.open.fetch_add(1, Ordering::Relaxed);
        Half(Arc::clone(self))
    }

    /// A head has come: an exchange begins.
    pub(crate) fn begin<B>(self: &Arc<Self>, request: Request<B>) -> (Request<Held<B>>, Half) {
        let answer = self.half();
        self.head.store(0, Ordering::Relaxed);
        (request.map(|body| Held { body, _half: self.half() }), answer)
    }

    fn heard(&self) {
        if self.hears_heads
            && self.open.load(Ordering::Relaxed) == 0
            && self.head.load(Ordering::Relaxed) == 0
        {
            self.head.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// Returns when it has been silent for too long.
    pub(crate) async fn is_over(&self, limits: Limits) {
        while let Some(look) = self.next_look(self.start.elapsed(), limits) {
            tokio::time::sleep_until(self.start + look).await;
        }
    }

    /// When to look again, as time since the start; `None` if it is over.
    fn next_look(&self, now: Duration, limits: Limits) -> Option<Duration> {
        // A head that begins meanwhile is seen in time for its own limit.
        let look = now.saturating_add(limits.head);
        let head = self.head.load(Ordering::Relaxed);
        let due = if self.open.load(Ordering::Relaxed) > 0 {
            look
        } else if head > 0 {
            Duration::from_nanos(head - 1).saturating_add(limits.head)
        } else {
            Duration::from_nanos(self.idle.load(Ordering::Relaxed)).saturating_add(limits.idle)
        };
        (due > now).then(|| due.min(look))
    }
}

impl Half {
    /// Goes on with the body of the answer.
    pub(crate) fn with<B>(self, response: Response<B>) -> Response<Held<B>> {
        response.map(|body| Held { body, _half: self })
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let talk = &self.0;
        // The clock is read for the half alone that ends last.
        let last = talk.open.load(Ordering::Relaxed) == 1;
        if last {
            talk.idle.store(talk.now(), Ordering::Relaxed);
        }
        // Two that end at once each took the other for the last.
        if talk.open.fetch_sub(1, Ordering::Relaxed) == 1 && !last {
            talk.idle.store(talk.now(), Ordering::Relaxed);
        }
    }
}

impl<S> Heard<S> {
    pub(crate) fn new(stream: S, talk: &Arc<Talk>, slot: OwnedSemaphorePermit) -> Self {
        Self { stream, talk: Arc::clone(talk), _slot: slot }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.talk.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length > FLAT {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        FLATTENED.with_borrow_mut(|flat| {
            flat.clear();
            slices.iter().for_each(|slice| flat.extend_from_slice(slice));
            Pin::new(&mut self.stream).poll_write(context, flat)
        })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_less_time_than_a_pause() {
        let second = Duration::from_secs;
        // Far longer than the test takes: what it notes itself happens at second 0.
        let limits = Limits { head: second(1_000), idle: second(10_000) };
        let is_over = |talk: &Talk, at: u64| talk.next_look(second(at), limits).is_none();
        let talk = Talk::new(true);
        assert!(!is_over(&talk, 999) && is_over(&talk, 1_001), "the first head");
        let (request, answer) = talk.begin(Request::new(()));
        assert!(!is_over(&talk, 100_000), "an exchange takes as long as it takes");
        drop(request);
        let streaming = answer.with(Response::new(()));
        talk.heard();
        assert!(!is_over(&talk, 100_000), "so does its answer, whatever comes meanwhile");
        drop(streaming);
        assert!(!is_over(&talk, 9_999) && is_over(&talk, 10_001), "nobody asks");
        talk.heard();
        assert!(!is_over(&talk, 999) && is_over(&talk, 1_001), "the next head has begun");
        let look = talk.next_look(second(10), limits);
        assert!(look.is_some_and(|look| look <= second(1_010)), "a head is seen in time");
        drop(talk.begin(Request::new(())));
        assert!(!is_over(&talk, 1_001) && is_over(&talk, 10_001), "it was whole");

        let talk = Talk::new(false);
        talk.heard();
        assert!(!is_over(&talk, 9_999) && is_over(&talk, 10_001), "a ping is no head");
    }
}
