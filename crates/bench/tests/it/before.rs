//! What is done before a run: targets are asked once, and redirects followed.

use std::path::Path;
use std::time::Duration;

use gatewright_bench::{Demand, OpenAiTarget, Prepared, Scenario, TargetSpec};
use gatewright_workload::Strategy;

use crate::server::{Answer, Server};

fn scenario(url: &str) -> Scenario {
    let demand = vec![Demand { requests: Some(1), ..Demand::new(Strategy::Synchronous) }];
    let mut scenario =
        Scenario { target: vec![TargetSpec::of(url)], demand, ..Scenario::default() };
    scenario.client.check = Some(Duration::ZERO);
    scenario
}

fn prepared(scenario: &Scenario) -> Prepared {
    scenario.prepare(Path::new(""), &|_| None).unwrap()
}

fn fault(scenario: &Scenario) -> String {
    prepared(scenario).check().unwrap_err().to_string()
}

fn answer(head: &str, body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into())
}

#[test]
fn a_good_answer_lets_the_run_begin() {
    let server = Server::start(|request| {
        assert!(!request.head.contains("x-request-id"), "{}", request.head);
        Answer::ok()
    });
    let scenario = scenario(&server.url());
    prepared(&scenario).check().unwrap();
    assert_eq!(server.requests(), 1);
    let mut unchecked = scenario;
    unchecked.client.check = None;
    prepared(&unchecked).check().unwrap();
    assert_eq!(server.requests(), 1, "nothing is asked unless that is wanted");
}

#[test]
fn what_is_not_good_is_told() {
    let server = Server::start(|_| answer("404 Not Found", "no\n  such page"));
    let error = fault(&scenario(&server.url()));
    assert!(error.ends_with("answers with HTTP 404: no such page"), "{error}");
    let server = Server::start(|_| answer("302 Found\r\nLocation: /x", ""));
    let error = fault(&scenario(&server.url()));
    assert!(error.ends_with("redirects to /x (HTTP 302)"), "{error}");
    let server = Server::start(|_| answer("200 OK", "a page"));
    let mut model = scenario(&server.url());
    let prompts = vec!["Hi".to_owned()];
    model.target[0].openai = Some(OpenAiTarget { prompts, ..OpenAiTarget::default() });
    let error = fault(&model);
    assert!(error.contains("the stream ended before") || error.contains("not that of"), "{error}");
    let server = Server::start(|_| Answer::Last(Vec::new()));
    let error = fault(&scenario(&server.url()));
    assert!(error.contains("does not answer"), "{error}");
}

#[test]
fn a_server_that_starts_is_waited_for() {
    let server = Server::start(|request| match request.number {
        0..3 => answer("503 Service Unavailable", "starting"),
        _ => Answer::ok(),
    });
    let mut patient = scenario(&server.url());
    patient.client.check = Some(Duration::from_secs(60));
    prepared(&patient).check().unwrap();
    assert_eq!(server.requests(), 4);
}

#[test]
fn redirects_are_followed_once_for_the_whole_run() {
    let server = Server::start(|request| match request.head.split(' ').nth(1) {
        Some("/") => answer("301 Moved Permanently\r\nlocation: /a/b?c", ""),
        Some("/a/b?c") => answer("307 Temporary Redirect\r\nlocation: d", ""),
        Some("/a/d") => Answer::ok(),
        other => panic!("{other:?}"),
    });
    let mut following = scenario(&server.url());
    following.client.follow_redirects = true;
    let mut ready = prepared(&following);
    ready.check().unwrap();
    assert_eq!(ready.plan.mix[0].target.url, format!("{}a/d", server.url()));
    assert_eq!(server.requests(), 3);
}

#[test]
fn a_redirect_that_cannot_be_followed_is_told() {
    let server = Server::start(|request| {
        let code = if request.head.starts_with("POST") { 303 } else { 302 };
        answer(&format!("{code} X\r\nlocation: /again"), "")
    });
    let mut following = scenario(&server.url());
    following.client.follow_redirects = true;
    let error = fault(&following);
    assert!(error.ends_with("is redirected again and again"), "{error}");
    following.target[0].body = Some("{}".to_owned());
    let error = fault(&following);
    assert!(error.contains("where a POST would become a GET"), "{error}");
    let server = Server::start(|_| answer("302 Found", ""));
    let mut following = scenario(&server.url());
    following.client.follow_redirects = true;
    let error = fault(&following);
    assert!(error.ends_with("does not say where to"), "{error}");
}
