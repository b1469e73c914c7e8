//! Connections of HTTP/2, with several requests on each.

use gatewright_determinism::Time;

use super::ends::Come;
use super::{READS_IN_TURN, Shard};
use crate::connection::InFlight;
use crate::failure::Failure;
use crate::http2::Ended;
use crate::poller::EventFlags;

impl Shard<'_> {
    pub(super) fn handle_streams(&mut self, index: usize, flags: EventFlags, hung_up: bool) {
        if flags.contains(EventFlags::OUT) {
            self.unflushed.push(index);
        }
        if hung_up || flags.contains(EventFlags::IN) {
            self.receive_streams(index, hung_up);
        }
        self.flush();
    }

    /// Goes on with a connection that had more to read than its turn allowed.
    pub(super) fn receive_more(&mut self, index: usize, hung_up: bool) {
        if self.session(index).is_none() {
            return self.receive(index, hung_up);
        }
        self.receive_streams(index, hung_up);
        self.flush();
    }

    /// Reads what is there, or as much of it as others can wait for.
    fn receive_streams(&mut self, index: usize, hung_up: bool) {
        let mut ended = std::mem::take(&mut self.ended);
        let mut has_more = true;
        for _ in 0..READS_IN_TURN {
            let Some(connection) = self.pool.get(index) else { break };
            let read = connection.read(&mut self.buffer);
            let now = self.clock.now();
            let Some(session) = &mut connection.http2 else { break };
            let failure = match read {
                Ok(None) => None,
                Ok(Some(0)) => Some(Failure::Closed),
                Ok(Some(count)) => {
                    let taken = session.receive(&self.buffer[..count], now, &mut ended);
                    // A read that did not fill the buffer has emptied the socket.
                    has_more = count == self.buffer.len() || hung_up;
                    taken.err().map(Failure::Http2)
                }
                Err(error) => Some(Failure::broken(error)),
            };
            has_more &= !matches!(read, Ok(None));
            if let Some(failure) = failure {
                session.fail(failure, &mut ended);
            }
            self.end_streams(index, &mut ended, now);
            if !has_more {
                break;
            }
        }
        self.ended = ended;
        if has_more && self.pool.get(index).is_some() {
            self.unread.push((self.pool.token(index), hung_up));
        }
    }

    /// Takes account of requests that have ended on a connection, and gives it new ones or closes it.
    fn end_streams(&mut self, index: usize, ended: &mut Vec<Ended>, now: Time) {
        for Ended { request, code, body_bytes, tokens, failure, .. } in ended.drain(..) {
            self.end_sent(&request, Come { code, body_bytes, failure }, tokens.as_deref(), now);
            self.pool.busy -= 1;
            let waiting = self.feed.oldest().is_some();
            self.waited += u64::from(waiting && self.pool.open >= self.setup.max_connections);
            if let Some(session) = self.session(index) {
                session.give_back(tokens);
            }
        }
        if self.session(index).is_some_and(|session| session.is_over()) {
            self.pool.remove(index);
            return;
        }
        self.unflushed.push(index);
        self.feed.notice(now);
        self.fill(index, now);
    }

    /// Gives a connection as many requests as are ready and it has room for.
    pub(super) fn fill(&mut self, index: usize, now: Time) {
        while self.pool.get(index).is_some_and(|connection| connection.room() > 0) {
            match self.take(now) {
                Some(attempt) => self.send(index, attempt, now),
                None => return self.pool.keep_idle(index),
            }
        }
    }

    /// Gives the sockets what is to go out on them.
    pub(super) fn flush(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        // A connection that fails makes room on none, so this comes to an end.
        while let Some(index) = self.unflushed.pop() {
            let Some(connection) = self.pool.get(index) else { continue };
            let Err(error) = connection.flush() else { continue };
            if let Some(session) = &mut connection.http2 {
                session.fail(Failure::broken(error), &mut ended);
            }
            self.end_streams(index, &mut ended, self.clock.now());
        }
        self.ended = ended;
    }

    /// Ends those requests on a connection that `which` chooses.
    pub(super) fn cancel(
        &mut self,
        index: usize,
        which: impl Fn(&InFlight) -> bool,
        failure: Failure,
        now: Time,
    ) {
        let mut ended = std::mem::take(&mut self.ended);
        if let Some(session) = self.session(index) {
            session.cancel(which, failure, &mut ended);
        }
        if !ended.is_empty() {
            self.end_streams(index, &mut ended, now);
            self.ended = ended;
            self.flush();
        }
    }

    /// Ends what has taken longer than the timeout on a connection; when that is due next.
    pub(super) fn sweep_streams(&mut self, index: usize, now: Time) -> Option<Time> {
        let timeout = self.setup.timeout;
        let is_late = move |request: &InFlight| request.start() + timeout <= now;
        self.cancel(index, is_late, Failure::Timeout, now);
        let session = self.session(index)?;
        session.requests().map(|request| request.start() + timeout).min()
    }

    fn session(&mut self, index: usize) -> Option<&mut crate::http2::Session> {
        self.pool.get(index)?.http2.as_deref_mut()
    }
}
