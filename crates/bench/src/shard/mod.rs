mod streams;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::{RunSummary, TimeSeries, TokenSummary};
use gatewright_workload::profile::Attainment;
use rustix::io::Errno;

use crate::answer::TokenWatch;
use crate::clock::{Clock, ProcessorTime};
use crate::connection::{Address, Connection, InFlight, Phase};
use crate::failure::Failure;
use crate::feed::{Due, Feed, Noticed, Turn};
use crate::http2::Ended;
use crate::parts::Parts;
use crate::poller::{Event, EventFlags, Poller};
use crate::pool::{Pool, PoolCounts};
use crate::progress::Shared;
use crate::requests::Requests;
use crate::tally::{Account, End, Tally};
use crate::tls::Tls;

/// One thread of the engine: its part of the requests on its own connections.
pub(crate) struct Shard<'a> {
    clock: Clock,
    shared: &'a Shared,
    setup: Setup,
    requests: Requests,
    feed: Feed,
    tally: Tally<'a>,
    poller: Poller,
    pool: Pool,
    /// Requests that failed and are to be made once more, before any others.
    again: VecDeque<Attempt>,
    /// Requests of an open loop that waited for one of the connections there may be.
    waited: u64,
    /// No request reaches its timeout before.
    next_sweep: Time,
    buffer: Box<[u8]>,
    /// Connections (their tokens, and whether they are hung up) that had more to read than their turn allows.
    unread: Vec<(u64, bool)>,
    /// Connections of HTTP/2 with bytes to go out.
    unflushed: Vec<usize>,
    /// Requests that have ended on one of them.
    ended: Vec<Ended>,
    /// Conversations that ended because a turn failed.
    broken_conversations: u64,
}

/// A request that is to be sent, perhaps not for the first time.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    due: Due,
    /// Which attempt it is, from 1.
    number: u32,
    /// When the first one was sent, if there was one.
    first_sent: Option<Time>,
}

#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    pub(crate) timeout: Duration,
    pub(crate) max_connections: usize,
    /// Requests at a time on a connection, if it speaks HTTP/2.
    pub(crate) streams: Option<u32>,
    /// Attempts of a request beyond the first.
    pub(crate) retries: u32,
    /// Requests in flight at the end are cut off.
    pub(crate) cuts_off: bool,
}

/// What a thread leaves behind.
#[derive(Debug)]
pub(crate) struct ShardOutcome {
    pub(crate) summary: RunSummary,
    pub(crate) tokens: Option<Box<TokenSummary>>,
    pub(crate) attainment: Attainment,
    pub(crate) series: TimeSeries,
    pub(crate) parts: Parts,
    pub(crate) warmup_requests: u64,
    pub(crate) unsent: u64,
    pub(crate) waited: u64,
    pub(crate) broken_conversations: u64,
    pub(crate) noticed: Noticed,
    pub(crate) pool: PoolCounts,
    /// When its last request had ended.
    pub(crate) ended: Time,
    /// When it stopped to offer requests, if not for want of more.
    pub(crate) offered_until: Time,
    /// Whether its part of a finite schedule was over.
    pub(crate) dry: bool,
    pub(crate) processor: ProcessorTime,
}

const BUFFER: usize = 64 << 10;
/// A connection with a large answer lets the others have their turn after this many full buffers.
const READS_IN_TURN: usize = 4;
/// Requests that were due before the end may still be sent for this long.
const GRACE: Duration = Duration::from_secs(1);

impl<'a> Shard<'a> {
    pub(crate) fn new(
        clock: Clock,
        setup: Setup,
        requests: Requests,
        feed: Feed,
        account: Account<'a>,
    ) -> io::Result<Self> {
        Ok(Self {
            clock,
            shared: account.shared,
            next_sweep: Time::ZERO + setup.timeout,
            setup,
            requests,
            feed,
            tally: Tally::new(account),
            poller: Poller::new()?,
            pool: Pool::default(),
            again: VecDeque::new(),
            waited: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            unread: Vec::new(),
            unflushed: Vec::new(),
            ended: Vec::new(),
            broken_conversations: 0,
        })
    }

    /// Makes all its requests; `first` is a connection to begin with.
    pub(crate) fn run(mut self, first: Option<OwnedFd>) -> io::Result<ShardOutcome> {
        if let Some(socket) = first {
            self.adopt(Connection::from_socket(socket)?)?;
        }
        self.clock.sleep_until_start();
        let before = ProcessorTime::of_this_thread();
        let ended = loop {
            let now = self.clock.now();
            self.step(now)?;
            if self.feed.is_over(now) && self.pool.busy == 0 && self.again.is_empty() {
                break now;
            }
            // What was just done took its time, so the clock is read again.
            let now = self.clock.now();
            let wake = if self.unread.is_empty() { self.wake_at(now) } else { now };
            let events = self.poller.wait(wake.nanos_since(now))?;
            for event in &events {
                self.handle(event);
            }
            self.poller.put_back(events);
            for (token, hung_up) in std::mem::take(&mut self.unread) {
                if let Some(index) = self.pool.find(token) {
                    self.receive_more(index, hung_up);
                }
            }
        };
        self.tally.finish();
        Ok(ShardOutcome {
            summary: self.tally.summary,
            tokens: self.tally.tokens,
            attainment: self.tally.attainment,
            series: self.tally.series,
            parts: self.tally.parts,
            warmup_requests: self.tally.warmup_requests,
            unsent: self.tally.unsent,
            waited: self.waited,
            broken_conversations: self.broken_conversations,
            offered_until: self.feed.end(),
            dry: self.feed.is_dry(),
            noticed: self.feed.into_noticed(),
            pool: self.pool.counts,
            ended,
            processor: ProcessorTime::of_this_thread().since(before),
        })
    }

    fn step(&mut self, now: Time) -> io::Result<()> {
        if self.shared.is_stopped() {
            self.feed.stop(now);
        }
        self.feed.notice(now);
        self.dispatch()?;
        if let Some(oldest) = self.feed.oldest() {
            self.next_sweep = self.next_sweep.min(oldest + self.setup.timeout);
        }
        if now >= self.next_sweep {
            self.sweep(now)?;
        }
        let end = self.feed.end();
        if self.setup.cuts_off && now >= end {
            self.cut_off(now);
        } else if now >= end + GRACE {
            self.give_up_unsent(now);
        }
        self.tally.publish(now);
        Ok(())
    }

    fn wake_at(&mut self, now: Time) -> Time {
        let end = self.feed.end();
        let change = if now < end { end } else { end + GRACE };
        let due = self.feed.next_due().unwrap_or(Time::MAX);
        // Past the grace nothing changes but by answers and timeouts.
        let change = if change <= now { Time::MAX } else { change };
        due.min(change).min(self.next_sweep).min(self.tally.next_publication())
    }

    /// Sends what is ready, on idle connections first; opens new ones for what is left.
    fn dispatch(&mut self) -> io::Result<()> {
        let has_more = loop {
            let now = self.clock.now();
            if self.ready(now) == 0 {
                break false;
            }
            let Some(index) = self.pool.take_idle() else { break true };
            match self.take(now) {
                Some(attempt) => self.send(index, attempt, now),
                None => self.pool.keep_idle(index),
            }
        };
        self.flush();
        if !has_more {
            return Ok(());
        }
        let now = self.clock.now();
        while self.awaited() < self.ready(now) && self.pool.open < self.setup.max_connections {
            self.connect(now)?;
        }
        Ok(())
    }

    /// Requests for which there will be room on the connections that are being made.
    fn awaited(&self) -> usize {
        self.pool.connecting * self.setup.streams.unwrap_or(1) as usize
    }

    /// Requests that could be sent now.
    fn ready(&self, now: Time) -> usize {
        self.again.len() + self.feed.ready(now)
    }

    fn take(&mut self, now: Time) -> Option<Attempt> {
        let first = |due| Attempt { due, number: 1, first_sent: None };
        self.again.pop_front().or_else(|| self.feed.take(now).map(first))
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

    fn connect(&mut self, now: Time) -> io::Result<()> {
        let (address, tls) = (&self.setup.address, self.setup.tls.as_ref());
        match Connection::open(address, tls, self.setup.streams, now) {
            Ok(connection) => self.adopt(connection),
            Err(error @ (Errno::MFILE | Errno::NFILE)) if self.pool.open == 0 => Err(error.into()),
            Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                tracing::warn!(connections = self.pool.open, %error, "no more connections can be opened");
                self.setup.max_connections = self.pool.open;
                Ok(())
            }
            Err(error) => {
                self.connect_failed(Failure::connect(error), now);
                Ok(())
            }
        }
    }

    fn adopt(&mut self, connection: Connection) -> io::Result<()> {
        let is_idle = matches!(connection.phase, Phase::Idle);
        let index = self.pool.insert(connection);
        let token = self.pool.token(index);
        if let Some(connection) = self.pool.get(index) {
            self.poller.add(connection.socket(), token)?;
        }
        if is_idle {
            self.pool.keep_idle(index);
        }
        Ok(())
    }

    /// A connection could not be made: the request that has waited longest ends, unless enough others are
    /// on their way.
    fn connect_failed(&mut self, failure: Failure, now: Time) {
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

    fn send(&mut self, index: usize, attempt: Attempt, now: Time) {
        let due = attempt.due;
        let Some(connection) = self.pool.get(index) else { return };
        let choice = self.requests.choose(due.number, due.turn);
        let mut now = now;
        if self.requests.get(choice).template.is_filled() {
            // Filled before it counts as sent: what that takes is not the server's doing.
            self.requests.bytes(choice, due.number, due.turn);
            now = self.clock.now();
        }
        let request = InFlight {
            number: due.number,
            scheduled: due.scheduled,
            turn: due.turn,
            choice,
            body_len: self.requests.get(choice).template.body_len(),
            attempt: attempt.number,
            sent: attempt.first_sent.unwrap_or(now),
            first_byte: None,
        };
        let prepared = self.requests.get(choice);
        let (kind, keeps_text) = (prepared.kind, prepared.template.is_conversation());
        let written = match &mut connection.http2 {
            Some(session) => {
                let (block, body) = self.requests.parts(choice, due.number, due.turn);
                session.begin(request, (kind, keeps_text), block, body);
                if self.unflushed.last() != Some(&index) {
                    self.unflushed.push(index);
                }
                Ok(())
            }
            None => {
                connection.begin(request, kind, keeps_text);
                connection.write(self.requests.bytes(choice, due.number, due.turn))
            }
        };
        self.pool.busy += 1;
        self.tally.sent(now);
        self.next_sweep = self.next_sweep.min(request.start() + self.setup.timeout);
        if let Err(error) = written {
            self.fail(index, Failure::broken(error), self.clock.now());
        }
    }

    fn handle(&mut self, event: &Event) {
        // The event may be packed, so its parts are copied out.
        let (flags, token) = (event.flags, event.data.u64());
        let Some(index) = self.pool.find(token) else { return };
        let Some(connection) = self.pool.get(index) else { return };
        let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match connection.phase {
            Phase::Connecting { .. } => {
                if hung_up || flags.intersects(EventFlags::OUT | EventFlags::IN) {
                    self.connected(index);
                }
            }
            Phase::Idle if connection.http2.is_some() => self.handle_streams(index, flags, hung_up),
            Phase::Idle | Phase::Busy(_) => {
                if let Phase::Busy(request) = connection.phase
                    && !connection.is_all_written()
                    && flags.contains(EventFlags::OUT)
                    && let Err(error) = connection.write(self.requests.bytes(
                        request.choice,
                        request.number,
                        request.turn,
                    ))
                {
                    return self.fail(index, Failure::broken(error), self.clock.now());
                }
                if hung_up || flags.contains(EventFlags::IN) {
                    self.receive(index, hung_up);
                }
            }
        }
    }

    fn connected(&mut self, index: usize) {
        let Some(connection) = self.pool.get(index) else { return };
        let result = connection.connected(&mut self.buffer, self.clock.now());
        let now = self.clock.now();
        match result {
            Ok(false) => {}
            Ok(true) => {
                connection.phase = Phase::Idle;
                self.pool.connecting -= 1;
                self.fill(index, now);
                self.flush();
            }
            Err(error) => {
                self.pool.remove(index);
                self.connect_failed(Failure::connect(error), now);
            }
        }
    }

    /// Reads what is there, or as much of it as others can wait for. `hung_up`: the server will send nothing
    /// after that.
    fn receive(&mut self, index: usize, hung_up: bool) {
        for _ in 0..READS_IN_TURN {
            let Some(connection) = self.pool.get(index) else { return };
            let read = connection.read(&mut self.buffer);
            let now = self.clock.now();
            let Phase::Busy(request) = &mut connection.phase else {
                // Whatever an idle connection says, it is not an answer: it is of no more use.
                if !matches!(read, Ok(None)) {
                    self.pool.remove(index);
                }
                return;
            };
            let count = match read {
                Ok(None) => return,
                Ok(Some(0)) if connection.parser.end() => return self.answered(index, now, false),
                Ok(Some(0)) => return self.fail(index, Failure::Closed, now),
                Ok(Some(count)) => count,
                Err(error) => return self.fail(index, Failure::broken(error), now),
            };
            request.first_byte.get_or_insert(now);
            let is_head = self.requests.get(request.choice).template.is_head;
            let tokens = &mut connection.tokens;
            let body = |code: u16, piece: &[u8]| {
                if let Some(tokens) = tokens.as_mut().filter(|_| code < 400) {
                    tokens.feed(piece, now);
                }
            };
            match connection.parser.feed(&self.buffer[..count], is_head, body) {
                Err(error) => return self.fail(index, Failure::Response(error), now),
                Ok(Some(used)) => return self.answered(index, now, used == count && !hung_up),
                // A read that did not fill the buffer has emptied the socket: the next bytes are a new edge.
                Ok(None) if count < self.buffer.len() && !hung_up => return,
                Ok(None) => {}
            }
        }
        self.unread.push((self.pool.token(index), hung_up));
    }

    /// The answer is complete. `clean`: nothing stands against another request on the connection.
    fn answered(&mut self, index: usize, now: Time, clean: bool) {
        let Some(connection) = self.pool.get(index) else { return };
        let Phase::Busy(request) = connection.phase else { return };
        let code = connection.parser.code();
        let failure = code.filter(|code| *code >= 400).map(Failure::Code);
        let failure = failure.or_else(|| connection.tokens.as_mut()?.finish());
        let end = end_of(&request, now, connection, failure);
        let reusable = clean && connection.parser.keep_alive() && connection.is_all_written();
        connection.phase = Phase::Idle;
        if !self.retry(&request, failure, now) {
            let tokens = self.pool.get(index).and_then(|connection| connection.tokens.as_deref());
            self.tally.end(end, self.requests.get(request.choice), tokens);
            let answer = tokens.filter(|_| failure.is_none()).map(TokenWatch::text);
            let goes_on = self.requests.hear(request.choice, request.number, request.turn, answer);
            self.go_on(request.turn, goes_on, failure, now);
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
    fn fail(&mut self, index: usize, failure: Failure, now: Time) {
        let Some(connection) = self.pool.get(index) else { return };
        if let Phase::Busy(request) = connection.phase {
            let end = end_of(&request, now, connection, Some(failure));
            connection.phase = Phase::Idle;
            self.pool.busy -= 1;
            if !self.retry(&request, Some(failure), now) {
                self.tally.end(end, self.requests.get(request.choice), None);
                let goes_on =
                    self.requests.hear(request.choice, request.number, request.turn, None);
                self.go_on(request.turn, goes_on, Some(failure), now);
            }
        }
        self.pool.remove(index);
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
    fn cut_off(&mut self, now: Time) {
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
    fn sweep(&mut self, now: Time) -> io::Result<()> {
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
                Phase::Connecting { since } => since + timeout,
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

    fn give_up_unsent(&mut self, now: Time) {
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

fn end_of(
    request: &InFlight,
    finished: Time,
    connection: &Connection,
    failure: Option<Failure>,
) -> End {
    End {
        number: request.number,
        turn: request.turn.number,
        scheduled: request.scheduled,
        sent: Some(request.sent),
        first_byte: request.first_byte,
        request_bytes: request.body_len,
        attempts: request.attempt,
        finished,
        code: connection.parser.code(),
        body_bytes: connection.parser.body_bytes(),
        failure,
    }
}
