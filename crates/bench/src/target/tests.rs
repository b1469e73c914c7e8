use gatewright_workload::Limits;

use super::*;
use crate::feed::Turn;

fn parse(target: Target) -> Result<ParsedTarget, BenchError> {
    ParsedTarget::of(&Plan::new(target, Strategy::Synchronous, Limits::default()))
}

fn header(name: &str, value: &str) -> Target {
    Target { headers: vec![(name.into(), value.into())], ..Target::get("http://localhost/") }
}

#[test]
fn requests_are_prepared_but_for_their_number() {
    let target = Target {
        method: "post".into(),
        headers: vec![("Host".into(), "example".into()), ("x-a".into(), "1".into())],
        body: b"[0.5]".to_vec(),
        ..Target::get("http://[::1]:8080/function/square?x=1#part")
    };
    let mut parsed = parse(target).unwrap();
    assert_eq!(parsed.requests.choose(7, Turn::default()), 0);
    assert_eq!((parsed.host.as_str(), parsed.port), ("::1", 8080));
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "POST /function/square?x=1 HTTP/1.1\r\nuser-agent: gatewright-bench/{version}\r\naccept: */*\r\n\
         host: example\r\nx-a: 1\r\ncontent-length: 5\r\nx-request-id: bench-000000000042\r\n\r\n[0.5]"
    );
    assert_eq!(
        std::str::from_utf8(parsed.requests.bytes(0, 42, Turn::default())).unwrap(),
        expected
    );
    let next = parsed.requests.bytes(0, 7, Turn::default()).to_vec();
    assert!(String::from_utf8(next).unwrap().contains("bench-000000000007\r\n"));
}

#[test]
fn bad_targets_say_what_to_do() {
    let bad = [
        (Target::get("localhost:8080"), "must begin with http://"),
        (Target::get("ftp://localhost/"), "must begin with http://"),
        (Target::get("/path"), "must begin with http://"),
        (Target::get("http://a b/"), "write http://host:port/path"),
        (Target::get("http://me:secret@localhost/"), "give an authorization header"),
        (Target::get("http://localhost:99999/"), "1 to 65535"),
        (Target::get("http://localhost:x/"), ""),
        (Target::get("http://localhost:0/"), "1 to 65535"),
        (Target::get(""), "write http://host:port/path"),
        (header("content-length", "3"), "leave it out"),
        (header("x-request-id", "3"), "turn its request ids off"),
        (header("bad name", "3"), "not a name of a header"),
        (header("x-a", "3\r\nx-b: 4"), "cannot hold"),
        (Target { method: "GET /".into(), ..Target::get("http://a/") }, "not an HTTP method"),
        (Target { method: "CONNECT".into(), ..Target::get("http://a/") }, "tunnel"),
        (header("x-a", &"x".repeat(70_000)), "longer than 65536 bytes"),
    ];
    for (target, part) in bad {
        let error = parse(target.clone()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{target:?}: {error}");
    }
}

#[test]
fn several_targets_come_in_turn_or_by_weight() {
    let weighted = |path: &str, weight| WeightedTarget {
        name: Some(path.into()),
        weight,
        target: Target::get(format!("http://localhost/{path}")),
        answer: AnswerKind::Opaque,
        dialogue: Dialogue::default(),
    };
    let parse = |mix| {
        let plan = Plan::new(Target::default(), Strategy::Synchronous, Limits::default());
        ParsedTarget::of(&Plan { mix, ..plan })
    };
    let even = parse(vec![weighted("a", 2.0), weighted("b", 2.0)]).unwrap();
    assert_eq!(
        (0..4).map(|number| even.requests.choose(number, Turn::default())).collect::<Vec<_>>(),
        [0, 1, 0, 1]
    );
    let uneven = parse(vec![weighted("a", 3.0), weighted("b", 1.0)]).unwrap();
    let chosen: Vec<_> =
        (0..10_000).map(|number| uneven.requests.choose(number, Turn::default())).collect();
    let second = chosen.iter().sum::<usize>();
    assert!((2_350..2_650).contains(&second), "{second} of 10000 for a quarter");
    assert_eq!(uneven.requests.get(1).name.as_deref(), Some("b"));
    let elsewhere = WeightedTarget { target: Target::get("http://other/"), ..weighted("a", 1.0) };
    let error = parse(vec![weighted("a", 1.0), elsewhere]).unwrap_err().to_string();
    assert!(error.contains("all targets of a run are on one server"), "{error}");
}
