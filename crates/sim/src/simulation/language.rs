//! Requests in the batch of a language model.

use gatewright_control as control;
use gatewright_control::{Outcome, ReplicaKey};
use gatewright_determinism::{Purpose, Stream};
use gatewright_record::{Invocation, Status, TokenSummary, TokenTimes};
use gatewright_workload::Strategy;

use super::LlmSetup;
use super::engine::Engine;
use super::event::Event;
use super::flights::{Flight, FlightId, WorkId};
use crate::llm::Asked;

/// What laws of numbers draw, as laws of times do, in billionths.
const ONE: u64 = 1_000_000_000;

impl Engine<'_> {
    /// A request joins its replica's batch; one that would never fit ends with an error.
    pub(super) fn join_batch(&mut self, id: WorkId) {
        let Some(&mut Flight { request, function, ended, work: Some(work), .. }) =
            self.flights.at_work(id)
        else {
            return;
        };
        let asked = match &self.setup.functions[function as usize].llm {
            // Nobody waits for it any more.
            _ if ended => Asked { prompt: 1, output: 1, prefix: None },
            Some(llm) => self.asked(llm, id.flight),
            None => return,
        };
        let Some(batch) = self.sites.get_mut(work.replica).and_then(|site| site.batch.as_mut())
        else {
            return;
        };
        let (fits, idle) = (batch.enter(id, asked), !batch.is_stepping());
        if !fits {
            self.occupy(work.replica, false);
            self.end_work(id);
            self.tell(control::Event::Finished { request, outcome: Outcome::Error });
            return;
        }
        if !ended {
            self.flights.get_mut(id.flight).tokens = [asked.prompt, asked.output];
        }
        if idle {
            self.begin_step(work.replica);
        }
    }

    /// What a request asks for: by its trace if that tells, else by its own luck.
    fn asked(&mut self, llm: &LlmSetup, id: FlightId) -> Asked {
        let flight = *self.flights.get_mut(id);
        let arrival = &self.setup.demands[flight.demand as usize].arrival;
        let told = if matches!(arrival, Strategy::Replay(_)) { flight.tokens } else { [0; 2] };
        let mut luck = self.luck(Purpose::Content, flight.id);
        // Another place of the stream than the key's.
        let mut luck = Stream::new(luck.bits(), Purpose::Content, u64::from(flight.stage) + 1);
        let mut number =
            |law: &crate::Sampler| (law.draw(&mut luck).saturating_add(ONE / 2) / ONE) as u32;
        let drawn = [number(&llm.prompt), number(&llm.output)].map(|tokens| tokens.max(1));
        let prefix = llm
            .model
            .prefix
            .map(|prefix| (luck.below(u64::from(prefix.count)) as u32, prefix.tokens));
        let [prompt, output] = [0, 1].map(|nth| if told[nth] > 0 { told[nth] } else { drawn[nth] });
        Asked { prompt, output, prefix }
    }

    fn begin_step(&mut self, replica: ReplicaKey) {
        let batch = self.sites.get_mut(replica).and_then(|site| site.batch.as_mut());
        if let Some(seconds) = batch.and_then(|batch| batch.begin_step()) {
            let span = ((seconds * 1e9) as u64).max(1);
            self.calendar.push(self.now.plus_nanos(span), Event::Step { replica });
        }
    }

    /// A step is over: first tokens are noted, whose answer is complete is done, and the next step begins.
    pub(super) fn end_step(&mut self, replica: ReplicaKey) {
        let Some(batch) = self.sites.get_mut(replica).and_then(|site| site.batch.as_mut()) else {
            return;
        };
        let mut done = Vec::new();
        let (now, flights) = (self.now, &mut self.flights);
        batch.end_step(|given| {
            if given.first
                && let Some(flight) = flights.at_work(given.tag)
            {
                flight.first_token = Some(now);
            }
            if given.last {
                done.push(given.tag);
            }
        });
        done.into_iter().for_each(|work| self.step(work));
        // Requests that came at its very end have joined.
        self.begin_step(replica);
    }
}

/// Adds the tokens of an answer to its demand's.
pub(super) fn note(tokens: &mut TokenSummary, record: &Invocation) {
    let (Some(sent), Some(finished), Status::Ok) = (record.sent, record.finished, record.status)
    else {
        return;
    };
    tokens.add(&TokenTimes {
        scheduled: record.scheduled,
        sent,
        first: record.first_byte,
        first_output: record.first_byte,
        last: record.finished,
        finished,
        gaps: &[],
        pieces: record.tokens_out.map_or(0, u64::from),
        tokens_in: record.tokens_in.map(u64::from),
        tokens_out: record.tokens_out.map(u64::from),
        tokens_cached: None,
    });
}
