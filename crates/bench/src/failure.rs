use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use gatewright_record::Status;
use rustix::io::Errno;

use crate::http2::Http2Error;
use crate::response::ResponseError;

/// Why a request did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection could be made for it; number of the system's error.
    Connect(i32),
    /// The connection broke; number of the system's error.
    Broken(i32),
    /// The server closed the connection before the answer was complete.
    Closed,
    /// The answer was not complete in time.
    Timeout,
    /// No connection was free for it in time.
    NoConnection,
    /// The run ended before a connection was free for it.
    Unsent,
    /// The answer was not HTTP as it should be.
    Response(ResponseError),
    /// What came on the connection was not HTTP/2 as it should be.
    Http2(Http2Error),
    /// The server ended the request's stream, with a code of HTTP/2.
    StreamReset(u32),
    /// The server took leave and had not begun with the request.
    GoneAway,
    /// The answer's status code said so.
    Code(u16),
    /// An event of the answer, or all of it, was not what a language model answers.
    BadEvent,
    /// The model did not call a tool, as it had to.
    NoCall,
    /// An event told of an error.
    ErrorEvent,
    /// The stream of events ended before its end was told.
    StreamCut,
    /// It was cut off when the run ended.
    CutOff,
}

/// Failures in words, each kept once.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    known: BTreeMap<Failure, Arc<str>>,
}

/// The code with which a server says that it has not begun with a request.
const REFUSED_STREAM: u32 = 7;

impl Failure {
    pub(crate) fn connect(error: Errno) -> Self {
        Self::Connect(error.raw_os_error())
    }

    pub(crate) fn broken(error: Errno) -> Self {
        Self::Broken(error.raw_os_error())
    }

    pub(crate) const fn status(self) -> Status {
        match self {
            Self::Timeout | Self::NoConnection => Status::Timeout,
            Self::Unsent | Self::CutOff => Status::Cancelled,
            Self::Connect(_)
            | Self::Broken(_)
            | Self::Closed
            | Self::Response(_)
            | Self::Http2(_)
            | Self::StreamReset(_)
            | Self::GoneAway
            | Self::Code(_)
            | Self::BadEvent
            | Self::NoCall
            | Self::ErrorEvent
            | Self::StreamCut => Status::Error,
        }
    }

    /// Whether it may well go away by itself, so that asking again makes sense.
    pub(crate) const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Connect(_)
                | Self::Broken(_)
                | Self::Closed
                | Self::GoneAway
                | Self::StreamReset(REFUSED_STREAM)
                | Self::Code(429 | 502 | 503 | 504)
        )
    }

    pub(crate) fn text(self) -> String {
        let kind = |number| io::Error::from_raw_os_error(number).kind();
        match self {
            Self::Connect(number) => format!("connect: {}", kind(number)),
            Self::Broken(number) => kind(number).to_string(),
            Self::Closed => "closed before the answer was complete".into(),
            Self::Timeout => "timeout".into(),
            Self::NoConnection => "timeout before a connection was free".into(),
            Self::Unsent => "unsent when the run ended".into(),
            Self::Response(error) => error.to_string(),
            Self::Http2(error) => error.to_string(),
            Self::StreamReset(code) => format!("stream reset, code {code} of HTTP/2"),
            Self::GoneAway => "the server took leave before it began".into(),
            Self::Code(code) => format!("HTTP {code}"),
            Self::BadEvent => "the answer is not that of a language model".into(),
            Self::NoCall => "the model did not call a tool".into(),
            Self::ErrorEvent => "the stream told of an error".into(),
            Self::StreamCut => "the stream ended before its end was told".into(),
            Self::CutOff => "cut off when the run ended".into(),
        }
    }
}

impl Reasons {
    pub(crate) fn of(&mut self, failure: Failure) -> Arc<str> {
        let text = self.known.entry(failure).or_insert_with(|| failure.text().into());
        Arc::clone(text)
    }
}
