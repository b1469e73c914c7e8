use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gatewright_control::{End, URGENCY_DEFAULT};
use gatewright_determinism::Time;
use gatewright_protocol::{Arguments, CallError};
use http::uri::Authority;
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// One request while the system knows of it: where the driver, a worker's reader and the task that answers the
/// client meet.
#[derive(Debug)]
pub(crate) struct Call {
    /// Number of the request in the run.
    pub(crate) id: u64,
    /// What a worker is called with; nothing for upstreams.
    pub(crate) arguments: Option<Arguments>,
    /// When its client gets no answer any more.
    pub(crate) deadline: Time,
    /// Which class of the queue it is in: 0 goes first, 7 last.
    pub(crate) urgency: u8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last attempt.
    dispatch: Option<Dispatch>,
    /// Whether that attempt is news.
    fresh: bool,
    answer: Option<Answer>,
    end: Option<(End, Time)>,
    waker: Option<Waker>,
}

/// An attempt, as the system decided it.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    /// When.
    pub(crate) at: Time,
    /// Number of the replica.
    pub(crate) replica: u64,
    /// The machine that it is on, if that is another one.
    pub(crate) node: Option<Arc<str>>,
    /// Which of its function's upstreams the replica stands for.
    pub(crate) endpoint: usize,
    /// Where it listens, if it is a program that serves.
    pub(crate) address: Option<Authority>,
    /// 1 for the first.
    pub(crate) attempt: u32,
    /// Requests in service there, this one included.
    pub(crate) in_flight: u32,
    /// Whether the request waited for a replica to start.
    pub(crate) cold: bool,
    /// Requests that follow in the same batch.
    pub(crate) batch_left: u32,
}

/// What a worker said.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The call returned this msgpack value.
    Value(Bytes),
    /// The call raised.
    Failed(CallError),
    /// The result comes in pieces.
    Pieces {
        /// Whether the first one is text.
        text: bool,
        /// The pieces; closed after the last one, whether all went well or not.
        pieces: mpsc::Receiver<Bytes>,
    },
}

/// What the task that answers the client has to know next.
#[derive(Debug)]
pub(crate) enum Step {
    /// An attempt begins.
    Dispatched,
    /// The answer has begun and comes in pieces.
    Pieces {
        /// Whether the first one is text.
        text: bool,
        /// The pieces.
        pieces: mpsc::Receiver<Bytes>,
    },
    /// It is over.
    Ended(End),
}

impl Call {
    pub(crate) fn new(id: u64, arguments: Option<Arguments>, deadline: Time) -> Self {
        Self { id, arguments, deadline, urgency: URGENCY_DEFAULT, state: Mutex::default() }
    }

    /// The same in another class of the queue.
    pub(crate) fn with_urgency(self, urgency: u8) -> Self {
        Self { urgency, ..self }
    }

    /// Notes an attempt. Two threads may carry out the effects of two events in any order: the later attempt
    /// counts.
    pub(crate) fn dispatched(&self, dispatch: Dispatch) {
        let mut state = self.state.lock();
        if state.dispatch.as_ref().is_some_and(|last| last.attempt >= dispatch.attempt) {
            return;
        }
        state.dispatch = Some(dispatch);
        state.fresh = true;
        // What an attempt before it had begun to say has no end.
        state.answer = None;
        // Whoever waits for a worker's answer has nothing to do yet.
        if self.arguments.is_none() {
            wake(state);
        }
    }

    /// Notes what the worker said; the driver's word that the request ended follows.
    pub(crate) fn answer(&self, answer: Answer) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        let begins = matches!(answer, Answer::Pieces { .. });
        state.answer = Some(answer);
        if begins {
            wake(state);
        }
    }

    pub(crate) fn ended(&self, end: End, at: Time) {
        let mut state = self.state.lock();
        state.end = Some((end, at));
        wake(state);
    }

    /// How it ended and when, if it has.
    pub(crate) fn end(&self) -> Option<(End, Time)> {
        self.state.lock().end
    }

    /// The last attempt, if there was one.
    pub(crate) fn last_dispatch(&self) -> Option<Dispatch> {
        self.state.lock().dispatch.clone()
    }

    /// What the worker said, once.
    pub(crate) fn take_answer(&self) -> Option<Answer> {
        self.state.lock().answer.take()
    }

    /// The next step. For one task at a time. Pieces come before the end, which may be there already.
    pub(crate) fn poll_step(&self, context: &mut Context<'_>) -> Poll<Step> {
        let mut state = self.state.lock();
        if let Some(Answer::Pieces { text, pieces }) =
            state.answer.take_if(|answer| matches!(answer, Answer::Pieces { .. }))
        {
            state.fresh = false;
            return Poll::Ready(Step::Pieces { text, pieces });
        }
        if let Some((end, _)) = state.end {
            return Poll::Ready(Step::Ended(end));
        }
        if std::mem::take(&mut state.fresh) {
            return Poll::Ready(Step::Dispatched);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    pub(crate) async fn step(&self) -> Step {
        std::future::poll_fn(|context| self.poll_step(context)).await
    }
}

/// Wakes whoever waits, after the lock is released.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatch(attempt: u32) -> Dispatch {
        Dispatch {
            at: Time::ZERO,
            replica: 0,
            node: None,
            endpoint: 0,
            address: None,
            attempt,
            in_flight: 1,
            cold: false,
            batch_left: 0,
        }
    }

    fn next(call: &Call) -> Option<Step> {
        match call.poll_step(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(step) => Some(step),
            Poll::Pending => None,
        }
    }

    #[test]
    fn pieces_come_before_the_end_and_the_end_stays() {
        let call = Call::new(0, None, Time::MAX);
        assert!(next(&call).is_none());
        call.dispatched(dispatch(1));
        let (_sender, pieces) = mpsc::channel(1);
        call.answer(Answer::Pieces { text: true, pieces });
        call.ended(End::Ok, Time::ZERO);
        assert!(matches!(next(&call), Some(Step::Pieces { text: true, .. })));
        for _ in 0..2 {
            assert!(matches!(next(&call), Some(Step::Ended(End::Ok))));
        }
    }

    #[test]
    fn the_later_attempt_counts_whenever_it_is_told() {
        let call = Call::new(0, None, Time::MAX);
        call.answer(Answer::Value(Bytes::from_static(b"\x01")));
        call.dispatched(dispatch(2));
        call.dispatched(dispatch(1));
        assert_eq!(call.last_dispatch().map(|last| last.attempt), Some(2));
        assert!(call.take_answer().is_none(), "what an attempt before it said is forgotten");
        assert!(matches!(next(&call), Some(Step::Dispatched)));
        assert!(next(&call).is_none(), "told once");
    }

    #[test]
    fn what_comes_after_the_end_is_dropped() {
        let call = Call::new(0, None, Time::MAX);
        call.ended(End::TimedOut, Time::ZERO);
        call.answer(Answer::Value(Bytes::from_static(b"\x01")));
        assert!(call.take_answer().is_none());
    }
}
