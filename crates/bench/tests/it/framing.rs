use gatewright_bench::{Plan, Target};
use gatewright_record::Status;
use gatewright_workload::Strategy;

use crate::server::{Answer, OK, Server};
use crate::{bench, plan};

/// Requests to a server that gives one answer only: all must be good, with `body` bytes each.
fn all_good(answer: &'static [u8], closes: bool, method: &str, body: u64) {
    let server = Server::start(move |_| {
        if closes { Answer::Last(answer.into()) } else { Answer::Bytes(answer.into()) }
    });
    for strategy in [Strategy::Concurrent { streams: 3 }, Strategy::Constant { rate: 1_000.0 }] {
        let target = Target { method: method.into(), ..Target::get(server.url()) };
        let (outcome, records) = bench(&Plan { target, ..plan(&server, strategy.clone(), 40) });
        let what = String::from_utf8_lossy(answer);
        assert_eq!(outcome.summary.statuses.ok, 40, "{what}: {:?}", outcome.summary.reasons);
        assert!(records.iter().all(|record| record.bytes_out == body), "{what}");
        if strategy.rate().is_none() {
            assert_eq!(outcome.connections_opened, if closes { 40 } else { 3 }, "{what}");
        }
    }
}

#[test]
fn answers_are_delimited_in_every_way() {
    all_good(OK, false, "GET", 2);
    all_good(b"HTTP/1.1 204 No Content\r\n\r\n", false, "GET", 0);
    all_good(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", false, "HEAD", 0);
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    all_good(chunked, false, "GET", 5);
    all_good(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
        false,
        "GET",
        1,
    );
    all_good(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na", true, "GET", 1);
    all_good(b"HTTP/1.1 200 OK\r\n\r\nto the end", true, "GET", 10);
    all_good(b"HTTP/1.0 200 OK\r\n\r\nold", true, "GET", 3);
}

#[test]
fn large_answers_are_counted_to_the_last_byte() {
    let size = 3_000_000;
    let server = Server::start(move |_| {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        Answer::Bytes(answer)
    });
    let (outcome, _) = bench(&plan(&server, Strategy::Concurrent { streams: 2 }, 20));
    assert_eq!(outcome.summary.statuses.ok, 20, "{:?}", outcome.summary.reasons);
    assert_eq!(outcome.summary.bytes_out, 20 * size as u64);
    assert_eq!(outcome.connections_opened, 2);
}

#[test]
fn status_codes_decide_what_is_good() {
    let server = Server::start(|request| {
        let status =
            ["200 OK", "302 Found", "404 Not Found", "503 Busy"][request.number as usize % 4];
        Answer::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into())
    });
    let (outcome, records) = bench(&plan(&server, Strategy::Synchronous, 40));
    assert_eq!(
        outcome.summary.codes.by_code(),
        [(200, 10), (302, 10), (404, 10), (503, 10)].into()
    );
    assert_eq!(outcome.summary.reasons, [("HTTP 404".into(), 10), ("HTTP 503".into(), 10)].into());
    assert_eq!((outcome.summary.statuses.ok, outcome.summary.statuses.error), (20, 20));
    assert_eq!(outcome.connections_opened, 1, "an error is no reason to close");
    let busy = records.iter().find(|record| record.code == Some(503)).unwrap();
    assert_eq!((busy.status, busy.reason.as_deref()), (Status::Error, Some("HTTP 503")));
}
