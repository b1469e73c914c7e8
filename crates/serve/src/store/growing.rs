use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::answer::BrokenOff;

/// A body that is still coming in, read by any number of clients at once, each from its beginning.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    state: Mutex<State>,
    /// A reader has gone on, or away.
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What came, without the `gone` first pieces.
    pieces: VecDeque<Bytes>,
    gone: usize,
    /// Bytes of `pieces`.
    kept: usize,
    end: Option<Result<(), BrokenOff>>,
    readers: Vec<Option<Place>>,
    free: Vec<usize>,
}

/// How far a reader is.
#[derive(Debug, Default)]
struct Place {
    next: usize,
    waker: Option<Waker>,
}

/// One client's reading of it.
#[derive(Debug)]
pub(crate) struct Reader {
    body: Arc<Growing>,
    place: usize,
}

impl Growing {
    /// Adds a piece; the bytes that are kept now.
    pub(crate) fn push(&self, piece: Bytes) -> usize {
        let mut state = self.state.lock();
        state.kept += piece.len();
        state.pieces.push_back(piece);
        let kept = state.kept;
        wake(state);
        kept
    }

    /// Bytes that are kept now.
    pub(crate) fn kept(&self) -> usize {
        self.state.lock().kept
    }

    /// Ends it, whole or broken off.
    pub(crate) fn end(&self, end: Result<(), BrokenOff>) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        wake(state);
    }

    /// All of it, as one piece in memory of its own: as it came, it is parts of buffers of a connection. Only for one
    /// that nothing was let go of.
    pub(crate) fn whole(&self) -> Bytes {
        let state = self.state.lock();
        let mut whole = BytesMut::with_capacity(state.kept);
        state.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// Lets go of what every reader has, so that at most `most` bytes are kept: waits for the slowest one. `false`
    /// if nobody reads any more. New readers are not let in from now on.
    pub(crate) async fn slide(&self, most: usize) -> bool {
        loop {
            let progress = self.progress.notified();
            {
                let mut state = self.state.lock();
                let slowest = state.readers.iter().flatten().map(|place| place.next).min();
                let Some(slowest) = slowest else { return false };
                // At least one piece goes, so that it shows.
                while state.gone < slowest {
                    let Some(piece) = state.pieces.pop_front() else { break };
                    state.kept -= piece.len();
                    state.gone += 1;
                }
                if state.kept <= most && state.gone > 0 {
                    return true;
                }
            }
            progress.await;
        }
    }
}

/// Wakes every reader, after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    let wakers: Vec<Waker> =
        state.readers.iter_mut().flatten().filter_map(|place| place.waker.take()).collect();
    drop(state);
    wakers.into_iter().for_each(Waker::wake);
}

impl Reader {
    /// Begins to read; `None` if its beginning is gone, or it is known to have broken off.
    pub(crate) fn new(body: &Arc<Growing>) -> Option<Self> {
        let mut state = body.state.lock();
        if state.gone > 0 || matches!(state.end, Some(Err(_))) {
            return None;
        }
        let place = match state.free.pop() {
            Some(place) => place,
            None => {
                state.readers.push(None);
                state.readers.len() - 1
            }
        };
        state.readers[place] = Some(Place::default());
        drop(state);
        Some(Self { body: Arc::clone(body), place })
    }

    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let mut state = self.body.state.lock();
        let State { pieces, gone, end, readers, .. } = &mut *state;
        let place = readers[self.place].as_mut().expect("it is this reader's until it is dropped");
        if let Some(piece) = pieces.get(place.next - *gone) {
            place.next += 1;
            let piece = piece.clone();
            drop(state);
            self.body.progress.notify_one();
            return Poll::Ready(Some(Ok(piece)));
        }
        match *end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(broken)) => Poll::Ready(Some(Err(broken))),
            None => {
                match &mut place.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => place.waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Whether all of it was read.
    pub(crate) fn is_at_end(&self) -> bool {
        let state = self.body.state.lock();
        let place = state.readers[self.place].as_ref();
        state.end == Some(Ok(()))
            && place.is_some_and(|place| place.next == state.gone + state.pieces.len())
    }

    /// Bytes that are to come, if all are here.
    pub(crate) fn left(&self) -> Option<u64> {
        let state = self.body.state.lock();
        let place = state.readers[self.place].as_ref()?;
        let rest = state.pieces.iter().skip(place.next - state.gone);
        (state.end == Some(Ok(()))).then(|| rest.map(|piece| piece.len() as u64).sum())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.body.state.lock();
        state.readers[self.place] = None;
        state.free.push(self.place);
        drop(state);
        self.body.progress.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(reader: &mut Reader) -> Option<Option<Result<Bytes, BrokenOff>>> {
        match reader.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_reader_gets_all_of_it() {
        let body = Arc::new(Growing::default());
        body.push(Bytes::from_static(b"a"));
        let (mut one, mut other) = (Reader::new(&body).unwrap(), Reader::new(&body).unwrap());
        assert_eq!(next(&mut one), Some(Some(Ok(Bytes::from_static(b"a")))));
        assert_eq!(next(&mut one), None);
        body.push(Bytes::from_static(b"b"));
        body.end(Ok(()));
        assert_eq!(other.left(), Some(2));
        for piece in [&b"a"[..], b"b"] {
            assert_eq!(next(&mut other), Some(Some(Ok(Bytes::copy_from_slice(piece)))));
        }
        assert_eq!(next(&mut other), Some(None));
        assert!(other.is_at_end() && !one.is_at_end());
        assert_eq!(body.whole(), "ab");
    }

    #[test]
    fn one_that_broke_off_never_ends_well() {
        let body = Arc::new(Growing::default());
        let mut reader = Reader::new(&body).unwrap();
        body.push(Bytes::from_static(b"a"));
        body.end(Err(BrokenOff::Upstream));
        body.end(Ok(()));
        assert_eq!(next(&mut reader), Some(Some(Ok(Bytes::from_static(b"a")))));
        assert_eq!(next(&mut reader), Some(Some(Err(BrokenOff::Upstream))));
        assert!(!reader.is_at_end());
        assert!(Reader::new(&body).is_none(), "whoever comes now asks anew");
    }

    #[tokio::test]
    async fn what_all_have_read_is_let_go() {
        let body = Arc::new(Growing::default());
        let mut reader = Reader::new(&body).unwrap();
        body.push(Bytes::from_static(b"abc"));
        assert!(next(&mut reader).is_some());
        assert!(body.slide(0).await);
        assert!(Reader::new(&body).is_none(), "its beginning is gone");
        body.push(Bytes::from_static(b"d"));
        assert_eq!(next(&mut reader), Some(Some(Ok(Bytes::from_static(b"d")))));
        drop(reader);
        assert!(!body.slide(0).await, "nobody reads");
    }
}
