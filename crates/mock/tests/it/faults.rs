use std::io::{ErrorKind, Read as _};

use gatewright_mock::{Faults, HttpConfig, OpenAiConfig};
use gatewright_sim::Law;
use serde_json::{Value, json};

use crate::client::{events, get, post, read, send, server};

fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "stream": true,
        "max_tokens": 20, "ignore_eos": true})
}

fn model() -> Option<OpenAiConfig> {
    let (ttft, itl) = (Law::Fixed(0.001), Law::Fixed(0.001));
    Some(OpenAiConfig { ttft, itl, ..OpenAiConfig::default() })
}

#[test]
fn errors_come_at_their_rate_and_by_the_seed() {
    let statuses = |seed| {
        let mock = server(|config| {
            config.http = Some(HttpConfig::default());
            config.faults = Faults { error_rate: 0.5, error_status: 429, ..Faults::default() };
            config.seed = seed;
        });
        let statuses: Vec<u16> = (0..40).map(|_| get(&mock, "/").status).collect();
        let errors = statuses.iter().filter(|&&status| status == 429).count();
        assert_eq!(mock.stop().unwrap().errors, errors as u64);
        assert!((8..=32).contains(&errors), "{errors}");
        statuses
    };
    assert_eq!(statuses(1), statuses(1));
    assert_ne!(statuses(1), statuses(2));
}

#[test]
fn a_stream_is_reset_in_its_middle() {
    let mock = server(|config| {
        config.openai = model();
        config.faults = Faults { reset_rate: 1.0, ..Faults::default() };
    });
    let mut counts = Vec::new();
    for _ in 0..5 {
        let mut stream =
            send(mock.address(), "POST", "/v1/chat/completions", chat().to_string().as_bytes());
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("[DONE]"), "{text}");
        counts.push(text.matches("data: ").count());
    }
    counts.sort_unstable();
    counts.dedup();
    assert!(counts.len() > 1, "always at the same token: {counts:?}");
    assert_eq!(mock.stop().unwrap().resets, 5);
}

#[test]
fn an_answer_in_one_piece_is_reset_too() {
    let mock = server(|config| {
        config.http = Some(HttpConfig::default());
        config.faults = Faults { reset_rate: 1.0, ..Faults::default() };
    });
    let error = read(&mut send(mock.address(), "GET", "/", b"")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stall_delays_and_loses_nothing() {
    let mock = server(|config| {
        config.openai = model();
        config.faults = Faults { stall_rate: 1.0, stall: Law::Fixed(0.05), ..Faults::default() };
    });
    let reply = post(&mock, "/v1/chat/completions", &chat());
    // The role, twenty tokens, the end and the mark.
    assert_eq!(events(&reply.body).len(), 23);
    assert_eq!(mock.stop().unwrap().stalls, 1);
}

#[test]
fn after_its_time_the_model_fails_and_health_does_not() {
    let mock = server(|config| {
        config.openai = model();
        config.faults = Faults { fail_after: Some(2), error_status: 503, ..Faults::default() };
    });
    let statuses: Vec<u16> =
        (0..4).map(|_| post(&mock, "/v1/chat/completions", &chat()).status).collect();
    assert_eq!(statuses, [200, 200, 503, 503]);
    assert_eq!(get(&mock, "/health").status, 200);
}
