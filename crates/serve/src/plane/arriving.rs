use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crate::upstream::Received;
use bytes::Bytes;
use gatewright_control::Outcome;
use http::StatusCode;
use http_body::Body as _;

use crate::answer::{Attempt, outcome_of};

/// Bytes of a body that are taken together with its head, if they are here, and how often they are looked for.
const GATHERED: usize = 64 * 1024;
const LOOKS: usize = 3;

/// The body of a response that may be stored.
pub(super) enum Arriving {
    /// All of it is here.
    Whole(Bytes),
    Coming(Received, Attempt),
}

/// What of a body is not here yet.
pub(super) enum Rest {
    None,
    Coming(Received, Attempt),
    /// It will not come.
    Broken,
}

impl Arriving {
    /// Takes what is here already, without waiting for more: of a short body all, as a rule.
    pub(super) async fn gather(self, status: StatusCode) -> (Vec<Bytes>, Rest) {
        let (mut incoming, mut attempt) = match self {
            Self::Whole(bytes) => return (vec![bytes], Rest::None),
            Self::Coming(incoming, attempt) => (incoming, attempt),
        };
        let mut pieces = Vec::new();
        let (mut bytes, mut looks) = (0, 0);
        while bytes < GATHERED && looks < LOOKS {
            let ready = poll_fn(|context| {
                Poll::Ready(match Pin::new(&mut incoming).poll_frame(context) {
                    Poll::Ready(frame) => Some(frame),
                    Poll::Pending => None,
                })
            });
            match ready.await {
                Some(None) => {
                    attempt.finish(outcome_of(status));
                    return (pieces, Rest::None);
                }
                Some(Some(Err(_))) => {
                    attempt.finish(Outcome::Error);
                    return (pieces, Rest::Broken);
                }
                Some(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        bytes += data.len();
                        pieces.push(data);
                    }
                }
                None => {
                    // The connection hands over the next piece once it was asked for.
                    looks += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        (pieces, Rest::Coming(incoming, attempt))
    }
}
