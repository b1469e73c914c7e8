//! Recorded demand: readers of public traces, each a stream of requests in the order of their moments.
//!
//! Memory does not grow with the trace (see [`Streamed`]), but for what its format needs: per-minute counts are kept whole (only
//! what is not zero), and requests that are listed by their end wait until they are in order.

mod azure;
mod counts;
mod error;
mod lines;
mod mooncake;
mod order;
mod recorded;
mod streamed;

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::{TraceError, TraceProblem};
pub use recorded::{Arrival, MAX_ARRIVALS, Recorded, Selection};
pub use streamed::{Streamed, StreamedRequests, TraceSource};

use lines::Lines;

/// A request of a trace. What a format does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it came, from the start of the trace.
    pub at: Time,
    /// Name of the function it was for.
    pub function: Option<Arc<str>>,
    /// How long it took; the mean of its function or minute, where that is all there is.
    pub duration: Option<Duration>,
    /// Tokens of the prompt.
    pub tokens_in: Option<u32>,
    /// Tokens of the answer.
    pub tokens_out: Option<u32>,
    /// Numbers of the blocks of 512 tokens that the prompt is made of: equal numbers are equal text.
    pub blocks: Vec<u64>,
}

/// Formats of public traces.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// Azure LLM inference 2023: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureLlm,
    /// Azure Functions 2021, one invocation a line: `app,func,end_timestamp,duration`, in seconds.
    #[serde(rename = "azure_functions_2021")]
    AzureFunctions2021,
    /// Azure Functions 2019, invocations per minute: `HashOwner,HashApp,HashFunction,Trigger,1,2,...`.
    #[serde(rename = "azure_functions_2019")]
    AzureFunctions2019,
    /// Mooncake, JSON lines: `timestamp` in milliseconds, `input_length`, `output_length`, `hash_ids`.
    Mooncake,
    /// OpenDC serverless, invocations per minute: `Timestamp [ms],Invocations, Avg Exec time ...,name`.
    Opendc,
}

/// How a trace is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// Its format; told from its first line if absent.
    pub format: Option<TraceFormat>,
    /// Seed of the moments inside a minute, where a trace only counts: they are uniformly distributed.
    pub seed: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { format: None, seed: 1 }
    }
}

/// The requests of a trace, in the order of their moments, as an iterator; after an error there is nothing more.
#[derive(Debug)]
pub struct TraceReader<R> {
    format: TraceFormat,
    source: Source<R>,
    ended: bool,
}

#[derive(Debug)]
enum Source<R> {
    Llm(azure::Llm<R>),
    Functions(order::InOrder<azure::Functions<R>>),
    Counts(counts::PerMinute),
    Mooncake(mooncake::Mooncake<R>),
}

impl TraceFormat {
    /// Name of the format, as configuration and command line spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AzureLlm => "azure_llm",
            Self::AzureFunctions2021 => "azure_functions_2021",
            Self::AzureFunctions2019 => "azure_functions_2019",
            Self::Mooncake => "mooncake",
            Self::Opendc => "opendc",
        }
    }

    /// The format that begins with this line.
    #[must_use]
    pub fn of_first_line(line: &str) -> Option<Self> {
        let line = line.trim();
        [
            ("TIMESTAMP,ContextTokens,GeneratedTokens", Self::AzureLlm),
            ("app,func,end_timestamp,duration", Self::AzureFunctions2021),
            ("HashOwner,HashApp,HashFunction,Trigger,1", Self::AzureFunctions2019),
            ("Timestamp [ms],Invocations,", Self::Opendc),
            ("{", Self::Mooncake),
        ]
        .into_iter()
        .find_map(|(start, format)| line.starts_with(start).then_some(format))
    }
}

impl<R: BufRead> TraceReader<R> {
    /// Begins to read a trace.
    ///
    /// # Errors
    /// The first line is not that of the format, or of none that is known; of a format with counts, anything
    /// wrong with the whole of it.
    pub fn new(input: R, options: TraceOptions) -> Result<Self, TraceError> {
        let mut lines = Lines::new(input);
        let first = lines.next_line()?.unwrap_or_default().to_owned();
        let told = TraceFormat::of_first_line(&first);
        let format = match (options.format, told) {
            (Some(wanted), Some(told)) if wanted == told => wanted,
            (Some(wanted), _) => return Err(lines.error(TraceProblem::NotTheFormat(wanted.name()))),
            (None, Some(told)) => told,
            (None, None) => return Err(lines.error(TraceProblem::NoKnownFormat)),
        };
        let source = match format {
            TraceFormat::AzureLlm => Source::Llm(azure::Llm::new(lines)),
            TraceFormat::AzureFunctions2021 => {
                Source::Functions(order::InOrder::new(azure::Functions::new(lines)))
            }
            TraceFormat::AzureFunctions2019 => {
                Source::Counts(counts::read_azure(lines, options.seed)?)
            }
            TraceFormat::Opendc => Source::Counts(counts::read_opendc(lines, options.seed)?),
            TraceFormat::Mooncake => Source::Mooncake(mooncake::Mooncake::new(lines, first)),
        };
        Ok(Self { format, source, ended: false })
    }

    /// The format that is read.
    #[must_use]
    pub const fn format(&self) -> TraceFormat {
        self.format
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match &mut self.source {
            Source::Llm(reader) => reader.next(),
            Source::Functions(reader) => reader.next(),
            Source::Counts(counts) => counts.next().map(Ok),
            Source::Mooncake(reader) => reader.next(),
        };
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
