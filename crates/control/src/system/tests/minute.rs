//! An upstream that is sick for a minute, behind a breaker and a cache that keeps what is stale: a client that asks
//! ten times a second, in virtual time.

use std::time::Duration;

use super::super::*;
use super::rig::{Rig, SECOND};

use crate::cache::{
    CachePolicy, Exchange, Failure, Found, Moment, Plan, Request, StoredResponse, Storing, Target,
    WallAnchor, decide, on_failure, storing,
};
use crate::config::HumanDuration;
use crate::health::{BreakerRules, HealthRules};
use crate::{Endpoint, Retries, Scale};
use Condition::{HalfOpen, Healthy, Open};

const TICK: Duration = Duration::from_millis(100);
/// How long a request may take, and how long one attempt goes on without an answer.
const DEADLINE: Duration = Duration::from_secs(2);
const HEAD: Duration = Duration::from_secs(1);
const FRESH: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(40);
/// When it is sick, in seconds.
const SICK: std::ops::Range<u64> = 30..90;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sickness {
    /// It answers 500.
    Errors,
    /// Its connections break.
    Resets,
    /// It says nothing.
    Hangs,
    /// It is well every other second.
    Flaps,
}

/// What a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Fresh,
    /// So long after it was fresh.
    Stale(Duration),
    Error,
}

struct World {
    rig: Rig,
    function: FunctionKey,
    sickness: Sickness,
    policy: CachePolicy,
    stored: Vec<StoredResponse>,
    /// Requests at the upstream, and since when.
    waiting: Vec<(RequestKey, Time)>,
    /// When it was asked, when it was answered, and with what.
    answers: Vec<(Time, Time, Got)>,
    attempts: Vec<Time>,
}

impl World {
    fn new(sickness: Sickness) -> Self {
        let rules = BreakerRules {
            failures: 3,
            max_open: HumanDuration::from_secs(20),
            ..BreakerRules::default()
        };
        let endpoint = Endpoint { url: "http://sick".to_owned(), weight: 1 };
        let (rig, function) = Rig::with(
            1,
            Deployment {
                name: "o".to_owned(),
                scale: Scale { min: 1, max: 1 },
                endpoints: vec![endpoint],
                concurrency: None,
                timeout: DEADLINE,
                retries: Retries { attempts: 1, ..Deployment::default().retries },
                health: HealthRules { breaker: Some(rules), ..HealthRules::default() },
                ..Deployment::default()
            },
        );
        let policy = CachePolicy {
            ttl: Some(HumanDuration::new(FRESH)),
            stale_if_error: Some(HumanDuration::new(STALE)),
            ..CachePolicy::default()
        };
        let (stored, waiting, answers, attempts) = Default::default();
        Self { rig, function, sickness, policy, stored, waiting, answers, attempts }
    }

    fn seconds(&self) -> u64 {
        self.rig.now.as_nanos() / 1_000_000_000
    }

    fn is_well(&self) -> bool {
        let flapping = self.sickness == Sickness::Flaps && self.seconds().is_multiple_of(2);
        flapping || !SICK.contains(&self.seconds())
    }

    fn moment(&self) -> Moment {
        let anchor = WallAnchor { unix_nanos_at_start: 1_795_219_200_000_000_000 };
        Moment { now: self.rig.now, anchor }
    }

    /// A client asks.
    fn ask(&mut self) {
        let now = self.rig.now;
        let none: [(&str, &str); 0] = [];
        let request = Request::read("GET", &none[..], &self.policy);
        let found = Found { variants: &self.stored, fetching: false, uncacheable: false };
        if let Plan::Serve(_) = decide(&request, &found, self.moment()) {
            let stale = self.stored[0].stale_for(now);
            let got = if stale.is_zero() { Got::Fresh } else { Got::Stale(stale) };
            self.answers.push((now, now, got));
            return;
        }
        let request = self.rig.invoke(self.function);
        if self.rig.work.contains_key(&request) {
            self.attempts.push(now);
            self.waiting.push((request, now));
        } else {
            assert_eq!(self.rig.ended[&request], End::Shed(Shed::Unavailable));
            self.failed(now, Failure::Connect);
        }
    }

    /// The upstream does what it does.
    fn answer(&mut self) {
        for (request, began) in std::mem::take(&mut self.waiting) {
            let hangs = self.sickness == Sickness::Hangs
                && SICK.contains(&(began.as_nanos() / 1_000_000_000));
            if hangs && self.rig.now < began + HEAD {
                self.waiting.push((request, began));
            } else if hangs || (!self.is_well() && self.sickness == Sickness::Resets) {
                self.rig.finish(request, Outcome::Unavailable);
                self.failed(began, if hangs { Failure::Timeout } else { Failure::Broken });
            } else if self.is_well() {
                self.rig.finish(request, Outcome::Ok);
                self.keep();
                self.answers.push((began, self.rig.now, Got::Fresh));
            } else {
                self.rig.finish(request, Outcome::Error);
                self.failed(began, Failure::Status(500));
            }
        }
    }

    fn failed(&mut self, asked: Time, failure: Failure) {
        let none: [(&str, &str); 0] = [];
        let request = Request::read("GET", &none[..], &self.policy);
        let stored = &self.stored[0];
        let stale = on_failure(&request, 0, stored, failure, self.moment());
        let late = stored.stale_for(self.rig.now);
        let got = stale.map_or(Got::Error, |_| Got::Stale(late));
        self.answers.push((asked, self.rig.now, got));
    }

    fn keep(&mut self) {
        let none: [(&str, &str); 0] = [];
        let request = Request::read("GET", &none[..], &self.policy);
        let exchange = Exchange {
            request: &request,
            target: Target { scheme: "http", authority: "h", path: "/", query: None },
            status: 200,
            response: &none[..],
            sent: self.rig.now,
            received: self.rig.now,
            anchor: self.moment().anchor,
        };
        let Storing::Store { stored, .. } = storing(&exchange, &self.policy) else {
            panic!("it says nothing against it");
        };
        self.stored = vec![*stored];
    }

    /// Two minutes and a half of it.
    fn live(mut self) -> Self {
        while self.seconds() < 150 {
            self.ask();
            self.rig.pass(TICK);
            self.answer();
        }
        self
    }

    fn changes(&self) -> Vec<(Condition, Condition)> {
        let changes = self.rig.log.iter().filter_map(|effect| match effect {
            Effect::HealthChanged { from, to, .. } => Some((*from, *to)),
            _ => None,
        });
        changes.collect()
    }
}

#[test]
fn a_minute_of_sickness_is_hidden_as_long_as_it_may_be() {
    use Sickness::{Errors, Flaps, Hangs, Resets};
    for sickness in [Errors, Resets, Hangs, Flaps] {
        let world = World::new(sickness).live();
        assert!(world.answers.len() >= 1_490, "{sickness:?}: every request was answered");
        for &(asked, answered, got) in &world.answers {
            assert!(answered - asked <= DEADLINE, "{sickness:?}: {asked:?} waited");
            let second = asked.as_nanos() / 1_000_000_000;
            match got {
                Got::Fresh => {}
                Got::Stale(late) => assert!(late < STALE, "{sickness:?}: beyond its window"),
                Got::Error => assert!(
                    (SICK.start + 40..SICK.end + 21).contains(&second) && sickness != Flaps,
                    "{sickness:?}: an error at {second} s, where something stale would do"
                ),
            }
            // The breaker lets a probe through at the latest `max_open` after it is well.
            assert!(
                second < SICK.end + 22 || got == Got::Fresh,
                "{sickness:?}: {got:?} at {second} s"
            );
        }
        let errors = world.answers.iter().filter(|(_, _, got)| *got == Got::Error).count();
        assert_eq!(errors > 0, sickness != Flaps, "{sickness:?}: the window has an end");
    }
}

#[test]
fn a_minute_of_sickness_is_left_to_the_breaker() {
    use Sickness::{Errors, Hangs, Resets};
    for sickness in [Errors, Resets, Hangs] {
        let world = World::new(sickness).live();
        let changes = world.changes();
        assert_eq!(changes.first(), Some(&(Healthy, Open)), "{sickness:?}");
        assert_eq!(changes.last(), Some(&(HalfOpen, Healthy)), "{sickness:?}");
        assert!(changes[1..changes.len() - 1].iter().all(|(from, _)| *from != Healthy));
        let sick = |at: &&Time| SICK.contains(&(at.as_nanos() / 1_000_000_000));
        let attempts = world.attempts.iter().filter(sick).count();
        // Three that open it, or as many as come before the first of them is late; then a probe now and then.
        let most = if sickness == Hangs { 13 + 6 } else { 3 + 6 };
        assert!((4..=most).contains(&attempts), "{sickness:?}: asked {attempts} times");
        assert!(world.rig.work.is_empty() && world.rig.now >= Time::ZERO + 150 * SECOND);
    }
}
