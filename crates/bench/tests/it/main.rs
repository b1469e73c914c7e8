//! The engine against real servers on real sockets.

mod before;
mod constraints;
mod dialogue;
mod failures;
mod framing;
mod http2;
mod limits;
mod openai;
mod profiles;
mod server;
mod stall;
mod strategies;
mod tls;

use std::ops::ControlFlow;

use gatewright_bench::{Outcome, Plan, Snapshot, Target, run};
use gatewright_record::Invocation;
use gatewright_workload::{Limits, Strategy};

use crate::server::Server;

/// A plan of `requests` requests to `server`.
fn plan(server: &Server, strategy: Strategy, requests: u64) -> Plan {
    let limits = Limits { requests: Some(requests), ..Limits::default() };
    Plan::new(Target::get(server.url()), strategy, limits)
}

/// Carries out `plan`; its outcome and its records by request number.
fn bench(plan: &Plan) -> (Outcome, Vec<Invocation>) {
    let mut records: Vec<Invocation> = Vec::new();
    let mut silent = |_: &Snapshot| ControlFlow::Continue(());
    let outcome = run(plan, &mut silent, Some(&mut records)).unwrap();
    records.sort_by_key(|record| record.id);
    assert_eq!(records.len() as u64, outcome.summary.requests(), "every request leaves a record");
    // A stream of a closed loop that found no connection has neither a scheduled moment nor a sent one.
    let timed = records.iter().filter(|record| record.scheduled.or(record.sent).is_some()).count();
    let ended = outcome.summary.response_time.count() + outcome.summary.failed_time.count();
    assert_eq!(ended, timed as u64, "every request has its time");
    (outcome, records)
}
