use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use gatewright_bench::{BenchError, Plan, RecordSink, Snapshot, Stop, run};
use gatewright_record::Invocation;
use gatewright_workload::constraint::Window;
use gatewright_workload::{Limits, Strategy};

use crate::server::{Answer, Server};
use crate::{bench, plan};

fn for_millis(millis: u64) -> Limits {
    Limits { duration: Some(Duration::from_millis(millis)), ..Limits::default() }
}

#[test]
fn all_that_is_due_within_the_duration_is_offered() {
    let server = Server::start(|_| Answer::ok());
    let strategy = Strategy::Constant { rate: 1_000.0 };
    let (outcome, records) = bench(&Plan { limits: for_millis(300), ..plan(&server, strategy, 1) });
    assert_eq!(outcome.stop, Stop::Duration);
    assert_eq!((records.len(), server.requests()), (300, 300));
    assert_eq!(outcome.summary.offered_rate(), Some(1_000.0));
}

#[test]
fn a_closed_loop_ends_with_its_duration() {
    let server = Server::start(|_| Answer::ok());
    let strategy = Strategy::Concurrent { streams: 2 };
    let (outcome, records) = bench(&Plan { limits: for_millis(200), ..plan(&server, strategy, 1) });
    assert_eq!(outcome.stop, Stop::Duration);
    assert_eq!(records.len() as u64, server.requests(), "what was sent is awaited");
    assert!(records.iter().all(|record| record.sent.unwrap().as_nanos() < 200_000_000));
    assert_eq!(outcome.summary.offered_rate(), None);
    assert!(outcome.cpu_micros_per_request().unwrap() > 0.0);
    let json = serde_json::to_value(outcome.report()).unwrap();
    assert_eq!((&json["stop"], &json["threads"]), (&"duration".into(), &1.into()));
    assert_eq!(json["run"]["statuses"]["ok"], records.len());
}

#[test]
fn the_warm_up_is_left_out() {
    let server = Server::start(|_| Answer::ok());
    let strategy = Strategy::Constant { rate: 1_000.0 };
    let window = Window::after(Duration::from_millis(100));
    let plan = Plan { limits: for_millis(300), window, ..plan(&server, strategy, 1) };
    let (outcome, records) = bench(&plan);
    assert_eq!((outcome.warmup_requests, records.len(), server.requests()), (100, 200, 300));
    assert_eq!(records[0].id, 100);
    assert_eq!(outcome.summary.offered_rate(), Some(1_000.0));
    assert_eq!(outcome.noticing.count(), 200);
}

#[test]
fn too_many_errors_end_the_run() {
    let server =
        Server::start(|_| Answer::Bytes(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into()));
    let limits = Limits { errors: Some(10), ..for_millis(60_000) };
    for strategy in [Strategy::Concurrent { streams: 4 }, Strategy::Constant { rate: 200.0 }] {
        let (outcome, _) = bench(&Plan { limits, ..plan(&server, strategy.clone(), 1) });
        assert_eq!(outcome.stop, Stop::Errors);
        let failed = outcome.summary.statuses.failed();
        // Those in flight are awaited; more than a handful means that the limit was passed over.
        assert!((10..200).contains(&failed), "{strategy}: {failed}");
    }
}

#[test]
fn whoever_watches_can_end_the_run() {
    let server = Server::start(|_| Answer::ok());
    let plan = Plan {
        limits: for_millis(60_000),
        ..plan(&server, Strategy::Constant { rate: 1_000.0 }, 1)
    };
    let mut snapshots = Vec::new();
    let mut watch = |snapshot: &Snapshot| {
        snapshots.push(snapshot.clone());
        if snapshots.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let outcome = run(&plan, &mut watch, None).unwrap();
    assert_eq!(outcome.stop, Stop::Asked);
    assert_eq!(outcome.summary.requests(), server.requests());
    let (first, last) = (&snapshots[0], &snapshots[snapshots.len() - 1]);
    assert!(0 < first.sent && first.sent <= last.sent);
    assert!(first.done <= first.sent && first.errors == 0);
    assert!(first.fraction < last.fraction && last.fraction < 1.0);
    assert!(first.left.unwrap() > last.left.unwrap());
    assert_eq!(last.done, outcome.summary.requests());
    let rate = outcome.summary.offered_rate().unwrap();
    assert!((900.0..1_100.0).contains(&rate), "offered over the time that it ran: {rate}");
}

#[test]
fn a_sink_that_fails_ends_the_run() {
    struct Full(u32);
    impl RecordSink for Full {
        fn write(&mut self, _: &Invocation) -> io::Result<()> {
            self.0 += 1;
            if self.0 > 5 { Err(io::Error::other("no space left")) } else { Ok(()) }
        }
    }
    let server = Server::start(|_| Answer::ok());
    let plan = Plan {
        limits: for_millis(60_000),
        ..plan(&server, Strategy::Concurrent { streams: 2 }, 1)
    };
    let mut silent = |_: &Snapshot| ControlFlow::Continue(());
    let error = run(&plan, &mut silent, Some(&mut Full(0))).unwrap_err();
    assert!(matches!(error, BenchError::Records { .. }), "{error}");
    assert!(error.to_string().ends_with("no space left"), "{error}");
}
