use std::collections::VecDeque;
use std::iter::Peekable;
use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_record::LatencyHistogram;
use gatewright_workload::{Limits, Pacing, Share};

use crate::visits::VisitFeed;

/// Where a thread's requests come from: its part of the schedule, or its streams that were answered.
#[derive(Debug)]
pub(crate) enum Feed {
    Open(Box<OpenFeed>),
    Closed(ClosedFeed),
    Visits(Box<VisitFeed>),
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) number: u64,
    /// Its moment; none in a closed loop.
    pub(crate) scheduled: Option<Time>,
    pub(crate) turn: Turn,
}

/// Where in a session a request stands; the first of the first one, where there are no sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) session: u64,
    pub(crate) number: u64,
}

/// How a thread's requests are bounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Requests of the whole run have smaller numbers.
    pub(crate) requests: u64,
    /// No request is due from here on.
    pub(crate) end: Time,
    /// Requests of an open loop that are held ready; the others wait in the schedule.
    pub(crate) ready: usize,
    /// From here on it is noted how late requests were noticed.
    pub(crate) measured_from: Time,
}

#[derive(Debug)]
pub(crate) struct OpenFeed {
    share: Peekable<Share>,
    ready: VecDeque<(u64, Time)>,
    bounds: Bounds,
    /// More is due than could be made ready, because there was no connection for it.
    blocked: bool,
    noticed: Noticed,
}

/// How late a thread noticed what was due, for no other reason than its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noticed {
    /// Scheduled to noticed, of requests that did not wait for a connection.
    pub(crate) delay: LatencyHistogram,
    /// Requests among them that were noticed only after the end of the schedule.
    pub(crate) after_end: u64,
}

#[derive(Debug)]
pub(crate) struct ClosedFeed {
    free_streams: u32,
    /// Streams that could not connect, and when they try again.
    resting: VecDeque<Time>,
    next: u64,
    step: u64,
    bounds: Bounds,
}

/// How long a stream of a closed loop waits before it tries again to connect.
const REST: Duration = Duration::from_millis(10);

impl Bounds {
    pub(crate) fn of(limits: &Limits, measured_from: Time, ready: usize) -> Self {
        let end = limits.duration.map_or(Time::MAX, |span| Time::ZERO + span);
        Self { requests: limits.requests.unwrap_or(u64::MAX), end, ready, measured_from }
    }
}

impl Feed {
    /// The part of thread `nth` of `of`.
    pub(crate) fn new(pacing: Pacing, nth: u32, of: u32, bounds: Bounds) -> Self {
        match pacing {
            Pacing::Open(schedule) => Self::Open(Box::new(OpenFeed {
                share: schedule.share(nth, of).peekable(),
                ready: VecDeque::with_capacity(bounds.ready),
                bounds,
                blocked: false,
                noticed: Noticed::default(),
            })),
            Pacing::Closed { streams } => Self::Closed(ClosedFeed {
                free_streams: streams / of + u32::from(nth < streams % of),
                resting: VecDeque::new(),
                next: u64::from(nth),
                step: u64::from(of),
                bounds,
            }),
            Pacing::Sessions(sessions) => {
                Self::Visits(Box::new(VisitFeed::new(sessions, nth, of, bounds)))
            }
        }
    }

    /// Makes ready what is due at `now`.
    pub(crate) fn notice(&mut self, now: Time) {
        match self {
            Self::Open(feed) => feed.notice(now),
            Self::Visits(feed) => feed.notice(now),
            Self::Closed(feed) => {
                while feed.resting.front().is_some_and(|&until| until <= now) {
                    feed.resting.pop_front();
                    feed.free_streams += 1;
                }
            }
        }
    }

    /// Requests that are ready and not taken.
    pub(crate) fn ready(&self, now: Time) -> usize {
        match self {
            Self::Open(feed) => feed.ready.len(),
            Self::Visits(feed) => feed.ready(),
            Self::Closed(feed) if feed.is_over(now) => 0,
            Self::Closed(feed) => {
                let left = (feed.bounds.requests - feed.next).div_ceil(feed.step);
                left.min(u64::from(feed.free_streams)) as usize
            }
        }
    }

    /// Takes the request that has been ready longest.
    pub(crate) fn take(&mut self, now: Time) -> Option<Due> {
        match self {
            Self::Open(feed) => {
                let (number, scheduled) = feed.ready.pop_front()?;
                Some(Due { number, scheduled: Some(scheduled), turn: Turn::default() })
            }
            Self::Visits(feed) => feed.take(),
            Self::Closed(feed) => {
                if feed.free_streams == 0 || feed.is_over(now) {
                    return None;
                }
                feed.free_streams -= 1;
                let number = feed.next;
                feed.next += feed.step;
                Some(Due { number, scheduled: None, turn: Turn::default() })
            }
        }
    }

    /// A request that was taken has ended. Whether its session, if it has one, goes on.
    pub(crate) fn ended(&mut self, turn: Turn, now: Time) -> bool {
        match self {
            Self::Open(_) => {}
            Self::Closed(feed) => feed.free_streams += 1,
            Self::Visits(feed) => return feed.ended(turn, now),
        }
        false
    }

    /// A request that was taken has ended, and its session with it.
    pub(crate) fn left(&mut self, turn: Turn, now: Time) {
        match self {
            Self::Open(_) | Self::Closed(_) => {
                self.ended(turn, now);
            }
            Self::Visits(feed) => feed.left(),
        }
    }

    /// A request that was taken has ended for want of a connection.
    pub(crate) fn ended_unconnected(&mut self, turn: Turn, now: Time) {
        match self {
            Self::Open(_) => {}
            Self::Closed(feed) => feed.resting.push_back(now + REST),
            Self::Visits(feed) => {
                feed.ended(turn, now + REST);
            }
        }
    }

    /// When [`Feed::notice`] has something to do next; none if that hangs on connections.
    pub(crate) fn next_due(&mut self) -> Option<Time> {
        match self {
            Self::Open(feed) if feed.blocked => None,
            Self::Open(feed) => feed.peek().map(|(_, time)| time),
            Self::Closed(feed) => feed.resting.front().copied(),
            Self::Visits(feed) => feed.next_due(),
        }
    }

    /// Moment of the oldest request that is ready.
    pub(crate) fn oldest(&self) -> Option<Time> {
        match self {
            Self::Open(feed) => feed.ready.front().map(|&(_, time)| time),
            Self::Closed(_) => None,
            Self::Visits(feed) => feed.oldest(),
        }
    }

    /// Nothing is due from `now` on, if the end was not earlier.
    pub(crate) fn stop(&mut self, now: Time) {
        let bounds = match self {
            Self::Open(feed) => &mut feed.bounds,
            Self::Closed(feed) => &mut feed.bounds,
            Self::Visits(feed) => &mut feed.bounds,
        };
        bounds.end = bounds.end.min(now);
    }

    /// When the last request may be due.
    pub(crate) fn end(&self) -> Time {
        match self {
            Self::Open(feed) => feed.bounds.end,
            Self::Closed(feed) => feed.bounds.end,
            Self::Visits(feed) => feed.bounds.end,
        }
    }

    /// Whether every request has been taken.
    pub(crate) fn is_over(&mut self, now: Time) -> bool {
        match self {
            Self::Open(feed) => feed.ready.is_empty() && feed.peek().is_none(),
            Self::Closed(feed) => feed.is_over(now),
            Self::Visits(feed) => feed.is_over(now),
        }
    }

    /// Sessions of which more requests may come.
    pub(crate) fn sessions(&self) -> usize {
        match self {
            Self::Open(_) | Self::Closed(_) => 0,
            Self::Visits(feed) => feed.going_on(),
        }
    }

    /// Whether there would be nothing more without any limit.
    pub(crate) fn is_dry(&mut self) -> bool {
        match self {
            Self::Open(feed) => feed.share.peek().is_none(),
            Self::Closed(_) => false,
            Self::Visits(feed) => feed.is_dry(),
        }
    }

    pub(crate) fn into_noticed(self) -> Noticed {
        match self {
            Self::Open(feed) => feed.noticed,
            Self::Closed(_) => Noticed::default(),
            Self::Visits(feed) => feed.noticed,
        }
    }
}

impl Noticed {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.delay.merge(&other.delay);
        self.after_end += other.after_end;
    }
}

impl OpenFeed {
    fn peek(&mut self) -> Option<(u64, Time)> {
        let &(number, time) = self.share.peek()?;
        (number < self.bounds.requests && time < self.bounds.end).then_some((number, time))
    }

    fn notice(&mut self, now: Time) {
        while let Some((number, time)) = self.peek() {
            if time > now {
                break;
            }
            if self.ready.len() >= self.bounds.ready {
                self.blocked = true;
                return;
            }
            self.share.next();
            self.ready.push_back((number, time));
            if !self.blocked && time >= self.bounds.measured_from {
                self.noticed.delay.record(now.nanos_since(time));
                self.noticed.after_end += u64::from(now > self.bounds.end);
            }
        }
        self.blocked = false;
    }
}

impl ClosedFeed {
    fn is_over(&self, now: Time) -> bool {
        self.next >= self.bounds.requests || now >= self.bounds.end
    }
}

#[cfg(test)]
mod tests {
    use gatewright_workload::Strategy;

    use super::*;

    fn millis(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn feed(strategy: Strategy, limits: Limits, ready: usize) -> Feed {
        Feed::new(strategy.pacing(1, 0), 0, 1, Bounds::of(&limits, Time::ZERO, ready))
    }

    fn numbers(feed: &mut Feed, now: Time) -> Vec<u64> {
        std::iter::from_fn(|| feed.take(now)).map(|due| due.number).collect()
    }

    #[test]
    fn open_feed_gives_what_is_due_and_no_more() {
        let limits = Limits { duration: Some(Duration::from_millis(5)), ..Limits::default() };
        let mut feed = feed(Strategy::Constant { rate: 1_000.0 }, limits, 100);
        feed.notice(millis(2));
        assert_eq!(numbers(&mut feed, millis(2)), [0, 1, 2]);
        assert_eq!(feed.next_due(), Some(millis(3)));
        feed.notice(millis(50));
        assert_eq!(feed.oldest(), Some(millis(3)));
        assert_eq!(numbers(&mut feed, millis(50)), [3, 4]);
        assert!(feed.is_over(millis(50)));
        let noticed = feed.into_noticed();
        assert_eq!((noticed.delay.count(), noticed.delay.max()), (5, Some(47_000_000)));
        assert_eq!(noticed.after_end, 2);
    }

    #[test]
    fn waiting_for_connections_is_not_taken_for_noticing_late() {
        let limits = Limits { requests: Some(10), ..Limits::default() };
        let mut feed = feed(Strategy::Constant { rate: 1_000.0 }, limits, 3);
        for now in 0..6 {
            feed.notice(millis(now));
        }
        assert_eq!(feed.next_due(), None, "no timer helps a feed that waits for connections");
        assert_eq!(numbers(&mut feed, millis(6)), [0, 1, 2]);
        feed.notice(millis(100));
        assert_eq!(numbers(&mut feed, millis(100)), [3, 4, 5]);
        feed.notice(millis(100));
        feed.notice(millis(100));
        assert_eq!(numbers(&mut feed, millis(100)), [6, 7, 8]);
        feed.notice(millis(100));
        assert_eq!(numbers(&mut feed, millis(100)), [9]);
        assert!(feed.is_over(millis(100)));
        let noticed = feed.into_noticed();
        assert_eq!((noticed.delay.count(), noticed.delay.max()), (3, Some(0)));
    }

    #[test]
    fn closed_feed_gives_a_request_for_every_free_stream() {
        let limits = Limits { requests: Some(6), ..Limits::default() };
        let mut feed = feed(Strategy::Concurrent { streams: 2 }, limits, 2);
        assert_eq!(numbers(&mut feed, millis(0)), [0, 1]);
        feed.ended(Turn::default(), millis(1));
        assert_eq!(feed.ready(millis(1)), 1);
        assert_eq!(numbers(&mut feed, millis(1)), [2]);
        feed.ended_unconnected(Turn::default(), millis(1));
        assert_eq!(feed.ready(millis(1)), 0);
        assert_eq!(feed.next_due(), Some(millis(11)));
        feed.notice(millis(11));
        assert_eq!(numbers(&mut feed, millis(11)), [3]);
        feed.ended(Turn::default(), millis(1));
        feed.ended(Turn::default(), millis(1));
        assert_eq!(numbers(&mut feed, millis(11)), [4, 5]);
        feed.ended(Turn::default(), millis(1));
        assert_eq!(feed.ready(millis(11)), 0, "no connection is needed for what is not asked");
        assert!(feed.is_over(millis(11)));
    }

    #[test]
    fn a_feed_that_is_stopped_gives_no_more() {
        let limits = Limits { requests: Some(6), ..Limits::default() };
        let mut feed = feed(Strategy::Concurrent { streams: 2 }, limits, 2);
        feed.stop(millis(12));
        assert!(numbers(&mut feed, millis(12)).is_empty());
        assert!(feed.is_over(millis(12)));
    }

    #[test]
    fn threads_share_the_streams_and_the_numbers() {
        let limits = Limits { requests: Some(10), ..Limits::default() };
        let bounds = Bounds::of(&limits, Time::ZERO, 8);
        let mut taken = Vec::new();
        let mut streams = 0;
        for nth in 0..3 {
            let mut feed = Feed::new(Pacing::Closed { streams: 8 }, nth, 3, bounds);
            streams += feed.ready(Time::ZERO);
            while let Some(due) = feed.take(Time::ZERO) {
                taken.push(due.number);
                feed.ended(Turn::default(), millis(1));
            }
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
        assert_eq!(streams, 8);
    }
}
