use std::io::BufRead;
use std::sync::Arc;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trace::{
    Recorded, Selection, Streamed, TraceError, TraceFormat, TraceOptions, TraceReader, TraceSource,
};
use crate::{Schedule, StrategyError};

/// The demand of a trace once more.
///
/// The value names the trace; whoever runs it opens the file and has it read, into memory ([`Replay::read`]) or again
/// by each run ([`Replay::stream`]). Before, there is nothing to replay, and [`Strategy::ready`](crate::Strategy::ready) says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// File with the trace.
    pub trace: String,
    /// Its format; told from its first line if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TraceFormat>,
    /// Factor of all spans of time: 0.5 is twice as fast. 0.000001 to 1,000,000.
    #[serde(default = "one")]
    #[schemars(range(min = 1e-6, max = 1e6))]
    pub time_scale: f64,
    /// What is kept of the trace's time.
    #[serde(default)]
    pub timing: Timing,
    /// Only requests for this function of the trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Only so many requests of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// The trace, once somebody has read it.
    #[serde(skip)]
    pub recorded: Option<Arc<Recorded>>,
    /// The trace that each run reads again, once somebody has checked it.
    #[serde(skip)]
    pub streamed: Option<Arc<Streamed>>,
}

/// What is kept of a trace's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// The moments: an open loop, in which requests come when they came.
    #[default]
    Timestamps,
    /// The pauses: of each function, a request follows the end of the last one after as long as it did in the
    /// trace, from the end of the last one there if the trace tells durations, else from its moment.
    IdleGaps,
}

const fn one() -> f64 {
    1.0
}

impl Replay {
    /// A replay at the trace's own speed.
    #[must_use]
    pub fn new(trace: impl Into<String>) -> Self {
        Self {
            trace: trace.into(),
            format: None,
            time_scale: 1.0,
            timing: Timing::Timestamps,
            function: None,
            requests: None,
            recorded: None,
            streamed: None,
        }
    }

    /// The same with the trace in hand.
    #[must_use]
    pub fn with(self, recorded: Arc<Recorded>) -> Self {
        Self { recorded: Some(recorded), ..self }
    }

    /// Reads the trace; `seed` places the requests of a trace that only counts them.
    ///
    /// # Errors
    /// Anything wrong with the trace, or more of it than fits.
    pub fn read(&mut self, input: impl BufRead, seed: u64) -> Result<(), TraceError> {
        let options = TraceOptions { format: self.format, seed };
        let recorded = Recorded::read(TraceReader::new(input, options)?, &self.selection())?;
        self.recorded = Some(Arc::new(recorded));
        Ok(())
    }

    /// Has the trace read by each run anew, so that none of it is kept, where only its moments are to be; what needs
    /// the whole of it is read into memory.
    ///
    /// # Errors
    /// Anything wrong with the trace, or more of it than fits.
    pub fn stream(&mut self, source: Arc<dyn TraceSource>, seed: u64) -> Result<(), TraceError> {
        if self.timing == Timing::IdleGaps {
            let input =
                source.open().map_err(|fault| TraceError { line: 1, problem: fault.into() })?;
            return self.read(input, seed);
        }
        let options = TraceOptions { format: self.format, seed };
        self.streamed = Some(Arc::new(Streamed::check(source, options, self.selection())?));
        Ok(())
    }

    /// What is to be kept of the trace that [`Replay::with`] gets.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection { function: self.function.clone(), requests: self.requests }
    }

    pub(super) fn check(&self) -> Result<(), StrategyError> {
        if !(1e-6..=1e6).contains(&self.time_scale) {
            return Err(StrategyError::TimeScale { scale: self.time_scale });
        }
        let empty = self.recorded.as_ref().is_some_and(|recorded| recorded.arrivals().is_empty())
            || self.streamed.as_ref().is_some_and(|streamed| streamed.count() == 0);
        if empty {
            return Err(StrategyError::Empty);
        }
        Ok(())
    }

    /// Requests per second, over the trace.
    pub(super) fn rate(&self) -> Option<f64> {
        let (span, requests) = match (&self.recorded, &self.streamed) {
            (Some(recorded), _) => (recorded.span_nanos(), recorded.arrivals().len() as u64),
            (None, Some(streamed)) => (streamed.span_nanos(), streamed.count()),
            (None, None) => return None,
        };
        let (span, gaps) = (span as f64 / 1e9 * self.time_scale, requests.saturating_sub(1));
        (span > 0.0).then(|| gaps as f64 / span)
    }

    /// A moment of the trace as it is replayed.
    #[must_use]
    pub fn moment(&self, at: Time) -> Time {
        scaled(at, self.time_scale)
    }

    pub(super) fn schedule(&self) -> Schedule {
        let recorded = self.recorded.clone().unwrap_or_default();
        Schedule::replay(RecordedMoments { recorded, time_scale: self.time_scale, next: 0 })
    }
}

/// A moment of a trace where its time runs so many times as long.
fn scaled(at: Time, time_scale: f64) -> Time {
    Time::from_nanos((at.as_nanos() as f64 * time_scale) as u64)
}

/// The moments of a trace in memory.
#[derive(Clone, Debug)]
struct RecordedMoments {
    recorded: Arc<Recorded>,
    time_scale: f64,
    next: u64,
}

impl Iterator for RecordedMoments {
    type Item = Time;

    fn next(&mut self) -> Option<Time> {
        let at = self.recorded.at(self.next)?;
        self.next += 1;
        Some(scaled(at, self.time_scale))
    }
}
