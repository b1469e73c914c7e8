use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatewright_bench::{Outcome, Plan};
use gatewright_workload::{Limits, Strategy};

use crate::server::{Answer, Server};
use crate::{bench, plan};

const LONG: u64 = 100_000_000;

/// 500 requests a second for 2.5 s to a server that answers nothing for 1 s in the middle.
fn frozen_server(max_connections: u32) -> Outcome {
    let frozen = Arc::new(AtomicBool::new(false));
    let server = Server::start(move |request| {
        if request.number == 300 {
            frozen.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(1));
            frozen.store(false, Ordering::SeqCst);
        }
        while frozen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::ok()
    });
    let limits = Limits { duration: Some(Duration::from_millis(2_500)), ..Limits::default() };
    let strategy = Strategy::Constant { rate: 500.0 };
    let (outcome, _) = bench(&Plan { limits, max_connections, ..plan(&server, strategy, 1) });
    assert_eq!(outcome.summary.requests(), 1_250);
    assert_eq!(outcome.summary.statuses.ok, 1_250, "{:?}", outcome.summary.reasons);
    outcome
}

fn long(histogram: &gatewright_record::LatencyHistogram) -> u64 {
    histogram.count() - histogram.count_up_to(LONG)
}

/// What a tool that counts from the sending would show: of 1,250 requests, only the four that were stuck.
#[test]
fn a_frozen_server_is_seen_by_all_requests_that_were_due() {
    let outcome = frozen_server(4);
    let summary = &outcome.summary;
    assert!(long(&summary.response_time) >= 125, "{:?}", summary.report().response_time);
    assert!(summary.response_time.quantile(0.9).unwrap() > LONG);
    assert!(long(&summary.service_time) <= 40, "{:?}", summary.report().service_time);
    // Their lateness is the server's doing: the engine noticed them in time.
    assert!(long(&summary.lateness) >= 100);
    assert!(long(&outcome.noticing) < long(&summary.lateness) / 2);
    assert!(outcome.waited >= 100, "{}", outcome.waited);
    assert_eq!(outcome.connections_peak, 4);
}

#[test]
fn connections_grow_with_what_is_due() {
    let outcome = frozen_server(1_000);
    let summary = &outcome.summary;
    assert!(outcome.connections_peak >= 100, "{}", outcome.connections_peak);
    assert!(long(&summary.service_time) >= 125, "{:?}", summary.report().service_time);
    assert!(summary.response_time.quantile(0.9).unwrap() > LONG);
    assert_eq!(outcome.waited, 0);
}
