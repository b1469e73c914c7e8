//! Replicas that stand for upstreams: which one is asked, when one is left alone, when it is tried again.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::rig::{Rig, SECOND};

use crate::adapt::{Adapt, Aimd};
use crate::balance::Balance;
use crate::config::HumanDuration;
use crate::health::{ActiveCheck, BreakerRules, EjectRules, HealthRules};
use crate::{Endpoint, Retries, Scale};
use Condition::{HalfOpen, Healthy, Open};

fn upstreams(count: u32, health: HealthRules) -> Deployment {
    let endpoint = |n| Endpoint { url: format!("http://upstream-{n}"), weight: 1 };
    Deployment {
        name: "o".to_owned(),
        scale: Scale { min: count, max: count },
        endpoints: (0..count).map(endpoint).collect(),
        concurrency: None,
        balance: Balance::RoundRobin,
        retries: Retries { attempts: 1, ..Deployment::default().retries },
        health,
        ..Deployment::default()
    }
}

fn breaker() -> HealthRules {
    let rules = BreakerRules { failures: 3, ..BreakerRules::default() };
    HealthRules { breaker: Some(rules), ..HealthRules::default() }
}

/// Which endpoint a request is at.
fn place(rig: &Rig, request: RequestKey) -> usize {
    rig.system.replica(rig.work[&request]).unwrap().endpoint
}

fn again(after: Option<Duration>) -> Outcome {
    Outcome::Again { after, busy: false }
}

#[test]
fn each_endpoint_has_a_replica() {
    let (mut rig, key) = Rig::with(3, upstreams(3, HealthRules::default()));
    let places = |rig: &Rig| -> Vec<_> {
        rig.system.discover(key).map(|replica| replica.endpoint).collect()
    };
    assert_eq!(places(&rig), [0, 1, 2]);
    rig.operate(Act::Reload { function: "o".to_owned() });
    for _ in 0..10 {
        rig.ready_all();
        rig.stop_all();
    }
    let mut after = places(&rig);
    after.sort_unstable();
    assert_eq!(after, [0, 1, 2], "also after a reload");
}

#[test]
fn another_attempt_goes_to_another_upstream() {
    let deployment = upstreams(2, HealthRules::default());
    let retries = Retries { attempts: 2, ..deployment.retries };
    for balance in Balance::all() {
        let (mut rig, key) = Rig::with(2, Deployment { retries, balance, ..deployment.clone() });
        for _ in 0..20 {
            let request = rig.invoke(key);
            let first = place(&rig, request);
            rig.finish(request, again(None));
            assert_eq!(place(&rig, request), 1 - first);
            rig.finish(request, Outcome::Ok);
        }
    }
}

#[test]
fn another_attempt_waits_as_long_as_the_upstream_wants_if_there_is_time() {
    let deployment = upstreams(1, HealthRules::default());
    let retries = Retries { attempts: 2, ..deployment.retries };
    let (mut rig, key) = Rig::with(1, Deployment { retries, ..deployment });
    let request = rig.invoke(key);
    rig.finish(request, again(Some(3 * SECOND)));
    rig.pass(SECOND * 2);
    assert!(!rig.work.contains_key(&request));
    rig.pass(SECOND);
    assert!(rig.work.contains_key(&request));
    rig.finish(request, Outcome::Ok);
    let hopeless = rig.invoke(key);
    rig.finish(hopeless, again(Some(31 * SECOND)));
    assert_eq!(rig.ended[&hopeless], End::Error, "at once");
}

#[test]
fn what_ends_at_an_open_breaker_makes_no_room() {
    let (mut rig, key) = Rig::with(1, upstreams(1, breaker()));
    let hanging: Vec<_> = (0..10).map(|_| rig.invoke(key)).collect();
    for request in &hanging[..3] {
        rig.finish(*request, Outcome::Unavailable);
    }
    for request in &hanging[3..] {
        rig.finish(*request, Outcome::Unavailable);
        let refused = rig.invoke(key);
        assert_eq!(rig.ended[&refused], End::Shed(Shed::Unavailable));
    }
}

#[test]
fn a_breaker_opens_refuses_and_closes() {
    let (mut rig, key) = Rig::with(1, upstreams(1, breaker()));
    let waiting = rig.invoke(key);
    for _ in 0..3 {
        let request = rig.invoke(key);
        rig.finish(request, Outcome::Unavailable);
        assert_eq!(rig.ended[&request], End::Error);
    }
    let refused = rig.invoke(key);
    assert_eq!(rig.ended[&refused], End::Shed(Shed::Unavailable));
    assert_eq!(rig.system.function(key).unwrap().expected_wait, 5 * SECOND);
    rig.pass(5 * SECOND);
    rig.finish(waiting, Outcome::Unavailable);
    let probe = rig.invoke(key);
    assert!(rig.work.contains_key(&probe), "one is let through");
    let other = rig.invoke(key);
    assert_eq!(rig.ended[&other], End::Shed(Shed::Unavailable), "and no other, nor does it wait");
    rig.finish(probe, Outcome::Ok);
    let changes: Vec<_> = rig
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::HealthChanged { from, to, .. } => Some((*from, *to)),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [(Healthy, Open), (Open, HalfOpen), (HalfOpen, Healthy)]);
    let request = rig.invoke(key);
    assert!(rig.work.contains_key(&request));
}

#[test]
fn an_answer_that_does_not_come_counts_as_a_failure() {
    let deployment = Deployment { timeout: SECOND, ..upstreams(1, breaker()) };
    let (mut rig, key) = Rig::with(1, deployment);
    let requests: Vec<_> = (0..3).map(|_| rig.invoke(key)).collect();
    rig.pass(SECOND);
    let refused = rig.invoke(key);
    assert_eq!(rig.ended[&refused], End::Shed(Shed::Unavailable));
    requests.into_iter().for_each(|request| rig.finish(request, Outcome::Error));
    rig.pass(5 * SECOND);
    let probe = rig.invoke(key);
    assert!(rig.work.contains_key(&probe));
}

#[test]
fn an_outlier_is_left_out_and_comes_back() {
    let rules = EjectRules { consecutive_failures: 2, ..EjectRules::default() };
    let health = HealthRules { eject: Some(rules), ..HealthRules::default() };
    let (mut rig, key) = Rig::with(3, upstreams(3, health));
    let round = |rig: &mut Rig, bad: &[usize]| -> Vec<usize> {
        (0..12)
            .map(|_| {
                let request = rig.invoke(key);
                let at = place(rig, request);
                let outcome = if bad.contains(&at) { Outcome::Unavailable } else { Outcome::Ok };
                rig.finish(request, outcome);
                at
            })
            .collect()
    };
    round(&mut rig, &[1]);
    assert!(!round(&mut rig, &[1]).contains(&1));
    round(&mut rig, &[1, 2]);
    assert!(round(&mut rig, &[2]).contains(&2), "not more than half of three");
    rig.pass(31 * SECOND);
    assert!(round(&mut rig, &[]).contains(&1));
}

#[test]
fn the_one_with_the_fewest_good_answers_is_left_out() {
    let rules = EjectRules {
        consecutive_errors: 0,
        consecutive_failures: 0,
        success_volume: 10,
        ..EjectRules::default()
    };
    let health = HealthRules { eject: Some(rules), ..HealthRules::default() };
    let (mut rig, key) = Rig::with(6, upstreams(6, health));
    for number in 0..240 {
        let request = rig.invoke(key);
        let bad = place(&rig, request) == 4 && number % 2 == 0;
        rig.finish(request, if bad { Outcome::Error } else { Outcome::Ok });
    }
    rig.pass(10 * SECOND);
    let ejected: Vec<_> = rig
        .system
        .discover(key)
        .filter(|replica| replica.condition == Condition::Ejected)
        .collect();
    assert_eq!(ejected.iter().map(|replica| replica.endpoint).collect::<Vec<_>>(), [4]);
}

#[test]
fn checks_are_asked_for_and_believed() {
    let check = ActiveCheck { interval: HumanDuration::from_secs(1), ..ActiveCheck::default() };
    let health = HealthRules { check: Some(check), ..HealthRules::default() };
    let (mut rig, key) = Rig::with(2, upstreams(2, health));
    let seconds = |rig: &mut Rig, count: u32, well: bool| {
        for _ in 0..count {
            rig.log.clear();
            rig.pass(SECOND);
            let asked: Vec<_> = rig
                .log
                .iter()
                .filter_map(|effect| match effect {
                    Effect::Probe { replica, .. } => Some(*replica),
                    _ => None,
                })
                .collect();
            for replica in asked {
                let well = well || rig.system.replica(replica).unwrap().endpoint != 0;
                rig.handle(Event::Probed { replica, well });
            }
        }
    };
    seconds(&mut rig, 6, false);
    for _ in 0..4 {
        let request = rig.invoke(key);
        assert_eq!(place(&rig, request), 1);
    }
    seconds(&mut rig, 4, true);
    let places: Vec<_> = (0..2)
        .map(|_| {
            let request = rig.invoke(key);
            place(&rig, request)
        })
        .collect();
    assert!(places.contains(&0));
}

/// What a check says of a replica that goes is not counted any more.
#[test]
fn checks_of_replicas_that_go_count_for_nothing() {
    let check = ActiveCheck { interval: HumanDuration::from_secs(1), ..ActiveCheck::default() };
    let health = HealthRules { check: Some(check), ..HealthRules::default() };
    let scale = Scale { min: 0, max: 1 };
    let (mut rig, key) = Rig::with(1, Deployment { scale, ..upstreams(1, health) });
    let request = rig.invoke(key);
    assert_eq!(place(&rig, request), 0);
    let replica = rig.system.discover(key).next().unwrap().key;
    rig.operate(Act::Suspend { function: "o".to_owned() });
    for _ in 0..9 {
        rig.handle(Event::Probed { replica, well: false });
    }
    assert_eq!(rig.system.function(key).unwrap().running, 0);
    rig.system.check_invariants().unwrap();
}

#[test]
fn a_learned_limit_makes_requests_wait() {
    let adapt = Adapt::Aimd(Aimd { initial: 4, min: 1, ..Aimd::default() });
    let deployment = Deployment { adapt: Some(adapt), ..upstreams(1, HealthRules::default()) };
    let (mut rig, key) = Rig::with(1, deployment);
    let requests: Vec<_> = (0..6).map(|_| rig.invoke(key)).collect();
    assert_eq!(rig.work.len(), 4);
    rig.finish(requests[0], Outcome::Ok);
    assert_eq!(rig.work.len(), 5, "one more than before");
    rig.finish(requests[1], Outcome::Busy);
    assert_eq!((rig.work.len(), rig.system.discover(key).next().unwrap().limit), (4, Some(4)));
}

proptest! {
    /// Whatever upstreams do, every request ends, none later than its deadline, and nothing is miscounted.
    #[test]
    fn no_request_waits_beyond_its_deadline(
        steps in prop::collection::vec((0u8..9, 0usize..20), 1..200),
        attempts in 1u32..4,
        adapts in any::<bool>(),
    ) {
        let rules = BreakerRules { failures: 2, probes: 2, ..BreakerRules::default() };
        let eject = EjectRules { consecutive_failures: 2, ..EjectRules::default() };
        let check = ActiveCheck { unhealthy: 1, healthy: 1, ..ActiveCheck::default() };
        let health = HealthRules { breaker: Some(rules), eject: Some(eject), check: Some(check) };
        let deployment = upstreams(3, health);
        let adapt = Adapt::Aimd(Aimd { initial: 2, min: 1, ..Aimd::default() });
        let retries = Retries { attempts, ..deployment.retries };
        let (mut rig, key) = Rig::with(3, Deployment { retries, adapt: adapts.then_some(adapt), ..deployment });
        let mut due = Vec::new();
        for (what, which) in steps {
            let at_work: Vec<_> = rig.work.keys().copied().collect();
            let one = at_work.get(which % at_work.len().max(1)).copied();
            let replica = rig.system.discover(key).nth(which % 3).map(|replica| replica.key);
            match (what, one, replica) {
                (0..=2, ..) => due.push((rig.now + 30 * SECOND, rig.invoke(key))),
                (3, Some(request), _) => rig.finish(request, Outcome::Ok),
                (4, Some(request), _) => rig.finish(request, Outcome::Unavailable),
                (5, Some(request), _) => rig.finish(request, again(Some(which as u32 * SECOND))),
                (6, Some(request), _) => rig.finish(request, Outcome::NotStarted),
                (7, _, Some(replica)) => rig.handle(Event::Probed { replica, well: which % 2 == 0 }),
                _ => rig.pass(SECOND / 2 * which as u32),
            }
            for (deadline, request) in &due {
                prop_assert!(*deadline > rig.now || rig.ended.contains_key(request));
            }
        }
    }
}
