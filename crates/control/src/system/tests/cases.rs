//! What happens in one situation each.

use super::super::*;
use super::rig::{Rig, SECOND, function};
use crate::autoscale::{Autoscale, Kpa};
use crate::{Batch, Retries, Scale};

#[test]
fn a_request_is_dispatched_answered_and_counted() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let request = rig.invoke(key);
    assert!(rig.work.contains_key(&request));
    rig.finish(request, Outcome::Ok);
    assert_eq!(rig.ended[&request], End::Ok);
    assert_eq!(rig.view(key).totals.ok, 1);
    assert_eq!(rig.system.active_requests(), 0);
    assert_eq!(rig.system.next_wakeup(), None);
}

#[test]
fn who_comes_first_is_served_first() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let requests: Vec<_> = (0..5).map(|_| rig.invoke(key)).collect();
    for request in requests {
        assert_eq!(rig.work.keys().copied().collect::<Vec<_>>(), [request]);
        rig.finish(request, Outcome::Ok);
    }
}

#[test]
fn a_full_queue_sheds() {
    let (mut rig, key) = Rig::with(1, Deployment { queue_capacity: 2, ..function("f") });
    let requests: Vec<_> = (0..4).map(|_| rig.invoke(key)).collect();
    assert_eq!(rig.ended, BTreeMap::from([(requests[3], End::Shed(Shed::QueueFull))]));
}

#[test]
fn a_deadline_ends_what_waits_and_abandons_what_runs() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let running = rig.invoke(key);
    let waiting = rig.invoke(key);
    rig.pass(29 * SECOND);
    let late = rig.invoke(key);
    assert!(rig.ended.is_empty());
    rig.pass(SECOND);
    assert_eq!(rig.ended[&running], End::TimedOut);
    assert_eq!(rig.ended[&waiting], End::TimedOut);
    assert!(
        rig.log.iter().any(|e| matches!(e, Effect::Abandon { request, .. } if *request == running))
    );
    // The slot is free only when the replica says so.
    assert!(!rig.work.contains_key(&late));
    rig.finish(running, Outcome::Ok);
    assert!(rig.work.contains_key(&late));
    assert_eq!(rig.view(key).totals.ok, 0);
}

#[test]
fn a_client_may_ask_for_less_time_but_not_for_more() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let mut invoke = |timeout| {
        let mut effects = Vec::new();
        let invoke = Invoke {
            function: key,
            id: 0,
            timeout: Some(timeout),
            urgency: URGENCY_DEFAULT,
            key: 0,
            tag: 0,
        };
        let request = rig.system.invoke(rig.now, invoke, &mut effects);
        rig.open.insert(request);
        rig.take(effects);
        request
    };
    let (short, long) = (invoke(SECOND), invoke(500 * SECOND));
    rig.pass(SECOND);
    assert_eq!(rig.ended.keys().copied().collect::<Vec<_>>(), [short]);
    rig.pass(29 * SECOND);
    assert!(rig.ended.contains_key(&long));
}

#[test]
fn a_cancelled_request_in_the_queue_never_starts() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let running = rig.invoke(key);
    let cancelled = rig.invoke(key);
    let next = rig.invoke(key);
    rig.handle(Event::Cancel { request: cancelled });
    rig.finish(running, Outcome::Ok);
    assert!(rig.work.contains_key(&next));
    assert_eq!(rig.ended[&cancelled], End::Cancelled);
}

#[test]
fn a_lost_replica_is_replaced_and_its_request_tried_again_before_later_ones() {
    let (mut rig, key) = Rig::with(2, function("f"));
    let (a, b, c) = (rig.invoke(key), rig.invoke(key), rig.invoke(key));
    rig.pass(2 * SECOND);
    rig.lose(rig.work[&a], Loss::Died);
    assert_eq!(rig.starting.len(), 1, "replaced at once");
    rig.finish(b, Outcome::Ok);
    assert!(rig.work.contains_key(&a), "it has waited longer than {c:?}");
    rig.lose(rig.work[&a], Loss::Died);
    assert_eq!(rig.ended[&a], End::Lost, "two attempts are allowed");
    assert_eq!(rig.view(key).totals.retries, 1);
}

#[test]
fn nothing_is_run_twice_with_one_attempt() {
    let retries = Retries { attempts: 1, ..Deployment::default().retries };
    let (mut rig, key) = Rig::with(2, Deployment { retries, ..function("f") });
    let request = rig.invoke(key);
    rig.lose(rig.work[&request], Loss::Died);
    assert_eq!(rig.ended[&request], End::Lost);
}

#[test]
fn replicas_that_keep_failing_are_started_ever_more_rarely_and_requests_refused() {
    let mut rig = Rig::new();
    let key = rig.deploy(function("f"));
    let waiting = rig.invoke(key);
    let mut starts = Vec::new();
    for _ in 0..5 {
        let replica = rig.starting[0];
        starts.push(rig.now.as_secs_f64());
        rig.lose(replica, Loss::StartFailed);
        let due = rig.system.next_wakeup().unwrap();
        rig.pass(due - rig.now);
    }
    assert_eq!(starts, [0.0, 0.5, 1.5, 3.5, 7.5]);
    assert_eq!(rig.ended[&waiting], End::Shed(Shed::Unavailable));
    let refused = rig.invoke(key);
    assert_eq!(rig.ended[&refused], End::Shed(Shed::Unavailable));
    rig.ready_all();
    let taken = rig.invoke(key);
    assert!(rig.work.contains_key(&taken));
}

#[test]
fn scale_stays_within_its_bounds_while_replicas_are_pending() {
    let mut rig = Rig::new();
    let key = rig.deploy(Deployment { scale: Scale { min: 2, max: 20 }, ..function("f") });
    for _ in 0..31 {
        rig.operate(Act::ScaleUp { function: "f".into(), by: 1 });
    }
    assert_eq!(rig.starting.len(), 20);
    rig.ready_all();
    assert_eq!(rig.operate(Act::ScaleDown { function: "f".into(), by: 12 }), 8);
    assert_eq!(rig.operate(Act::ScaleDown { function: "f".into(), by: 4 }), 4);
    assert_eq!(rig.system.discover(key).count(), 4);
    assert_eq!(rig.operate(Act::ScaleDown { function: "f".into(), by: 400 }), 2);
}

#[test]
fn draining_finishes_what_was_taken() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let running = rig.invoke(key);
    rig.operate(Act::Suspend { function: "f".into() });
    assert!(rig.stopping.is_empty());
    rig.finish(running, Outcome::Ok);
    assert_eq!(rig.stopping.len(), 1);
    rig.stop_all();
    assert_eq!(rig.system.replicas(key, None).count(), 0);
}

#[test]
fn at_zero_a_request_wakes_the_function_and_is_served() {
    let scale = Scale { min: 0, max: 3 };
    let mut rig = Rig::new();
    let key = rig.deploy(Deployment { scale, ..function("f") });
    assert!(rig.starting.is_empty());
    let request = rig.invoke(key);
    assert_eq!(rig.starting.len(), 1);
    rig.ready_all();
    let cold = Effect::Dispatch {
        request,
        tag: 0,
        replica: rig.work[&request],
        attempt: 1,
        in_flight: 1,
        cold: true,
        batch_left: 0,
    };
    assert!(rig.log.contains(&cold));
}

#[test]
fn a_suspended_function_comes_back_with_its_minimum() {
    let (mut rig, key) = Rig::with(2, function("f"));
    rig.operate(Act::Suspend { function: "f".into() });
    rig.stop_all();
    assert_eq!(rig.view(key).desired, 0);
    rig.invoke(key);
    assert_eq!(rig.starting.len(), 2);
}

#[test]
fn remove_leaves_nothing_and_frees_the_name() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let running = rig.invoke(key);
    let waiting = rig.invoke(key);
    rig.operate(Act::Remove { function: "f".into() });
    assert_eq!(rig.ended[&waiting], End::Shed(Shed::Removed));
    rig.finish(running, Outcome::Ok);
    assert_eq!(rig.ended[&running], End::Ok);
    rig.stop_all();
    assert!(rig.log.contains(&Effect::Removed { function: key }));
    let late = rig.invoke(key);
    assert_eq!(rig.ended[&late], End::Shed(Shed::Removed));
    assert_ne!(rig.deploy(function("f")), key);
}

#[test]
fn who_joins_serves_beside_those_wanted_until_the_function_is_removed() {
    let mut rig = Rig::new();
    let key = rig.deploy(Deployment { scale: Scale { min: 0, max: 0 }, ..function("f") });
    let waiting = rig.invoke(key);
    assert!(rig.starting.is_empty() && rig.work.is_empty(), "nothing may be started for it");
    rig.handle(Event::ReplicaJoined { function: key });
    let replica = rig.work[&waiting];
    let view = rig.view(key);
    assert_eq!((view.desired, view.running, view.joined), (0, 1, 1));
    rig.operate(Act::Reload { function: "f".into() });
    assert_eq!(rig.view(key).running, 1, "nothing could take its place");
    rig.operate(Act::Remove { function: "f".into() });
    assert!(rig.stopping.is_empty(), "it finishes what it has");
    rig.finish(waiting, Outcome::Ok);
    assert_eq!((rig.stopping.as_slice(), rig.ended[&waiting]), (&[replica][..], End::Ok));
    rig.stop_all();
    assert_eq!(rig.system.join(rig.now, key, &mut Vec::new()), None);
}

#[test]
fn who_joined_and_is_lost_is_not_replaced() {
    let (mut rig, key) = Rig::with(1, function("f"));
    rig.handle(Event::ReplicaJoined { function: key });
    let joined = rig.system.discover(key).find(|view| view.joined).unwrap().key;
    let requests = [rig.invoke(key), rig.invoke(key)];
    assert!(requests.iter().any(|request| rig.work[request] == joined));
    rig.lose(joined, Loss::Died);
    let view = rig.view(key);
    assert_eq!((view.running, view.starting, view.failures, view.queued), (1, 0, 0, 1));
}

#[test]
fn operations_on_what_is_not_there_are_refused() {
    let mut rig = Rig::new();
    let mut effects = Vec::new();
    let unknown = rig.system.scale_up(Time::ZERO, "g", 1, &mut effects);
    assert_eq!(unknown, Err(OperationError::UnknownFunction("g".into())));
    rig.deploy(function("f"));
    let twice = rig.system.deploy(Time::ZERO, function("f"), &mut effects);
    assert_eq!(twice, Err(OperationError::AlreadyDeployed("f".into())));
    let scale = Scale { min: 3, max: 2 };
    let wrong = rig.system.deploy(Time::ZERO, Deployment { scale, ..function("g") }, &mut effects);
    assert!(matches!(wrong, Err(OperationError::Invalid { .. })));
    assert!(effects.is_empty());
}

#[test]
fn kpa_follows_the_load_up_and_down_to_zero() {
    let settings = Kpa { target: 1.0, ..Kpa::default() };
    let mut rig = Rig::new();
    let key = rig.deploy(Deployment {
        scale: Scale { min: 0, max: 6 },
        autoscale: Autoscale::Kpa(settings),
        timeout: 600 * SECOND,
        ..function("f")
    });
    let requests: Vec<_> = (0..10).map(|_| rig.invoke(key)).collect();
    rig.ready_all();
    rig.pass(4 * SECOND);
    assert_eq!(rig.view(key).desired, 6, "ten at once want ten, six are allowed");
    rig.ready_all();
    for request in requests {
        rig.finish(request, Outcome::Ok);
    }
    rig.pass(200 * SECOND);
    rig.stop_all();
    assert_eq!(rig.view(key).desired, 0);
    assert_eq!(rig.system.replicas(key, None).count(), 0);
}

#[test]
fn the_more_urgent_goes_first_and_equals_in_order() {
    let (mut rig, key) = Rig::with(1, function("f"));
    let mut ask = |urgency| {
        let mut effects = Vec::new();
        let invoke = Invoke { function: key, id: 0, timeout: None, urgency, key: 0, tag: 0 };
        let request = rig.system.invoke(rig.now, invoke, &mut effects);
        rig.open.insert(request);
        rig.take(effects);
        request
    };
    let [running, low, a, high, b] = [3, 7, 3, 0, 3].map(&mut ask);
    for request in [running, high, a, b, low] {
        assert_eq!(rig.work.keys().copied().collect::<Vec<_>>(), [request]);
        rig.finish(request, Outcome::Ok);
    }
}

#[test]
fn an_attempt_that_takes_too_long_costs_the_replica_its_life() {
    let (mut rig, key) =
        Rig::with(1, Deployment { max_execution: Some(5 * SECOND), ..function("f") });
    let hangs = rig.invoke(key);
    let waits = rig.invoke(key);
    let replica = rig.work[&hangs];
    rig.pass(5 * SECOND);
    assert_eq!(rig.ended[&hangs], End::TimedOut);
    assert!(rig.log.contains(&Effect::KillReplica { replica }));
    rig.ready_all();
    assert!(rig.work.contains_key(&waits));
    assert_eq!(rig.view(key).totals.replicas_lost, 1);
}

#[test]
fn abandoned_work_is_ended_after_its_grace() {
    let (mut rig, key) = Rig::with(1, Deployment { cancel_grace: Some(SECOND), ..function("f") });
    let request = rig.invoke(key);
    let replica = rig.work[&request];
    rig.handle(Event::Cancel { request });
    rig.pass(SECOND / 2);
    assert!(!rig.log.contains(&Effect::KillReplica { replica }));
    rig.pass(SECOND / 2);
    assert!(rig.log.contains(&Effect::KillReplica { replica }));
    rig.ready_all();
    assert_eq!(rig.system.active_requests(), 0);
}

#[test]
fn a_replica_that_leaves_finishes_what_it_has_and_gets_nothing_more() {
    let retries = Retries { attempts: 1, ..Deployment::default().retries };
    let (mut rig, key) = Rig::with(1, Deployment { retries, ..function("f") });
    rig.pass(SECOND);
    let request = rig.invoke(key);
    let leaving = rig.work[&request];
    rig.handle(Event::ReplicaLeaving { replica: leaving });
    let waits = rig.invoke(key);
    assert_eq!(rig.starting.len(), 1, "another is started at once");
    assert!(rig.stopping.is_empty() && !rig.work.contains_key(&waits));
    rig.finish(request, Outcome::Ok);
    assert_eq!((rig.ended[&request], rig.stopping.as_slice()), (End::Ok, &[leaving][..]));
    rig.stop_all();
    rig.ready_all();
    assert_ne!(rig.work[&waits], leaving);
    assert_eq!(rig.view(key).totals.replicas_lost, 1);
}

#[test]
fn what_a_leaving_replica_gives_back_goes_to_another_and_is_no_attempt() {
    let retries = Retries { attempts: 1, budget: 0.0, ..Deployment::default().retries };
    let (mut rig, key) = Rig::with(2, Deployment { retries, ..function("f") });
    let request = rig.invoke(key);
    let first = rig.work[&request];
    rig.finish(request, Outcome::Returned);
    let second = rig.work[&request];
    assert_ne!(first, second);
    assert_eq!(rig.stopping, [first], "it gets nothing more");
    rig.lose(first, Loss::Died);
    let totals = rig.view(key).totals;
    assert_eq!((totals.retries, totals.replicas_lost), (0, 1), "its loss counts once");
    rig.lose(second, Loss::Died);
    assert_eq!(rig.ended[&request], End::Lost, "one that had begun is lost");
}

#[test]
fn a_second_retry_pauses_and_later_ones_go_ahead() {
    let retries = Retries { attempts: 4, ..Deployment::default().retries };
    let (mut rig, key) = Rig::with(1, Deployment { retries, ..function("f") });
    let request = rig.invoke(key);
    rig.finish(request, Outcome::NotStarted);
    assert!(rig.work.contains_key(&request), "the first retry is at once");
    rig.finish(request, Outcome::NotStarted);
    assert!(!rig.work.contains_key(&request));
    let other = rig.invoke(key);
    assert!(rig.work.contains_key(&other));
    rig.finish(other, Outcome::Ok);
    rig.pass(Duration::from_millis(50));
    assert!(rig.work.contains_key(&request));
}

#[test]
fn a_batch_is_handed_over_when_full_or_when_its_first_has_waited() {
    let batch = Some(Batch { max_size: 3, max_wait: SECOND });
    let (mut rig, key) = Rig::with(1, Deployment { batch, ..function("f") });
    let first: Vec<_> = (0..3).map(|_| rig.invoke(key)).collect();
    assert_eq!(rig.work.len(), 3, "full");
    let second: Vec<_> = (0..2).map(|_| rig.invoke(key)).collect();
    let left: Vec<_> = rig
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::Dispatch { batch_left, in_flight, .. } => Some((*batch_left, *in_flight)),
            _ => None,
        })
        .collect();
    assert_eq!(left, [(2, 3), (1, 3), (0, 3)]);
    rig.pass(2 * SECOND);
    assert_eq!(rig.work.len(), 3, "the replica works on one batch at a time");
    for request in first {
        rig.finish(request, Outcome::Ok);
    }
    assert_eq!(rig.work.len(), 2, "they have waited long enough");
    for request in second {
        rig.finish(request, Outcome::Ok);
    }
    let alone = rig.invoke(key);
    assert!(rig.work.is_empty());
    rig.pass(SECOND);
    assert!(rig.work.contains_key(&alone));
}

#[test]
fn a_reload_replaces_one_after_another_and_never_has_fewer() {
    let (mut rig, key) = Rig::with(3, function("f"));
    let old: Vec<_> = rig.system.discover(key).map(|view| view.key).collect();
    rig.operate(Act::Reload { function: "f".into() });
    for _ in 0..3 {
        assert_eq!(rig.starting.len(), 1);
        rig.ready_all();
        assert_eq!(rig.view(key).running, 3);
        rig.stop_all();
    }
    assert!(rig.starting.is_empty());
    assert!(rig.system.discover(key).all(|view| !old.contains(&view.key)));
}

#[test]
fn how_long_a_newcomer_would_wait_is_known() {
    let (mut rig, key) = Rig::with(2, function("f"));
    let request = rig.invoke(key);
    rig.pass(SECOND);
    rig.finish(request, Outcome::Ok);
    for _ in 0..5 {
        rig.invoke(key);
    }
    assert_eq!(rig.view(key).expected_wait, 2 * SECOND);
}
