//! What an HTTP/2 connection does at once is written at once: the answers to all requests that came together leave in
//! one write, and in one TLS record where they fit.
//!
//! h2 writes each frame of a body by itself, and flushes behind it. Here both only gather; the task of the connection
//! writes when the connection has nothing more to say for now.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered at most: about as many as a TLS record has. A write that is as long goes out by itself.
const MOST: usize = 16 * 1024;

/// A stream whose writes are gathered.
#[derive(Debug)]
pub(crate) struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    waiting: BytesMut,
    /// Why nothing can be written any more, when that has turned out.
    broken: Option<io::ErrorKind>,
}

/// A connection over a gathered stream: what it wrote goes out whenever it pauses.
#[derive(Debug)]
pub(crate) struct Gatherer<C, S> {
    connection: Pin<Box<C>>,
    out: Gathered<S>,
}

/// Runs what a connection begins: in place as far as it comes without waiting, which is all the way for a request that
/// is answered from memory, and from there on as a task of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InPlace;

impl<S> Gathered<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (waiting, broken) = (BytesMut::new(), None);
        Self(Arc::new(Mutex::new(Gathering { stream, waiting, broken })))
    }

    /// The connection that `serve` makes of this stream.
    pub(crate) fn serve<C>(self, serve: impl FnOnce(Self) -> C) -> Gatherer<C, S> {
        let out = Self(Arc::clone(&self.0));
        Gatherer { connection: Box::pin(serve(self)), out }
    }
}

impl<C, S> Gatherer<C, S> {
    /// The connection itself.
    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    fn intact(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Writes what was gathered.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        // All of it again, for what comes next.
        self.waiting.clear();
        self.stream().poll_flush(context)
    }
}

impl<C, S> Future for Gatherer<C, S>
where
    C: Future,
    S: AsyncWrite + Unpin,
{
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        loop {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            let mut out = self.out.0.lock();
            match out.poll_out(context) {
                // It learns of it when it reads or writes, and ends.
                Poll::Ready(Err(error)) if out.broken.is_none() => {
                    out.broken = Some(error.kind());
                    out.waiting.clear();
                }
                _ => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut it = self.0.lock();
        it.intact()?;
        Pin::new(&mut it.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut it = self.0.lock();
        it.intact()?;
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if it.waiting.len() + length > MOST {
            ready!(it.poll_out(context))?;
        }
        if length >= MOST {
            return it.stream().poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|slice| it.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().intact())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut it = self.0.lock();
        it.intact()?;
        ready!(it.poll_out(context))?;
        it.stream().poll_shutdown(context)
    }
}

impl<F> hyper::rt::Executor<F> for InPlace
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // Whatever it waits for is asked for again by the task that it then becomes.
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::oneshot;

    use super::*;

    /// Writes these pieces with a flush behind each, then waits for `end`.
    async fn write(
        mut stream: Gathered<DuplexStream>,
        pieces: &[usize],
        end: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        for length in pieces {
            stream.write_all(&vec![b'x'; *length]).await?;
            stream.flush().await?;
        }
        let mut one = [0];
        tokio::select! {
            _ = end => stream.shutdown().await,
            read = stream.read(&mut one) => read.map(drop),
        }
    }

    #[tokio::test]
    async fn what_is_written_in_a_row_leaves_together() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (end, ended) = oneshot::channel();
        let mut connection =
            Gathered::new(near).serve(|stream| write(stream, &[10, 20, 30, 20_000, 7], ended));
        let mut came = vec![0; 1 << 20];
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        let all = far.read(&mut came).await.unwrap();
        assert_eq!(all, 10 + 20 + 30 + 20_000 + 7, "no flush of its own is needed");
        end.send(()).unwrap();
        connection.await.unwrap();
        assert_eq!(far.read(&mut came).await.unwrap(), 0, "and then its end");
    }

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(100);
        let (end, ended) = oneshot::channel();
        let pieces = vec![1_000; 200];
        let connection =
            Gathered::new(near).serve(|stream| async move { write(stream, &pieces, ended).await });
        let written = tokio::spawn(connection);
        let mut came = vec![0; 200 * 1_000];
        far.read_exact(&mut came).await.unwrap();
        end.send(()).unwrap();
        written.await.unwrap().unwrap();
        assert_eq!(far.read(&mut came).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_write_that_fails_ends_the_connection() {
        let (near, far) = tokio::io::duplex(100);
        drop(far);
        let connection = Gathered::new(near).serve(|mut stream| async move {
            while stream.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
            stream.flush().await
        });
        assert_eq!(connection.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_waits_goes_on_in_a_task() {
        let (go, gone) = oneshot::channel();
        let (say, said) = oneshot::channel();
        InPlace.execute(async move {
            let word: &str = gone.await.unwrap();
            say.send(word).unwrap();
        });
        go.send("on").unwrap();
        assert_eq!(said.await.unwrap(), "on");

        let (say, mut said) = oneshot::channel();
        InPlace.execute(async move { say.send("at once").unwrap() });
        assert_eq!(said.try_recv().unwrap(), "at once");
    }
}
