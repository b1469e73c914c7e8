//! How requests end: answered, failed, given up; and what comes after that.

use std::io;

use gatewright_determinism::Time;
use rustix::io::Errno;

use super::{Attempt, Shard};
use crate::answer::TokenWatch;
use crate::connection::{InFlight, Phase};
use crate::failure::Failure;
use crate::feed::{Due, Turn};
use crate::tally::End;

/// What came of a request that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Come {
    pub(super) code: Option<u16>,
    pub(super) body_bytes: u64,
    pub(super) failure: Option<Failure>,
}

impl Shard<'_> {
    /// The answer is complete. `clean`: nothing stands against another request on the connection.
    pub(super) fn answered(&mut self, index: usize, now: Time, clean: bool) {
        let Some(connection) = self.pool.get(index) else { return };
        let Phase::Busy(request) = connection.phase else { return };
        let code = connection.parser.code();
        let failure = code.filter(|code| *code >= 400).map(Failure::Code);
        let failure = failure.or_else(|| connection.tokens.as_mut()?.finish());
        let come = Come { code, body_bytes: connection.parser.body_bytes(), failure };
        let reusable = clean && connection.parser.keep_alive() && connection.is_all_written();
        connection.phase = Phase::Idle;
        let tokens = connection.tokens.take();
        self.end_sent(&request, come, tokens.as_deref(), now);
        if let Some(connection) = self.pool.get(index) {
            connection.tokens = tokens;
        }
        self.pool.busy -= 1;
        if !reusable {
            self.pool.remove(index);
            return;
        }
        let waiting = self.feed.oldest().is_some();
        self.waited += u64::from(waiting && self.pool.open >= self.setup.max_connections);
        self.feed.notice(now);
        self.fill(index, now);
    }

    /// The request on a connection has failed, and the connection with it.
    pub(super) fn fail(&mut self, index: usize, failure: Failure, now: Time) {
        let Some(connection) = self.pool.get(index) else { return };
        if let Phase::Busy(request) = connection.phase {
            let (code, body_bytes) = (connection.parser.code(), connection.parser.body_bytes());
            connection.phase = Phase::Idle;
            self.pool.busy -= 1;
            self.end_sent(&request, Come { code, body_bytes, failure: Some(failure) }, None, now);
        }
        self.pool.remove(index);
    }

    /// A request that was sent has ended: takes account of it, unless it is made once more.
    pub(super) fn end_sent(
        &mut self,
        request: &InFlight,
        come: Come,
        tokens: Option<&TokenWatch>,
        now: Time,
    ) {
        let Come { code, body_bytes, failure } = come;
        let lacks = |answer| self.requests.lacks(request.choice, request.turn, answer);
        let failure = failure.or_else(|| tokens.and_then(lacks));
        if self.retry(request, failure, now) {
            return;
        }
        let end = End {
            number: request.number,
            turn: request.turn.number,
            scheduled: request.scheduled,
            sent: Some(request.sent),
            first_byte: request.first_byte,
            request_bytes: request.body_len,
            attempts: request.attempt,
            finished: now,
            code,
            body_bytes,
            failure,
        };
        self.tally.end(end, self.requests.get(request.choice), tokens);
        let answer = tokens.filter(|_| failure.is_none());
        let goes_on = self.requests.hear(request.choice, request.number, request.turn, answer);
        self.go_on(request.turn, goes_on, failure, now);
    }

    /// Puts a request that failed where it is made once more, if it may be.
    fn retry(&mut self, request: &InFlight, failure: Option<Failure>, now: Time) -> bool {
        // What a server that takes leave has not begun with is asked for elsewhere (RFC 9113, section 6.8).
        let is_untouched = failure == Some(Failure::GoneAway);
        let may = (request.attempt <= self.setup.retries || is_untouched)
            && failure.is_some_and(Failure::is_passing)
            && now < request.start() + self.setup.timeout
            && !(self.setup.cuts_off && now >= self.feed.end());
        if may {
            let (number, scheduled, turn) = (request.number, request.scheduled, request.turn);
            self.again.push_back(Attempt {
                due: Due { number, scheduled, turn },
                number: request.attempt + 1,
                first_sent: Some(request.sent),
            });
        }
        may
    }

    /// A request has ended; its session goes on, or does not.
    fn go_on(&mut self, turn: Turn, goes_on: bool, failure: Option<Failure>, now: Time) {
        if goes_on && self.feed.ended(turn, now) {
            return;
        }
        if !goes_on {
            self.broken_conversations += u64::from(failure.is_some());
            self.feed.left(turn, now);
        }
        self.requests.forget(turn.session);
    }

    /// A connection could not be made: the request that has waited longest ends, unless enough others are
    /// on their way.
    pub(super) fn connect_failed(&mut self, failure: Failure, now: Time) {
        self.pool.counts.failed += 1;
        if self.ready(now) <= self.awaited() {
            return;
        }
        if let Some(attempt) = self.take(now) {
            self.end_unsent(attempt, failure, now);
            if self.requests.has_conversations() {
                self.go_on_unsent(attempt.due, failure, now);
            } else {
                self.feed.ended_unconnected(attempt.due.turn, now);
            }
        }
    }

    fn end_unsent(&mut self, attempt: Attempt, failure: Failure, now: Time) {
        let due = attempt.due;
        let choice = self.requests.choose(due.number, due.turn);
        let end = End {
            number: due.number,
            turn: due.turn.number,
            scheduled: due.scheduled,
            sent: attempt.first_sent,
            attempts: attempt.number - 1,
            first_byte: None,
            request_bytes: 0,
            finished: now,
            code: None,
            body_bytes: 0,
            failure: Some(failure),
        };
        self.tally.end(end, self.requests.get(choice), None);
    }

    /// Ends all that is in flight, and what was due.
    pub(super) fn cut_off(&mut self, now: Time) {
        for index in self.pool.numbers() {
            let Some(connection) = self.pool.get(index) else { continue };
            if matches!(connection.phase, Phase::Busy(_)) {
                self.fail(index, Failure::CutOff, now);
            } else if connection.http2.is_some() {
                self.cancel(index, |_| true, Failure::CutOff, now);
            }
        }
        self.give_up_unsent(now);
    }

    /// Ends what has taken longer than the timeout, and finds out when that is due next.
    pub(super) fn sweep(&mut self, now: Time) -> io::Result<()> {
        let timeout = self.setup.timeout;
        let mut next = now + timeout;
        for index in self.pool.numbers() {
            let Some(connection) = self.pool.get(index) else { continue };
            let deadline = match connection.phase {
                Phase::Idle if connection.http2.is_some() => {
                    next = next.min(self.sweep_streams(index, now).unwrap_or(next));
                    continue;
                }
                Phase::Idle => continue,
                Phase::Connecting { since } => since + self.setup.connect_timeout,
                Phase::Busy(request) => request.start() + timeout,
            };
            if deadline > now {
                next = next.min(deadline);
            } else if matches!(connection.phase, Phase::Connecting { .. }) {
                self.pool.remove(index);
                self.connect_failed(Failure::connect(Errno::TIMEDOUT), now);
            } else {
                self.fail(index, Failure::Timeout, now);
            }
        }
        while let Some(oldest) = self.feed.oldest() {
            if oldest + timeout > now {
                next = next.min(oldest + timeout);
                break;
            }
            if let Some(due) = self.feed.take(now) {
                let attempt = Attempt { due, number: 1, first_sent: None };
                self.end_unsent(attempt, Failure::NoConnection, now);
                self.go_on_unsent(due, Failure::NoConnection, now);
            }
            self.feed.notice(now);
        }
        self.next_sweep = next;
        self.dispatch()
    }

    pub(super) fn give_up_unsent(&mut self, now: Time) {
        loop {
            self.feed.notice(now);
            let Some(attempt) = self.take(now) else { return };
            self.end_unsent(attempt, Failure::Unsent, now);
            self.go_on_unsent(attempt.due, Failure::Unsent, now);
        }
    }

    fn go_on_unsent(&mut self, due: Due, failure: Failure, now: Time) {
        let choice = self.requests.choose(due.number, due.turn);
        let goes_on = self.requests.hear(choice, due.number, due.turn, None);
        self.go_on(due.turn, goes_on, Some(failure), now);
    }
}
