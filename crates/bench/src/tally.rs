use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, RunSummary, Status, World};

use crate::failure::{Failure, Reasons};
use crate::progress::{ShardProgress, Shared};

/// One thread's account of its requests.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    pub(crate) summary: RunSummary,
    pub(crate) warmup_requests: u64,
    /// Requests that were due but not sent.
    pub(crate) unsent: u64,
    measured_from: Time,
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
    pub(crate) scheduled: Option<Time>,
    pub(crate) sent: Option<Time>,
    pub(crate) first_byte: Option<Time>,
    pub(crate) finished: Time,
    /// Status code of the answer, as far as there was one.
    pub(crate) code: Option<u16>,
    pub(crate) body_bytes: u64,
    pub(crate) failure: Option<Failure>,
}

/// What an account is kept for.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) body_len: u64,
    pub(crate) measured_from: Time,
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
        let invocation = Invocation {
            world: World::Bench,
            function: account.name,
            bytes_in: account.body_len,
            ..Invocation::default()
        };
        Self {
            summary: RunSummary::new(),
            warmup_requests: 0,
            unsent: 0,
            measured_from: account.measured_from,
            max_errors: account.max_errors,
            shared: account.shared,
            progress: account.progress,
            records,
            reasons: Reasons::default(),
            invocation,
            next_publication: Time::from_nanos(PUBLISH_EVERY),
        }
    }

    pub(crate) fn sent(&self) {
        bump(&self.progress.sent);
    }

    /// Takes account of a request that has ended.
    pub(crate) fn end(&mut self, end: End) {
        bump(&self.progress.done);
        if end.failure.is_some() {
            bump(&self.progress.errors);
            if self.shared.count_error() >= self.max_errors {
                self.shared.stop();
            }
        }
        let start = end.scheduled.or(end.sent).unwrap_or(end.finished);
        if start < self.measured_from {
            self.warmup_requests += 1;
            return;
        }
        self.unsent += u64::from(end.sent.is_none());
        let invocation = &mut self.invocation;
        invocation.id = end.number;
        invocation.scheduled = end.scheduled;
        invocation.sent = end.sent;
        invocation.first_byte = end.first_byte;
        invocation.finished = Some(end.finished);
        invocation.attempts = u32::from(end.sent.is_some());
        invocation.code = end.code;
        invocation.bytes_out = end.body_bytes;
        invocation.status = end.failure.map_or(Status::Ok, Failure::status);
        invocation.reason = end.failure.map(|failure| self.reasons.of(failure));
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
