//! Requests of a trace that are played once more.

use gatewright_determinism::Time;
use gatewright_workload::trace::{StreamedRequests, TraceRequest};
use gatewright_workload::{Replay, Strategy, Timing};

use super::SimulationError;
use super::engine::{Arrivals, DemandRun};
use super::event::Turn;

/// What a trace tells of a request; zeros where it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Of prompt and answer.
    pub(super) tokens: [u32; 2],
    /// Nanoseconds that it took.
    pub(super) span: u64,
}

impl From<&TraceRequest> for Told {
    fn from(request: &TraceRequest) -> Self {
        let tokens = [request.tokens_in, request.tokens_out].map(Option::unwrap_or_default);
        let span = request.duration.map_or(0, |span| span.as_nanos() as u64);
        Self { tokens, span }
    }
}

/// The replay of a demand, if it is one.
const fn replay_of(arrival: &Strategy) -> Option<&Replay> {
    match arrival {
        Strategy::Replay(replay) => Some(replay),
        _ => None,
    }
}

/// The requests of a demand whose trace is read during the run.
pub(super) fn requests(
    arrival: &Strategy,
    seed: u64,
) -> Option<Result<StreamedRequests, SimulationError>> {
    let replay = replay_of(arrival).filter(|replay| replay.recorded.is_none())?;
    Some(replay.streamed.as_ref()?.requests(seed).map_err(SimulationError::Trace))
}

impl DemandRun {
    /// The moment of the next request of a trace that is read during the run; what it tells is kept.
    pub(super) fn next_of_trace(
        &mut self,
        arrival: &Strategy,
    ) -> Result<Option<Time>, SimulationError> {
        let (Some(Arrivals::Trace(requests)), Some(replay)) =
            (&mut self.arrivals, replay_of(arrival))
        else {
            return Ok(None);
        };
        let Some(request) = requests.next().transpose().map_err(SimulationError::Trace)? else {
            return Ok(None);
        };
        self.told = Told::from(&request);
        Ok(Some(replay.moment(request.at)))
    }

    /// Looks up what a trace in memory tells of the next request, which has this turn.
    pub(super) fn look_up(&mut self, arrival: &Strategy, turn: Turn) {
        let Some(replay) = replay_of(arrival) else { return };
        let Some(recorded) = &replay.recorded else { return };
        let number = match replay.timing {
            Timing::Timestamps => Some(self.offered),
            Timing::IdleGaps => recorded.number_of(u64::from(turn.session), u64::from(turn.number)),
        };
        let arrival = number.and_then(|number| {
            let number = usize::try_from(number).ok()?;
            recorded.arrivals().get(number)
        });
        self.told = arrival.map_or_else(Told::default, |arrival| Told {
            tokens: [arrival.tokens_in, arrival.tokens_out],
            span: arrival.duration,
        });
    }
}
