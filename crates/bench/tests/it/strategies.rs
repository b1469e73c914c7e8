use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatewright_bench::{Plan, Stop, Target};
use gatewright_record::World;
use gatewright_workload::{Gaps, Pacing, Step, Strategy, Think, Turns};

use crate::server::{Answer, Server};
use crate::{bench, plan};

const STRATEGIES: [Strategy; 5] = [
    Strategy::Synchronous,
    Strategy::Concurrent { streams: 4 },
    Strategy::Throughput { max_concurrency: 8 },
    Strategy::Constant { rate: 500.0 },
    Strategy::Poisson { rate: 500.0 },
];

#[test]
fn every_strategy_makes_each_request_once() {
    for strategy in STRATEGIES {
        for threads in [None, Some(3)] {
            let ids = Arc::new(Mutex::new(BTreeSet::new()));
            let seen = Arc::clone(&ids);
            let server = Server::start(move |request| {
                let id = request.head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
                assert!(seen.lock().unwrap().insert(id.unwrap().to_owned()), "{id:?} came twice");
                Answer::ok()
            });
            let plan = Plan { threads, name: "all".into(), ..plan(&server, strategy.clone(), 200) };
            let (outcome, records) = bench(&plan);
            assert_eq!(
                outcome.summary.statuses.ok, 200,
                "{strategy} {:?}",
                outcome.summary.reasons
            );
            assert_eq!((outcome.stop, outcome.unsent), (Stop::Requests, 0));
            let expected: BTreeSet<_> = (0..200).map(|id| format!("all-{id:012}")).collect();
            assert_eq!(*ids.lock().unwrap(), expected, "{strategy}");
            assert!((0..).zip(&records).all(|(id, record)| record.id == id), "{strategy}");
        }
    }
}

#[test]
fn an_open_loop_keeps_to_the_schedule() {
    for strategy in STRATEGIES {
        let server = Server::start(|_| Answer::ok());
        for threads in 1..=3 {
            let plan =
                Plan { threads: Some(threads), seed: 9, ..plan(&server, strategy.clone(), 100) };
            let (outcome, records) = bench(&plan);
            let scheduled: Vec<_> = records.iter().filter_map(|record| record.scheduled).collect();
            match strategy.pacing(9, 0) {
                Pacing::Open(schedule) => {
                    assert_eq!(scheduled, schedule.take(100).collect::<Vec<_>>(), "{strategy}");
                    assert_eq!(outcome.summary.lateness.count(), 100);
                    assert_eq!(outcome.noticing.count(), 100);
                }
                Pacing::Closed { .. } | Pacing::Sessions(_) => {
                    assert!(scheduled.is_empty(), "{strategy} has no schedule");
                    assert_eq!(outcome.summary.lateness.count(), 0);
                }
            }
            for record in records {
                assert!(record.sent >= record.scheduled, "{record:?}");
                assert!(record.first_byte > record.sent, "{record:?}");
                assert!(record.finished >= record.first_byte, "{record:?}");
            }
        }
    }
}

#[test]
fn a_closed_loop_has_as_many_requests_in_flight_as_streams() {
    for (strategy, streams) in STRATEGIES.into_iter().zip([1, 4, 8]) {
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let seen = Arc::clone(&counts);
        let server = Server::start(move |_| {
            let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
            seen.1.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            seen.0.fetch_sub(1, Ordering::SeqCst);
            Answer::ok()
        });
        let (outcome, _) = bench(&plan(&server, strategy.clone(), 10 * streams));
        assert_eq!(counts.1.load(Ordering::SeqCst), streams, "{strategy}");
        assert_eq!(outcome.connections_peak as u64, streams, "{strategy}");
        assert_eq!(server.connections() as u64, streams, "{strategy}");
    }
}

#[test]
fn what_is_asked_for_arrives() {
    let server = Server::start(|request| {
        assert!(
            request.head.starts_with("POST /function/square?fast HTTP/1.1\r\n"),
            "{}",
            request.head
        );
        assert!(request.head.contains("\r\nx-token: abc\r\n"), "{}", request.head);
        assert!(!request.head.contains("x-request-id"), "{}", request.head);
        assert_eq!(request.body.len(), 300_000);
        assert!(request.body.iter().all(|&byte| byte == b'7'));
        Answer::ok()
    });
    let target = Target {
        url: format!("{}function/square?fast", server.url()),
        method: "POST".into(),
        headers: vec![("X-Token".into(), "abc".into())],
        body: vec![b'7'; 300_000],
    };
    let plan = Plan {
        target,
        request_ids: false,
        ..plan(&server, Strategy::Concurrent { streams: 3 }, 30)
    };
    let (outcome, records) = bench(&plan);
    assert_eq!(outcome.summary.statuses.ok, 30, "{:?}", outcome.summary.reasons);
    assert_eq!(outcome.summary.bytes_in, 30 * 300_000);
    assert_eq!(outcome.summary.bytes_out, 30 * 2);
    let record = &records[0];
    assert_eq!((record.world, &*record.function), (World::Bench, "bench"));
    assert_eq!((record.code, record.attempts), (Some(200), 1));
}

#[test]
fn version_6_addresses_and_names_are_found() {
    let Ok(server) = Server::start_on("[::1]:0", |_| Answer::ok()) else {
        // A machine without it has nothing to test.
        return;
    };
    let (outcome, _) = bench(&plan(&server, Strategy::Synchronous, 3));
    assert_eq!(outcome.summary.statuses.ok, 3);

    let server = Server::start(|_| Answer::ok());
    let url = server.url().replace("127.0.0.1", "localhost");
    let plan = Plan { target: Target::get(url), ..plan(&server, Strategy::Synchronous, 3) };
    assert_eq!(bench(&plan).0.summary.statuses.ok, 3);
}

#[test]
fn a_finite_schedule_ends_the_run() {
    let server = Server::start(|_| Answer::ok());
    let duration = Duration::from_millis(100);
    let steps = vec![Step { rate: 100.0, duration }, Step { rate: 1_000.0, duration }];
    let strategy = Strategy::Steps { steps, repeat: false, gaps: Gaps::Constant };
    let limits = gatewright_workload::Limits::default();
    let plan = Plan { limits, threads: Some(2), ..plan(&server, strategy, 1) };
    let (outcome, records) = bench(&plan);
    assert_eq!((records.len(), outcome.stop), (110, Stop::Schedule));
}

#[test]
fn users_think_and_visitors_go() {
    let think = Think { mean: Duration::from_millis(5), cv: 0.0 };
    let users = Strategy::Users { users: 4, think, ramp_up: Duration::from_millis(2) };
    let visits =
        Strategy::Sessions { rate: 400.0, turns: Turns::Fixed(3), think, gaps: Gaps::Poisson };
    for strategy in [users, visits] {
        let server = Server::start(|_| Answer::ok());
        let plan = Plan { threads: Some(2), ..plan(&server, strategy.clone(), 120) };
        let (outcome, records) = bench(&plan);
        assert_eq!(outcome.summary.statuses.ok, 120, "{strategy}: {:?}", outcome.summary.reasons);
        assert_eq!(outcome.stop, Stop::Requests);
        assert!(records.iter().all(|record| record.sent >= record.scheduled), "{strategy}");
        if let Strategy::Users { .. } = strategy {
            // 30 requests of each user with 29 pauses between them.
            assert!(outcome.elapsed >= 29 * think.mean, "{:?}", outcome.elapsed);
            assert!(outcome.connections_peak <= 4);
        }
    }
}
