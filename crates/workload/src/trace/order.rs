use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io::BufRead;

use gatewright_determinism::Time;

use super::azure::Functions;
use super::{TraceError, TraceProblem, TraceRequest};

/// Requests that wait at most for an earlier one; as much as 100 MB.
const WINDOW: usize = 1 << 18;

/// Puts requests that are listed by their end in the order of their start, as far as [`WINDOW`] reaches.
#[derive(Debug)]
pub(super) struct InOrder<S> {
    source: S,
    waiting: BinaryHeap<Earliest>,
    count: u64,
    ended: bool,
    last: Time,
}

/// A request, the earliest one the greatest; of one moment, in the order of the trace.
#[derive(Debug)]
struct Earliest {
    request: TraceRequest,
    number: u64,
}

impl<R: BufRead> InOrder<Functions<R>> {
    pub(super) const fn new(source: Functions<R>) -> Self {
        let waiting = BinaryHeap::new();
        Self { source, waiting, count: 0, ended: false, last: Time::ZERO }
    }

    pub(super) fn next(&mut self) -> Option<Result<TraceRequest, TraceError>> {
        while !self.ended && self.waiting.len() < WINDOW {
            match self.source.next() {
                None => self.ended = true,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(request)) if request.at < self.last => {
                    return Some(Err(self.source.error(TraceProblem::Disorder)));
                }
                Some(Ok(request)) => {
                    self.waiting.push(Earliest { request, number: self.count });
                    self.count += 1;
                }
            }
        }
        let request = self.waiting.pop()?.request;
        self.last = request.at;
        Some(Ok(request))
    }
}

impl Ord for Earliest {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.request.at, other.number).cmp(&(self.request.at, self.number))
    }
}

impl PartialOrd for Earliest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Earliest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Earliest {}
