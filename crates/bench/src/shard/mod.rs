mod ends;
mod streams;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::{RunSummary, TimeSeries, TokenSummary};
use gatewright_workload::profile::Attainment;
use rustix::io::Errno;

use crate::clock::{Clock, ProcessorTime};
use crate::connection::{Address, Connection, InFlight, Phase};
use crate::failure::Failure;
use crate::feed::{Due, Feed, Noticed};
use crate::http2::Ended;
use crate::parts::Parts;
use crate::poller::{Event, EventFlags, Poller};
use crate::pool::{Pool, PoolCounts};
use crate::progress::Shared;
use crate::requests::Requests;
use crate::tally::{Account, Tally};
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
    /// How long a connection may take to be made.
    pub(crate) connect_timeout: Duration,
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
        debug_assert!(
            self.requests.conversations() <= self.feed.sessions(),
            "what was said in a session that is over is not kept"
        );
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

    fn connect(&mut self, now: Time) -> io::Result<()> {
        self.next_sweep = self.next_sweep.min(now + self.setup.connect_timeout);
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
}
