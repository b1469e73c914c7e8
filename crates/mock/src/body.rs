use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::openai::TokenStream;

/// Body of an answer.
pub(crate) enum Body {
    /// In one piece; nothing once it was taken.
    Whole(Bytes),
    /// Token by token.
    Tokens(Box<TokenStream>),
}

/// The connection is to be reset.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection is reset, as a fault")]
pub(crate) struct Reset;

/// Tells a connection that it is to be reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResetFlag(Rc<Cell<bool>>);

impl ResetFlag {
    pub(crate) fn set(&self) -> Reset {
        self.0.set(true);
        Reset
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Reset;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reset>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Tokens(stream) => {
                let events = ready!(stream.poll_events(context));
                Poll::Ready(events.map(|events| events.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Tokens(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Tokens(_) => SizeHint::default(),
        }
    }
}
