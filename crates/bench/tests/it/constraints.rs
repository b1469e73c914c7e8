//! What ends a run besides its limits, and which part of it is measured.

use std::time::Duration;

use gatewright_bench::{AtEnd, Plan, Stop};
use gatewright_record::Status;
use gatewright_workload::constraint::{
    Backlog, Constraint, ErrorRate, Rule, Scope, Transient, Window,
};
use gatewright_workload::{Limits, Strategy};

use crate::server::{Answer, Server};
use crate::{bench, plan};

fn for_millis(millis: u64) -> Limits {
    Limits { duration: Some(Duration::from_millis(millis)), ..Limits::default() }
}

fn error() -> Answer {
    Answer::Bytes(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into())
}

#[test]
fn too_many_errors_among_the_last_requests_end_the_run() {
    let server = Server::start(|request| if request.number < 100 { Answer::ok() } else { error() });
    for threads in [1, 2] {
        let rule = Rule::MaxErrorRate(ErrorRate { rate: 0.5, window: 20 });
        let constraints = vec![Constraint { scope: Scope::All, ..Constraint::new(rule) }];
        let strategy = Strategy::Concurrent { streams: 2 };
        let plan = Plan {
            constraints,
            limits: for_millis(60_000),
            threads: Some(threads),
            ..plan(&server, strategy, 1)
        };
        let (outcome, _) = bench(&plan);
        assert_eq!(outcome.stop, Stop::Constraint);
        let breach = &outcome.breaches[0];
        assert_eq!((&*breach.rule, outcome.breaches.len()), ("max_error_rate", 1));
        assert!(breach.why.contains("of the last 20 requests failed"), "{}", breach.why);
        assert!(outcome.step_result().ends_all);
    }
}

#[test]
fn a_growing_backlog_ends_the_run() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Answer::ok()
    });
    let rule = Rule::Backlog(Backlog { min_seconds: 3.0, ..Backlog::default() });
    let plan = Plan {
        constraints: vec![Constraint::new(rule)],
        limits: for_millis(60_000),
        max_connections: 2,
        at_end: AtEnd::Cancel,
        ..plan(&server, Strategy::Poisson { rate: 400.0 }, 1)
    };
    let (outcome, _) = bench(&plan);
    assert_eq!(outcome.stop, Stop::Constraint);
    assert!(outcome.breaches[0].why.starts_with("the backlog grew from"), "{:?}", outcome.breaches);
    assert!(outcome.step_result().overloaded);
}

#[test]
fn what_is_in_flight_at_the_end_is_awaited_or_cut_off() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Answer::ok()
    });
    let strategy = Strategy::Constant { rate: 50.0 };
    let awaited = Plan { limits: for_millis(200), ..plan(&server, strategy, 1) };
    let (outcome, _) = bench(&awaited);
    assert_eq!((outcome.summary.statuses.ok, outcome.summary.statuses.cancelled), (10, 0));
    let (outcome, records) = bench(&Plan { at_end: AtEnd::Cancel, ..awaited });
    assert_eq!((outcome.summary.statuses.ok, outcome.summary.statuses.cancelled), (0, 10));
    assert!(records.iter().all(|record| record.status == Status::Cancelled));
    assert_eq!(records[0].reason.as_deref(), Some("cut off when the run ended"));
}

#[test]
fn beginning_and_end_are_left_out() {
    let server = Server::start(|_| Answer::ok());
    let (warmup, cooldown) = (Some(Transient::Number(0.25)), Some(Transient::Number(0.5)));
    let strategy = Strategy::Constant { rate: 1_000.0 };
    let by_time = Plan {
        window: Window { warmup, cooldown },
        limits: for_millis(200),
        ..plan(&server, strategy.clone(), 1)
    };
    let (outcome, records) = bench(&by_time);
    assert_eq!((records[0].id, records.len(), outcome.warmup_requests), (50, 50, 150));
    assert_eq!(outcome.summary.offered_rate(), Some(1_000.0));
    let by_number = Plan { window: Window { warmup, cooldown }, ..plan(&server, strategy, 80) };
    let (outcome, records) = bench(&by_number);
    assert_eq!((records[0].id, records.len(), outcome.warmup_requests), (20, 20, 60));
}
