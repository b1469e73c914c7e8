use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

use gatewright_determinism::Time;

use super::{Selection, TraceError, TraceOptions, TraceReader, TraceRequest};

/// Where a trace can be read from, as often as it is asked for.
///
/// Every function that opens something is one.
pub trait TraceSource: Send + Sync {
    /// The trace from its beginning.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self) -> io::Result<Box<dyn BufRead + Send>>;
}

impl<F: Fn() -> io::Result<Box<dyn BufRead + Send>> + Send + Sync> TraceSource for F {
    fn open(&self) -> io::Result<Box<dyn BufRead + Send>> {
        self()
    }
}

/// A trace that is not kept in memory but read again by whoever replays it. It was read once, so that what is wrong
/// with it is known before.
#[derive(Clone)]
pub struct Streamed {
    source: Arc<dyn TraceSource>,
    options: TraceOptions,
    selection: Selection,
    requests: u64,
    span: u64,
    tells_durations: bool,
}

/// The requests of a [`Streamed`] trace, as an iterator; after an error there is nothing more.
pub struct StreamedRequests {
    reader: TraceReader<Box<dyn BufRead + Send>>,
    selection: Selection,
    given: u64,
}

impl Streamed {
    /// Reads a trace through, and keeps what is to be known of it.
    ///
    /// # Errors
    /// Anything wrong with the trace.
    pub fn check(
        source: Arc<dyn TraceSource>,
        options: TraceOptions,
        selection: Selection,
    ) -> Result<Self, TraceError> {
        let mut streamed =
            Self { source, options, selection, requests: 0, span: 0, tells_durations: false };
        let mut first: Option<Time> = None;
        for request in streamed.requests(options.seed)? {
            let request = request?;
            streamed.requests += 1;
            streamed.span = request.at.nanos_since(*first.get_or_insert(request.at));
            streamed.tells_durations |= request.duration.is_some();
        }
        Ok(streamed)
    }

    /// The requests from the first on; `seed` places those of a trace that only counts them.
    ///
    /// # Errors
    /// The trace cannot be opened, or begins otherwise than it did.
    pub fn requests(&self, seed: u64) -> Result<StreamedRequests, TraceError> {
        let input =
            self.source.open().map_err(|fault| TraceError { line: 1, problem: fault.into() })?;
        let reader = TraceReader::new(input, TraceOptions { seed, ..self.options })?;
        Ok(StreamedRequests { reader, selection: self.selection.clone(), given: 0 })
    }

    /// How many requests there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.requests
    }

    /// From the first request to the last, in nanoseconds.
    #[must_use]
    pub const fn span_nanos(&self) -> u64 {
        self.span
    }

    /// Whether it tells how long any request took.
    #[must_use]
    pub const fn tells_durations(&self) -> bool {
        self.tells_durations
    }
}

impl Iterator for StreamedRequests {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.selection.requests.is_some_and(|most| self.given >= most) {
            return None;
        }
        loop {
            let next = self.reader.next()?;
            if next.as_ref().is_ok_and(|request| !self.selection.wants(request)) {
                continue;
            }
            self.given += 1;
            return Some(next);
        }
    }
}

impl fmt::Debug for StreamedRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { selection, given, .. } = self;
        let mut text = f.debug_struct("StreamedRequests");
        text.field("selection", selection).field("given", given).finish_non_exhaustive()
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, selection, requests, span, .. } = self;
        let mut text = f.debug_struct("Streamed");
        text.field("options", options).field("selection", selection);
        text.field("requests", requests).field("span", span).finish_non_exhaustive()
    }
}

/// Of the same source.
impl PartialEq for Streamed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
            && self.options == other.options
            && self.selection == other.selection
    }
}
