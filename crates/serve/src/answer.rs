use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{End, Outcome};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::call::Step;
use crate::driver::Ticket;
use crate::headers::strip_trailers;
use crate::plane::PieceCheck;
use crate::records::Trail;
use crate::squeeze::Squeezed;
use crate::store::Reader;
use crate::upstream::{Received, SendError};

/// Body of a response.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// What an upstream sends, as it comes.
    Upstream(Box<Relayed>),
    /// What an upstream sends to all who asked for the same, as it comes.
    Shared(Box<Shared>),
    /// What a worker sends, as it comes.
    Pieces(Box<Pieces>),
    /// Another one, compressed.
    Squeezed(Box<Squeezed>),
}

/// A body that may be sent to many clients.
#[derive(Debug)]
pub(crate) struct Shared {
    reader: Reader,
    trail: Option<Trail>,
    bytes: u64,
}

/// Why a body broke off: the client sees its connection (or stream) end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BrokenOff {
    #[error("the upstream broke off its answer")]
    Upstream,
    #[error("the upstream fell silent in the middle of its answer")]
    Silent,
    #[error("the worker broke off its answer")]
    Worker,
    #[error("the request's time was up in the middle of its answer")]
    TimedOut,
    #[error("a piece of the answer does not fit the function's schema")]
    Unfit,
}

/// The body of an upstream's answer and the request that it belongs to.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// Bytes that were read before it was known that this would be passed on.
    prefix: Option<Bytes>,
    incoming: Received,
    attempt: Attempt,
    /// What it means when all of it has come.
    outcome: Outcome,
    /// Whether what comes behind it is passed on.
    trailers: bool,
    trail: Option<Trail>,
    bytes: u64,
}

/// The attempts of a request at an upstream: sees to it that the system learns how each one went, also when the
/// task that makes them is dropped.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) ticket: Ticket,
    settled: bool,
}

/// The pieces of a worker's answer.
#[derive(Debug)]
pub(crate) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    ticket: Ticket,
    /// Against whose schema each piece is held, if it has one.
    check: Option<PieceCheck>,
    /// A piece that was looked at before there was a body.
    first: Option<Bytes>,
    trail: Option<Trail>,
    bytes: u64,
}

impl Attempt {
    /// Whatever attempts at an upstream this ticket's request will have.
    pub(crate) fn new(ticket: Ticket) -> Self {
        Self { ticket, settled: false }
    }

    /// Reports how it went.
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        if !self.settled {
            // After a failed start, another attempt may begin.
            self.settled = !matches!(outcome, Outcome::NotStarted | Outcome::Again { .. });
            self.ticket.finished(outcome);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // One whose program was lost in the middle of its answer may be waiting for another attempt, or have it.
        if !self.settled || self.ticket.call.end().is_none() {
            // Nobody waits any more: said first, so that it does not count as answered. Then its slot is free.
            self.ticket.cancel();
            self.ticket.finished(Outcome::Error);
        }
    }
}

impl Relayed {
    /// The body of an answer of this status.
    pub(crate) fn new(
        prefix: Option<Bytes>,
        incoming: Received,
        attempt: Attempt,
        status: StatusCode,
    ) -> Self {
        let outcome = outcome_of(status);
        Self { prefix, incoming, attempt, outcome, trailers: false, trail: None, bytes: 0 }
    }

    /// The same with the trailer fields that come behind it.
    pub(crate) fn with_trailers(mut self) -> Self {
        self.trailers = true;
        self
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        if let Poll::Ready(Step::Ended(_)) = self.attempt.ticket.call.poll_step(context) {
            return Poll::Ready(Some(Err(BrokenOff::TimedOut)));
        }
        let mut next = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if let Some(Ok(frame)) = &mut next
            && let Some(trailers) = frame.trailers_mut()
        {
            if !self.trailers {
                // They are the last of it.
                return Poll::Ready(None);
            }
            strip_trailers(trailers);
        }
        Poll::Ready(next.map(|next| {
            next.map_err(|error| match error {
                SendError::Late(..) => BrokenOff::Silent,
                _ => BrokenOff::Upstream,
            })
        }))
    }

    fn is_end(&self) -> bool {
        self.prefix.is_none() && self.incoming.is_end_stream()
    }

    fn close(&mut self, outcome: Outcome, broken: Option<&BrokenOff>) {
        self.attempt.finish(outcome);
        if let Some(trail) = self.trail.take() {
            trail.streamed(broken, self.bytes);
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        if self.is_end() {
            self.close(self.outcome, None);
        } else if let Some(trail) = self.trail.take() {
            trail.abandoned(self.bytes);
        }
    }
}

impl Shared {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, trail: None, bytes: 0 }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        let Some(trail) = self.trail.take() else { return };
        if self.reader.is_at_end() {
            trail.streamed(None, self.bytes);
        } else {
            trail.abandoned(self.bytes);
        }
    }
}

/// What a status of an upstream means to the system.
pub(crate) fn outcome_of(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Busy,
        502..=504 => Outcome::Unavailable,
        500..=599 => Outcome::Error,
        _ => Outcome::Ok,
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Frame::data).map(Ok)),
            Self::Upstream(body) => {
                let next = ready!(body.poll(context));
                match &next {
                    Some(Ok(frame)) => {
                        body.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                    }
                    Some(Err(broken)) => body.close(Outcome::Unavailable, Some(broken)),
                    None => body.close(body.outcome, None),
                }
                Poll::Ready(next)
            }
            Self::Shared(body) => {
                let next = ready!(body.reader.poll(context));
                if let Some(Ok(data)) = &next {
                    body.bytes += data.len() as u64;
                } else if let Some(trail) = body.trail.take() {
                    trail.streamed(next.as_ref().and_then(|next| next.as_ref().err()), body.bytes);
                }
                Poll::Ready(next.map(|next| next.map(Frame::data)))
            }
            Self::Pieces(body) => {
                let next = ready!(body.poll(context));
                if let Some(Ok(data)) = &next {
                    body.bytes += data.len() as u64;
                } else if let Some(trail) = body.trail.take() {
                    trail.streamed(next.as_ref().and_then(|next| next.as_ref().err()), body.bytes);
                }
                Poll::Ready(next.map(|next| next.map(Frame::data)))
            }
            Self::Squeezed(body) => body.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end(),
            Self::Shared(body) => body.reader.is_at_end(),
            Self::Pieces(_) => false,
            Self::Squeezed(body) => body.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream(body) => {
                let prefix = body.prefix.as_ref().map_or(0, |bytes| bytes.len() as u64);
                let rest = body.incoming.size_hint();
                rest.exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(prefix + rest))
            }
            Self::Shared(body) => {
                body.reader.left().map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Self::Pieces(_) | Self::Squeezed(_) => SizeHint::new(),
        }
    }
}

impl Pieces {
    pub(crate) fn new(
        pieces: mpsc::Receiver<Bytes>,
        ticket: Ticket,
        check: Option<PieceCheck>,
    ) -> Self {
        Self { pieces, ticket, check, first: None, trail: None, bytes: 0 }
    }

    /// Holds the first piece against the schema while another answer can still be given.
    pub(crate) async fn look_ahead(&mut self) -> Result<(), Refusal> {
        let Some(check) = &self.check else { return Ok(()) };
        // Sent with the word that there are pieces: it is here, or will never be.
        self.first = self.pieces.recv().await;
        self.first.as_ref().map_or(Ok(()), |piece| check.fits(piece))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(piece) = self.first.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if let Poll::Ready(Some(piece)) = self.pieces.poll_recv(context) {
            let fits = self.check.as_ref().is_none_or(|check| check.fits(&piece).is_ok());
            return Poll::Ready(Some(if fits { Ok(piece) } else { Err(BrokenOff::Unfit) }));
        }
        // After the last piece the end of the request follows; its time may be up before that.
        match ready!(self.ticket.call.poll_step(context)) {
            Step::Ended(End::Ok) if self.pieces.is_closed() && self.pieces.is_empty() => {
                Poll::Ready(None)
            }
            Step::Ended(End::Ok) => Poll::Pending,
            Step::Ended(End::TimedOut) => Poll::Ready(Some(Err(BrokenOff::TimedOut))),
            // Another attempt would say everything again.
            Step::Ended(_) | Step::Dispatched | Step::Pieces { .. } => {
                Poll::Ready(Some(Err(BrokenOff::Worker)))
            }
        }
    }
}

impl Body {
    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// These bytes.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::Whole(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// Its bytes, where they are all here.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Upstream(_) | Self::Shared(_) | Self::Pieces(_) | Self::Squeezed(_) => None,
        }
    }

    /// Lets the record of a request be written when the last byte of its answer is handed over.
    pub(crate) fn follow(&mut self, trail: Trail) {
        match self {
            Self::Whole(_) => {}
            Self::Upstream(body) => body.trail = Some(trail),
            Self::Shared(body) => body.trail = Some(trail),
            Self::Pieces(body) => body.trail = Some(trail),
            Self::Squeezed(body) => body.follow(trail),
        }
    }
}

/// An answer that says why there is no better one.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// What went wrong, in a line.
    pub(crate) error: String,
    /// What the client may do about it.
    pub(crate) hint: Option<String>,
    /// Type of the user's exception.
    pub(crate) kind: Option<String>,
    pub(crate) traceback: Option<String>,
    /// When to come back, in seconds, if that helps.
    pub(crate) retry_after: Option<u32>,
    /// How to say who one is, if that helps: `WWW-Authenticate`.
    pub(crate) challenge: Option<Challenge>,
}

/// Why a client is asked to say who it is (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// It did not.
    Missing,
    /// Nobody knows it.
    Unknown,
    /// It may not do this.
    Forbidden,
}

impl Challenge {
    const fn line(self) -> &'static str {
        match self {
            Self::Missing => "Bearer realm=\"gatewright\"",
            Self::Unknown => "Bearer realm=\"gatewright\", error=\"invalid_token\"",
            Self::Forbidden => "Bearer realm=\"gatewright\", error=\"insufficient_scope\"",
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<&'a str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            hint: None,
            kind: None,
            traceback: None,
            retry_after: None,
            challenge: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that another try in a second may go better.
    pub(crate) fn come_back(self) -> Self {
        self.come_back_after(Duration::from_secs(1))
    }

    /// Says that another try after this time may go better: in whole seconds, at least one and at most an hour.
    pub(crate) fn come_back_after(mut self, wait: Duration) -> Self {
        self = self.come_back_in(wait);
        self.retry_after = self.retry_after.map(|seconds| seconds.min(3_600));
        self
    }

    /// Says that another try will go well after this time, and no sooner: in whole seconds, at least one.
    pub(crate) fn come_back_in(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }

    /// Says how to say who one is.
    pub(crate) fn challenge(mut self, challenge: Challenge) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub(crate) fn response(&self, request_id: &str) -> Response<Body> {
        let body = ErrorBody {
            error: &self.error,
            kind: self.kind.as_deref(),
            hint: self.hint.as_deref(),
            request_id,
            traceback: self.traceback.as_deref(),
        };
        let json = serde_json::to_vec(&body).expect("strings are always JSON");
        let mut response = Response::new(Body::whole(json.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge.line()));
        }
        response
    }
}
