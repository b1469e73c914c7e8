use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;

use gatewright_determinism::Time;
use gatewright_workload::{SessionStarts, Sessions};

use crate::feed::{Bounds, Due, Noticed, Turn};

/// A thread's part of the sessions: users who come, ask, think and ask again.
#[derive(Debug)]
pub(crate) struct VisitFeed {
    sessions: Sessions,
    starts: Peekable<SessionStarts>,
    /// Users who will ask again, and when.
    thinking: BinaryHeap<Reverse<(Time, Turn)>>,
    ready: VecDeque<(Time, Turn)>,
    /// Requests that were taken and have not ended.
    pub(crate) waiting: u64,
    /// Number of the next request.
    next: u64,
    step: u64,
    pub(crate) bounds: Bounds,
    blocked: bool,
    pub(crate) noticed: Noticed,
}

impl VisitFeed {
    pub(crate) fn new(sessions: Sessions, nth: u32, of: u32, bounds: Bounds) -> Self {
        Self {
            starts: sessions.starts(nth, of).peekable(),
            sessions,
            thinking: BinaryHeap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            next: u64::from(nth),
            step: u64::from(of),
            bounds,
            blocked: false,
            noticed: Noticed::default(),
        }
    }

    /// The next moment at which somebody asks, as far as it is known.
    fn next(&mut self) -> Option<Time> {
        let start = self.starts.peek().map(|&(_, at)| at);
        let again = self.thinking.peek().map(|Reverse((at, _))| *at);
        let next = start.into_iter().chain(again).min()?;
        let left = self.next + self.ready.len() as u64 * self.step < self.bounds.requests;
        (left && next < self.bounds.end).then_some(next)
    }

    pub(crate) fn next_due(&mut self) -> Option<Time> {
        if self.blocked { None } else { self.next() }
    }

    pub(crate) fn notice(&mut self, now: Time) {
        while let Some(at) = self.next().filter(|at| *at <= now) {
            if self.ready.len() >= self.bounds.ready {
                self.blocked = true;
                return;
            }
            let again = self.thinking.peek().is_some_and(|Reverse((again, _))| *again == at);
            let turn = if again {
                self.thinking.pop().map(|Reverse((_, turn))| turn)
            } else {
                self.starts.next().map(|(session, _)| Turn { session, number: 0 })
            };
            self.ready.extend(turn.map(|turn| (at, turn)));
            if !self.blocked && at >= self.bounds.measured_from {
                self.noticed.delay.record(now.nanos_since(at));
                self.noticed.after_end += u64::from(now > self.bounds.end);
            }
        }
        self.blocked = false;
    }

    /// Sessions of which more requests may come.
    pub(crate) fn going_on(&self) -> usize {
        self.thinking.len() + self.ready.len() + self.waiting as usize
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn take(&mut self) -> Option<Due> {
        let (at, turn) = self.ready.pop_front()?;
        let number = self.next;
        self.next += self.step;
        self.waiting += 1;
        Some(Due { number, scheduled: Some(at), turn })
    }

    /// A request has ended; whether its session goes on.
    pub(crate) fn ended(&mut self, turn: Turn, now: Time) -> bool {
        self.waiting -= 1;
        let number = turn.number;
        let next = self.sessions.next_turn(turn.session, number, now);
        if let Some(at) = next {
            self.thinking.push(Reverse((at, Turn { number: number + 1, ..turn })));
        }
        next.is_some()
    }

    /// A request has ended, and its session with it.
    pub(crate) fn left(&mut self) {
        self.waiting -= 1;
    }

    pub(crate) fn oldest(&self) -> Option<Time> {
        self.ready.front().map(|&(at, _)| at)
    }

    /// Nobody asks any more; those whose answers are awaited may still go on.
    pub(crate) fn is_over(&mut self, now: Time) -> bool {
        let comes = self.next().is_some();
        let may_go_on = self.waiting > 0 && now < self.bounds.end;
        self.ready.is_empty() && !comes && !may_go_on
    }

    /// Whether there would be nothing more without any limit.
    pub(crate) fn is_dry(&mut self) -> bool {
        self.starts.peek().is_none() && self.thinking.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatewright_workload::{Limits, Pacing, Strategy, Think};

    use super::*;

    #[test]
    fn a_user_asks_again_after_thinking() {
        let think = Think { mean: Duration::from_millis(10), cv: 0.0 };
        let strategy = Strategy::Users { users: 2, think, ramp_up: Duration::from_millis(4) };
        let Pacing::Sessions(sessions) = strategy.pacing(1, 0) else { panic!("no sessions") };
        let limits = Limits { requests: Some(3), ..Limits::default() };
        let mut feed = VisitFeed::new(sessions, 0, 1, Bounds::of(&limits, Time::ZERO, 8));
        let millis = |millis: u64| Time::from_nanos(millis * 1_000_000);
        feed.notice(millis(1));
        let first = feed.take().unwrap();
        assert_eq!((first.number, first.scheduled, feed.take()), (0, Some(millis(0)), None));
        assert_eq!(feed.next_due(), Some(millis(2)));
        feed.notice(millis(5));
        assert_eq!(feed.take().unwrap().turn.session, 1);
        assert_eq!(feed.next_due(), None, "both wait for answers");
        assert!(!feed.is_over(millis(6)));
        feed.ended(first.turn, millis(7));
        assert_eq!(feed.next_due(), Some(millis(17)));
        feed.notice(millis(18));
        let again = feed.take().unwrap();
        assert_eq!(
            (again.number, again.turn, again.scheduled),
            (2, Turn { session: 0, number: 1 }, Some(millis(17)))
        );
        assert_eq!(feed.next_due(), None);
    }
}
