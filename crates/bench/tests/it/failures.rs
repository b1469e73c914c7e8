use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use gatewright_bench::{BenchError, Plan, Snapshot, Target, run};
use gatewright_record::Status;
use gatewright_workload::{Limits, Strategy};

use crate::server::{Answer, Server};
use crate::{bench, plan};

fn error(plan: &Plan) -> BenchError {
    run(plan, &mut |_: &Snapshot| ControlFlow::Continue(()), None).unwrap_err()
}

/// A server that answers 100 requests and then is gone.
fn mortal_server() -> Server {
    let die: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>> = Arc::default();
    let at_100 = Arc::clone(&die);
    let server = Server::start(move |request| {
        if request.number == 100 {
            at_100.wait()();
        }
        Answer::ok()
    });
    assert!(die.set(Box::new(server.die())).is_ok());
    server
}

#[test]
fn a_server_that_is_not_there_is_an_error_at_once() {
    let server = Server::start(|_| Answer::ok());
    let plan = plan(&server, Strategy::Constant { rate: 1_000.0 }, 1_000);
    server.die()();
    drop(server);
    let error = error(&plan);
    assert!(matches!(error, BenchError::Connect { .. }), "{error}");
    assert!(error.to_string().ends_with("is the server running there?"), "{error}");
}

#[test]
fn a_target_that_cannot_be_used_is_an_error_at_once() {
    let server = Server::start(|_| Answer::ok());
    let target = Target::get(server.url().replace("http:", "ftp:"));
    let plan = Plan { target, ..plan(&server, Strategy::Synchronous, 1) };
    assert!(error(&plan).to_string().contains("must begin with http:// or https://"));
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_server_that_dies_fails_what_is_due_afterwards() {
    let server = mortal_server();
    let (outcome, records) = bench(&plan(&server, Strategy::Constant { rate: 1_000.0 }, 400));
    let statuses = outcome.summary.statuses;
    assert_eq!(statuses.total(), 400, "none is lost");
    assert!(statuses.ok <= 110 && statuses.error >= 290, "{statuses:?}");
    assert!(outcome.connect_failures >= 250, "{}", outcome.connect_failures);
    assert!(outcome.summary.reasons["connect: connection refused"] >= 250);
    let last = &records[399];
    assert_eq!((last.status, last.sent, last.attempts), (Status::Error, None, 0));
    assert!(last.finished >= last.scheduled);
}

#[test]
fn a_closed_loop_does_not_hammer_on_a_dead_server() {
    let server = mortal_server();
    let limits = Limits { duration: Some(Duration::from_millis(500)), ..Limits::default() };
    let strategy = Strategy::Concurrent { streams: 4 };
    let (outcome, _) = bench(&Plan { limits, ..plan(&server, strategy, 1) });
    let failed = outcome.summary.statuses.failed();
    assert!((4..=4 * 52).contains(&failed), "{failed} failures of 4 streams that rest 10 ms");
}

#[test]
fn what_is_not_http_is_a_bad_answer() {
    let server = Server::start(|_| Answer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".into()));
    let (outcome, _) = bench(&plan(&server, Strategy::Synchronous, 5));
    assert_eq!(outcome.summary.reasons, [("the answer is not HTTP/1".into(), 5)].into());
}

#[test]
fn an_answer_that_breaks_off_is_a_failure() {
    let server =
        Server::start(|_| Answer::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".into()));
    let (outcome, records) = bench(&plan(&server, Strategy::Concurrent { streams: 2 }, 10));
    let reason = "closed before the answer was complete";
    assert_eq!(outcome.summary.reasons, [(reason.into(), 10)].into());
    assert_eq!((records[0].code, records[0].bytes_out), (Some(200), 4));
}

#[test]
fn more_than_was_asked_for_is_not_taken_for_the_next_answer() {
    let server = Server::start(|_| {
        Answer::Bytes([crate::server::OK, b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"].concat())
    });
    let (outcome, _) = bench(&plan(&server, Strategy::Synchronous, 10));
    assert_eq!(outcome.summary.codes.by_code(), [(200, 10)].into());
    assert_eq!(outcome.connections_opened, 10);
}

fn silent_server(until: Duration) -> Server {
    Server::start(move |_| {
        std::thread::sleep(until);
        Answer::ok()
    })
}

#[test]
fn requests_that_take_too_long_are_given_up() {
    let server = silent_server(Duration::from_secs(5));
    let timeout = Duration::from_millis(100);
    let plan = Plan { timeout, ..plan(&server, Strategy::Concurrent { streams: 3 }, 9) };
    let (outcome, records) = bench(&plan);
    assert_eq!(outcome.summary.statuses.timeout, 9, "{:?}", outcome.summary.reasons);
    assert_eq!(outcome.summary.reasons, [("timeout".into(), 9)].into());
    let waited = records.iter().map(|record| record.response_nanos().unwrap());
    assert!(waited.min().unwrap() >= 100_000_000);
}

#[test]
fn requests_time_out_while_they_wait_for_a_connection() {
    let server = silent_server(Duration::from_secs(5));
    let plan = Plan {
        timeout: Duration::from_millis(200),
        max_connections: 1,
        // So close to one another that all have timed out when the first one is given up.
        ..plan(&server, Strategy::Constant { rate: 1e8 }, 10)
    };
    let (outcome, records) = bench(&plan);
    assert_eq!(outcome.summary.statuses.timeout, 10, "{:?}", outcome.summary.reasons);
    assert_eq!(records.iter().filter(|record| record.sent.is_none()).count(), 9);
    assert_eq!(outcome.unsent, 9);
    assert_eq!(outcome.summary.reasons["timeout before a connection was free"], 9);
}

#[test]
fn what_could_not_be_sent_before_the_end_is_counted() {
    let server = silent_server(Duration::from_millis(1_600));
    let limits = Limits { duration: Some(Duration::from_millis(200)), ..Limits::default() };
    let strategy = Strategy::Constant { rate: 100.0 };
    let plan = Plan { limits, max_connections: 1, ..plan(&server, strategy, 1) };
    let (outcome, records) = bench(&plan);
    let statuses = outcome.summary.statuses;
    assert_eq!((statuses.ok, statuses.cancelled, outcome.unsent), (1, 19, 19));
    assert_eq!(outcome.summary.reasons["unsent when the run ended"], 19);
    assert!(records[19].response_nanos().unwrap() > 900_000_000, "they waited for a second more");
}

#[test]
fn requests_are_made_once_more_if_that_is_wanted() {
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let server = Server::start(move |_| {
        // Every third answer is a refusal, every ninth breaks off.
        match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 9 {
            2 | 5 => Answer::Bytes(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".into()),
            8 => Answer::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".into()),
            _ => Answer::ok(),
        }
    });
    for strategy in [Strategy::Synchronous, Strategy::Constant { rate: 500.0 }] {
        count.store(0, std::sync::atomic::Ordering::SeqCst);
        let none = plan(&server, strategy.clone(), 60);
        let (outcome, _) = bench(&none);
        assert!(outcome.summary.statuses.failed() > 0 && outcome.summary.retries == 0);
        count.store(0, std::sync::atomic::Ordering::SeqCst);
        let (outcome, records) = bench(&Plan { retries: 5, ..none });
        let summary = &outcome.summary;
        assert_eq!(summary.statuses.ok, 60, "{strategy}: {:?}", summary.reasons);
        let attempts: u64 = records.iter().map(|record| u64::from(record.attempts)).sum();
        assert_eq!(attempts, 60 + summary.retries);
        assert_eq!(attempts, count.load(std::sync::atomic::Ordering::SeqCst), "all are counted");
        assert!(summary.retries >= 20, "{}", summary.retries);
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_given_up() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

    // A listener with room for one, which nobody takes.
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let listener = std::net::TcpListener::from(listener);
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let limits = Limits { duration: Some(Duration::from_secs(1)), ..Limits::default() };
    let plan = Plan::new(Target::get(url), Strategy::Concurrent { streams: 4 }, limits);
    let plan = Plan {
        connect_timeout: Duration::from_millis(100),
        timeout: Duration::from_secs(60),
        at_end: gatewright_bench::AtEnd::Cancel,
        ..plan
    };
    let (outcome, _) = bench(&plan);
    assert!(outcome.summary.statuses.cancelled >= 1, "the one that is connected waits on");
    let connects = outcome.summary.reasons.get("connect: timed out").copied().unwrap_or(0);
    assert!(connects >= 1, "{:?}", outcome.summary.reasons);
}
