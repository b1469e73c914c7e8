use std::sync::Arc;

use gatewright_determinism::Time;

use crate::{CacheResult, Invocation, Status};

/// What a [`RunSummary`](crate::RunSummary) takes of a request; the columns of its [`Invocation`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline<'a> {
    /// When the schedule wanted it sent.
    pub scheduled: Option<Time>,
    /// When it was sent.
    pub sent: Option<Time>,
    /// When the gateway had read its head.
    pub received: Option<Time>,
    /// When it last left the queue.
    pub queued_out: Option<Time>,
    /// When it ended.
    pub finished: Option<Time>,
    /// Number of attempts made.
    pub attempts: u32,
    /// How it ended.
    pub status: Status,
    /// HTTP status code of the answer.
    pub code: Option<u16>,
    /// Why it did not end well.
    pub reason: Option<&'a Arc<str>>,
    /// What the cache did with it.
    pub cache: Option<CacheResult>,
    /// Whether it waited for a replica to start.
    pub cold: bool,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

impl<'a> From<&'a Invocation> for Outline<'a> {
    fn from(record: &'a Invocation) -> Self {
        Self {
            scheduled: record.scheduled,
            sent: record.sent,
            received: record.received,
            queued_out: record.queued_out,
            finished: record.finished,
            attempts: record.attempts,
            status: record.status,
            code: record.code,
            reason: record.reason.as_ref(),
            cache: record.cache,
            cold: record.cold,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
        }
    }
}
