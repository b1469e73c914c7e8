use std::num::NonZeroU32;
use std::time::Instant;

use gatewright_mock::{OpenAiConfig, PrefixCache};
use gatewright_sim::Law;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::client::{openai, post, read, send, server};

/// Streams at a time, ten tokens each; the seconds until all have ended.
fn seconds(mock: &gatewright_mock::Mock, streams: usize) -> f64 {
    let body = json!({"prompt": "x", "stream": true, "max_tokens": 10, "ignore_eos": true});
    let body = body.to_string();
    let start = Instant::now();
    let mut sent: Vec<_> = (0..streams)
        .map(|_| send(mock.address(), "POST", "/v1/completions", body.as_bytes()))
        .collect();
    for stream in &mut sent {
        assert_eq!(read(stream).unwrap().events().len(), 12);
    }
    start.elapsed().as_secs_f64()
}

/// Sleeping is never too short, so lower bounds hold however busy the machine is.
#[test]
fn who_finds_no_slot_waits() {
    // Two threads share the slots.
    let mock = server(|config| {
        config.threads = 2;
        config.openai = Some(OpenAiConfig {
            ttft: Law::Fixed(0.0),
            itl: Law::Fixed(0.005),
            slots: NonZeroU32::new(2),
            ..OpenAiConfig::default()
        });
    });
    // Four pairs, one after the other, of nine gaps each.
    assert!(seconds(&mock, 8) > 4.0 * 9.0 * 0.005);
}

#[test]
fn what_was_prefilled_is_cached() {
    let mock = openai(|openai| openai.prefix_cache = Some(PrefixCache::default()));
    let prompt = "word ".repeat(100);
    let cached = |end: &str| {
        let request = json!({"prompt": format!("{prompt}{end}")});
        let usage = post(&mock, "/v1/completions", &request).json()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached("one"), 0);
    assert_eq!(cached("two"), 96, "six blocks of sixteen");
    assert_eq!(cached("two and more"), 96);
}

#[test]
fn http2_streams_share_a_connection() {
    let mock = openai(|openai| openai.itl = Law::Fixed(0.001));
    let uri = format!("http://{}/v1/completions", mock.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let body = json!({"prompt": "x", "stream": true, "max_tokens": 10}).to_string();
        let ask = || {
            let body = Full::new(bytes::Bytes::from(body.clone()));
            client.request(http::Request::post(&uri).body(body).unwrap())
        };
        let (first, second) = tokio::join!(ask(), ask());
        for reply in [first.unwrap(), second.unwrap()] {
            assert_eq!(reply.version(), http::Version::HTTP_2);
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(crate::client::events(&body).last().unwrap().1, "[DONE]");
        }
    });
    assert_eq!(mock.summary().connections, 1);
}
