use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_determinism::Time;

use super::{TraceError, TraceProblem, TraceRequest};
use crate::span;

/// Requests that are kept of a trace at most: 32 bytes each.
pub const MAX_ARRIVALS: usize = 50_000_000;
const MAX_BLOCKS: usize = 100_000_000;

/// Which part of a trace is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only requests for this function.
    pub function: Option<String>,
    /// Only so many.
    pub requests: Option<u64>,
}

impl Selection {
    /// Whether a request is for the function that is wanted.
    pub(super) fn wants(&self, request: &TraceRequest) -> bool {
        self.function.is_none() || self.function.as_deref() == request.function.as_deref()
    }
}

/// A trace in memory, 32 bytes a request and 8 a block: what a replay needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    arrivals: Vec<Arrival>,
    functions: Vec<Arc<str>>,
    /// Requests of each function by number; of all, if no function is named.
    chains: Vec<Vec<u32>>,
    /// Blocks of all requests, and where those of each request end; nothing of a trace that has none.
    blocks: Vec<u64>,
    block_ends: Vec<usize>,
}

/// A request of a [`Recorded`] trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// When it came.
    pub at: Time,
    /// How long it took in nanoseconds; 0 if the trace does not tell.
    pub duration: u64,
    /// Number of its function in [`Recorded::functions`]; 0 if the trace names none.
    pub function: u32,
    /// Tokens of the prompt; 0 if the trace does not tell.
    pub tokens_in: u32,
    /// Tokens of the answer; 0 if the trace does not tell.
    pub tokens_out: u32,
}

impl Recorded {
    /// Keeps what `selection` wants of a trace.
    ///
    /// # Errors
    /// The trace has an error, or more than [`MAX_ARRIVALS`] requests are wanted.
    pub fn read(
        trace: impl IntoIterator<Item = Result<TraceRequest, TraceError>>,
        selection: &Selection,
    ) -> Result<Self, TraceError> {
        let mut recorded = Self::default();
        let mut numbers: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        let most = selection.requests.unwrap_or(u64::MAX);
        for request in trace {
            if recorded.arrivals.len() as u64 >= most {
                break;
            }
            let request = request?;
            if !selection.wants(&request) {
                continue;
            }
            let line = recorded.arrivals.len() as u64 + 2;
            if recorded.arrivals.len() >= MAX_ARRIVALS {
                return Err(TraceError {
                    line,
                    problem: TraceProblem::TooMuch("50 million requests"),
                });
            }
            if recorded.blocks.len() + request.blocks.len() > MAX_BLOCKS {
                let problem = TraceProblem::TooMuch("100 million blocks of tokens");
                return Err(TraceError { line, problem });
            }
            let function = request.function.as_ref().map_or(0, |name| {
                *numbers.entry(Arc::clone(name)).or_insert_with(|| {
                    recorded.functions.push(Arc::clone(name));
                    recorded.functions.len() as u32 - 1
                })
            });
            recorded.push(&request, function);
        }
        Ok(recorded)
    }

    fn push(&mut self, request: &TraceRequest, function: u32) {
        let chain = function as usize;
        if self.chains.len() <= chain {
            self.chains.resize_with(chain + 1, Vec::new);
        }
        self.chains[chain].push(self.arrivals.len() as u32);
        if !request.blocks.is_empty() {
            self.block_ends.resize(self.arrivals.len(), self.blocks.len());
            self.blocks.extend_from_slice(&request.blocks);
            self.block_ends.push(self.blocks.len());
        }
        self.arrivals.push(Arrival {
            at: request.at,
            duration: request.duration.map_or(0, span::nanos),
            function,
            tokens_in: request.tokens_in.unwrap_or(0),
            tokens_out: request.tokens_out.unwrap_or(0),
        });
    }

    /// The requests in order.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// Names of the functions, by number.
    #[must_use]
    pub fn functions(&self) -> &[Arc<str>] {
        &self.functions
    }

    /// Numbers of the blocks of 512 tokens that the prompt of request `number` begins with: equal numbers are equal text.
    #[must_use]
    pub fn blocks(&self, number: u64) -> &[u64] {
        let Ok(number) = usize::try_from(number) else { return &[] };
        let Some(&end) = self.block_ends.get(number) else { return &[] };
        let start = number.checked_sub(1).map_or(0, |before| self.block_ends[before]);
        &self.blocks[start..end]
    }

    /// Whether the trace tells how many tokens its prompts have.
    #[must_use]
    pub fn has_tokens(&self) -> bool {
        self.arrivals.iter().any(|arrival| arrival.tokens_in > 0)
    }

    /// Moment of request `number`.
    #[must_use]
    pub fn at(&self, number: u64) -> Option<Time> {
        self.arrivals.get(usize::try_from(number).ok()?).map(|arrival| arrival.at)
    }

    /// From the first request to the last, in nanoseconds.
    #[must_use]
    pub fn span_nanos(&self) -> u64 {
        match (self.arrivals.first(), self.arrivals.last()) {
            (Some(first), Some(last)) => last.at.nanos_since(first.at),
            _ => 0,
        }
    }

    /// Whether it tells how long any request took.
    #[must_use]
    pub fn tells_durations(&self) -> bool {
        self.arrivals.iter().any(|arrival| arrival.duration > 0)
    }

    pub(crate) const fn chains(&self) -> usize {
        self.chains.len()
    }

    /// Number of a chain's request.
    #[must_use]
    pub fn number_of(&self, chain: u64, turn: u64) -> Option<u64> {
        let chain = self.chains.get(usize::try_from(chain).ok()?)?;
        chain.get(usize::try_from(turn).ok()?).map(|&number| u64::from(number))
    }

    /// Nanoseconds from the end of a chain's request to its next one; none after the last. 0 where the next
    /// came before the end.
    pub(crate) fn pause_after(&self, chain: u64, turn: u64) -> Option<u64> {
        let request = self.arrivals.get(self.number_of(chain, turn)? as usize)?;
        let next = self.at(self.number_of(chain, turn + 1)?)?;
        Some(next.nanos_since(request.at.plus_nanos(request.duration)))
    }
}
