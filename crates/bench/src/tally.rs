use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, RunSummary, Status, TimeSeries, TokenSummary, World};
use gatewright_workload::constraint::Measured;
use gatewright_workload::profile::{Attainment, Slo};

use crate::answer::TokenWatch;
use crate::failure::{Failure, Reasons};
use crate::parts::{Counted, Parts};
use crate::progress::{ShardProgress, Shared};
use crate::requests::Prepared;

/// One thread's account of its requests.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    pub(crate) summary: RunSummary,
    /// Of language models.
    pub(crate) tokens: Option<Box<TokenSummary>>,
    pub(crate) attainment: Attainment,
    /// What happened when, the warm-up included.
    pub(crate) series: TimeSeries,
    pub(crate) parts: Parts,
    slo: Option<Slo>,
    batches: Batches,
    has_turns: bool,
    pub(crate) warmup_requests: u64,
    /// Requests that were due but not sent.
    pub(crate) unsent: u64,
    measured: Measured,
    max_errors: u64,
    shared: &'a Shared,
    progress: &'a ShardProgress,
    records: Option<Records>,
    reasons: Reasons,
    /// The record that is filled in for every request.
    invocation: Invocation,
    next_publication: Time,
}

/// Records on their way to the thread that writes them.
#[derive(Debug)]
pub(crate) struct Records {
    chunk: Vec<Invocation>,
    sender: SyncSender<Vec<Invocation>>,
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) number: u64,
    /// Its place in a session.
    pub(crate) turn: u64,
    pub(crate) scheduled: Option<Time>,
    pub(crate) sent: Option<Time>,
    pub(crate) first_byte: Option<Time>,
    pub(crate) finished: Time,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// Bytes of its own body, if it was sent.
    pub(crate) request_bytes: u64,
    /// Status code of the answer, as far as there was one.
    pub(crate) code: Option<u16>,
    pub(crate) body_bytes: u64,
    pub(crate) failure: Option<Failure>,
}

/// How a run is divided into equal parts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Batches {
    Time { from: Time, nanos: u64 },
    Numbers { each: u64 },
}

impl Batches {
    fn of(self, start: Time, number: u64) -> usize {
        let part = match self {
            Self::Time { from, nanos } => start.nanos_since(from) / nanos.max(1),
            Self::Numbers { each } => number / each.max(1),
        };
        usize::try_from(part).unwrap_or(usize::MAX)
    }
}

/// What an account is kept for.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) measured: Measured,
    pub(crate) slo: Option<Slo>,
    pub(crate) batches: Batches,
    /// Whether requests have a place in a session.
    pub(crate) has_turns: bool,
    pub(crate) max_errors: u64,
    pub(crate) shared: &'a Shared,
    pub(crate) progress: &'a ShardProgress,
    pub(crate) records: Option<SyncSender<Vec<Invocation>>>,
}

const CHUNK: usize = 256;
const PUBLISH_EVERY: u64 = 250_000_000;

impl<'a> Tally<'a> {
    pub(crate) fn new(account: Account<'a>) -> Self {
        let records = account.records.map(|sender| Records { chunk: Vec::new(), sender });
        let invocation =
            Invocation { world: World::Bench, function: account.name, ..Invocation::default() };
        Self {
            summary: RunSummary::new(),
            tokens: None,
            attainment: Attainment::default(),
            series: TimeSeries::default(),
            parts: Parts::default(),
            slo: account.slo,
            batches: account.batches,
            has_turns: account.has_turns,
            warmup_requests: 0,
            unsent: 0,
            measured: account.measured,
            max_errors: account.max_errors,
            shared: account.shared,
            progress: account.progress,
            records,
            reasons: Reasons::default(),
            invocation,
            next_publication: Time::from_nanos(PUBLISH_EVERY),
        }
    }

    pub(crate) fn sent(&mut self, now: Time) {
        bump(&self.progress.sent);
        self.series.sent(now);
        self.shared.monitor_sent(now);
    }

    /// Takes account of a request that has ended.
    pub(crate) fn end(&mut self, end: End, request: &Prepared, tokens: Option<&TokenWatch>) {
        bump(&self.progress.done);
        if end.failure.is_some() {
            bump(&self.progress.errors);
            if self.shared.count_error() >= self.max_errors {
                self.shared.stop();
            }
        }
        let first_token = tokens.and_then(TokenWatch::first);
        let ttft = first_token.zip(end.sent).map(|(first, sent)| first.nanos_since(sent));
        self.shared.monitor_ended(end.finished, end.sent.is_some(), end.failure.is_none(), ttft);
        let start = end.scheduled.or(end.sent).unwrap_or(end.finished);
        let times = tokens.zip(end.sent).filter(|_| end.failure.is_none());
        let times = times.map(|(tokens, sent)| tokens.times(end.scheduled, sent, end.finished));
        let tokens_out = times.and_then(|times| times.tokens_out).unwrap_or(0);
        let response = end.finished.nanos_since(start);
        match end.failure {
            None => self.series.ended(end.finished, response, ttft, tokens_out, end.body_bytes),
            Some(_) => self.series.failed(end.finished, end.sent.is_some()),
        }
        if !self.measured.contains(start, end.number) {
            self.warmup_requests += 1;
            return;
        }
        self.unsent += u64::from(end.sent.is_none());
        let invocation = &mut self.invocation;
        invocation.id = end.number;
        invocation.scheduled = end.scheduled;
        invocation.sent = end.sent;
        // Of a stream, the first token is what is waited for.
        invocation.first_byte = first_token.or(end.first_byte);
        invocation.class.clone_from(&request.name);
        invocation.bytes_in = end.request_bytes;
        invocation.finished = Some(end.finished);
        invocation.attempts = end.attempts;
        invocation.code = end.code;
        invocation.bytes_out = end.body_bytes;
        invocation.status = end.failure.map_or(Status::Ok, Failure::status);
        invocation.reason = end.failure.map(|failure| self.reasons.of(failure));
        (invocation.tokens_in, invocation.tokens_out) = (None, None);
        let (mut token_ttft, mut itl, mut tpot) = (None, None, None);
        if let Some(times) = times {
            (token_ttft, itl) = (times.response_ttft_nanos(), times.itl_nanos());
            tpot = times.tpot_nanos();
            let narrow = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
            (invocation.tokens_in, invocation.tokens_out) =
                (narrow(times.tokens_in), narrow(times.tokens_out));
            self.tokens.get_or_insert_default().add(&times);
        }
        if let Some(slo) = self.slo.filter(|_| invocation.status != Status::Cancelled) {
            let met = end.failure.is_none() && slo.is_met(response, token_ttft, itl, tpot);
            self.attainment.add(self.batches.of(start, end.number), met);
        }
        let status = invocation.status;
        let ttft = ttft.filter(|_| end.failure.is_none());
        let turn = self.has_turns.then_some(end.turn);
        let counted = Counted { status, response, ttft, tokens_out };
        self.parts.add(request.name.as_ref(), end.code, turn, counted);
        self.summary.add(invocation);
        if let Some(records) = &mut self.records {
            records.chunk.push(invocation.clone());
            if records.chunk.len() >= CHUNK {
                records.pass_on();
            }
        }
    }

    /// When [`Tally::publish`] has something to do next.
    pub(crate) const fn next_publication(&self) -> Time {
        self.next_publication
    }

    /// Lets others see what came together since the last time, if it is time for it.
    pub(crate) fn publish(&mut self, now: Time) {
        if now >= self.next_publication {
            self.next_publication = now.plus_nanos(PUBLISH_EVERY);
            self.progress.publish(&self.summary.response_time);
            if let Some(records) = &mut self.records {
                records.pass_on();
            }
        }
    }

    /// Passes the last records on.
    pub(crate) fn finish(&mut self) {
        if let Some(mut records) = self.records.take() {
            records.pass_on();
        }
    }
}

impl Records {
    fn pass_on(&mut self) {
        if !self.chunk.is_empty() {
            let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
            // Whoever writes them receives until all threads have ended, so this cannot fail while it matters.
            drop(self.sender.send(chunk));
        }
    }
}

/// Adds one to a counter that only this thread writes.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
