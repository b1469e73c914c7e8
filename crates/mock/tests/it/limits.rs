use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use gatewright_mock::{Config, HttpConfig, MockError, start};
use gatewright_sim::Law;
use serde_json::json;

use crate::client::{openai, parse, post, read, send, server};

#[test]
fn what_is_wrong_in_the_configuration_is_named() {
    let message = |text: &str| {
        let config: Config = toml::from_str(text).unwrap();
        config.check().unwrap_err().to_string()
    };
    assert_eq!(message("threads = 0"), "mock.threads: 0 is out of range; give 1 to 64");
    assert!(message("openai.itl = { fixed = -1 }").starts_with("mock.openai.itl: fixed:"));
    assert!(message("openai.models = []").contains("name one"));
    assert!(message("faults = { error_rate = 0.6, reset_rate = 0.6 }").contains("1.2"));
    assert!(message("http.status = 100").contains("200 to 599"));
    let unknown = toml::from_str::<Config>("openai.tfft = 1").unwrap_err().to_string();
    assert!(unknown.contains("unknown field `tfft`"), "{unknown}");
    let listen = Config { listen: "nowhere".to_owned(), ..Config::default() };
    let error = start(listen).unwrap_err();
    assert!(error.hint().unwrap().contains("127.0.0.1:8000"), "{error}");
}

#[test]
fn a_configuration_goes_to_a_file_and_back() {
    let mut config = Config { http: Some(HttpConfig::default()), ..Config::default() };
    config.openai = Some(gatewright_mock::OpenAiConfig::default());
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
}

#[test]
fn a_port_in_use_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let error = start(Config { listen, ..Config::default() }).unwrap_err();
    assert!(matches!(error, MockError::Bind { .. }), "{error}");
    assert!(error.hint().unwrap().contains("another program"));
}

#[test]
fn bodies_and_heads_that_are_too_long_are_refused() {
    let mock = server(|config| {
        config.limits.body_bytes = 1000;
        config.limits.head_bytes = 8192;
    });
    let long = json!({"prompt": "x".repeat(2000)});
    let reply = post(&mock, "/v1/completions", &long);
    assert_eq!(reply.status, 413);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("1000 bytes"));
    let mut stream = TcpStream::connect(mock.address()).unwrap();
    // No byte more than the server reads: one that it left would end the connection with a reset.
    let head = format!("GET / HTTP/1.1\r\nhost: {}", "x".repeat(8192));
    stream.write_all(&head.as_bytes()[..8192]).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(matches!(parse(&bytes).status, 414 | 431), "{}", parse(&bytes).head);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let mock = server(|config| config.limits.head_seconds = 0.1);
    let mut stream = TcpStream::connect(mock.address()).unwrap();
    let head = b"POST /tokenize HTTP/1.1\r\nhost: mock\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head).unwrap();
    assert_eq!(read(&mut stream).unwrap().status, 408);
}

#[test]
fn one_connection_too_many_is_closed() {
    let mock = server(|config| config.limits.connections = 1);
    let ask = || {
        let mut stream = TcpStream::connect(mock.address()).unwrap();
        // A connection that was closed may take the request all the same.
        let _closed = stream.write_all(b"GET /health HTTP/1.1\r\nhost: mock\r\n\r\n");
        let answered = matches!(stream.read(&mut [0]), Ok(1));
        (stream, answered)
    };
    let (first, answered) = ask();
    assert!(answered);
    assert!(!ask().1, "the only place is taken");
    drop(first);
    // The place is free once the server has noticed.
    while !ask().1 {}
}

#[test]
fn what_is_under_way_ends_before_the_server_does() {
    let mock = openai(|openai| openai.itl = Law::Fixed(0.02));
    let body = json!({"prompt": "x", "stream": true, "max_tokens": 10, "ignore_eos": true});
    let mut stream = send(mock.address(), "POST", "/v1/completions", body.to_string().as_bytes());
    let mut first = [0; 16];
    stream.read_exact(&mut first).unwrap();
    let address = mock.address();
    let summary = mock.stop().unwrap();
    assert_eq!((summary.requests, summary.tokens), (1, 10));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("[DONE]"));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn it_runs_until_it_is_told_to_stop() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = || Config { listen: "127.0.0.1:0".to_owned(), threads: 3, ..Config::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    stop.send(()).unwrap();
    let told = runtime.block_on(gatewright_mock::run(config(), async { stopped.await.unwrap() }));
    assert_eq!(told.unwrap(), gatewright_mock::Summary::default());
    let bad = Config { threads: 0, ..config() };
    assert!(runtime.block_on(gatewright_mock::run(bad, std::future::pending())).is_err());
}

#[test]
fn the_place_of_a_client_that_goes_away_is_free_again() {
    let mock = openai(|openai| {
        openai.slots = std::num::NonZeroU32::new(1);
        openai.itl = Law::Fixed(1000.0);
    });
    let endless = json!({"prompt": "x", "stream": true, "max_tokens": 9, "ignore_eos": true});
    for _ in 0..3 {
        let mut stream =
            send(mock.address(), "POST", "/v1/completions", endless.to_string().as_bytes());
        // Once the first token comes, the stream has the only place.
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains("data: ") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0);
            all.extend_from_slice(&piece[..count]);
        }
    }
    let last = json!({"prompt": "x", "max_tokens": 1});
    let body = last.to_string();
    let reply =
        read(&mut send(mock.address(), "POST", "/v1/completions", body.as_bytes())).unwrap();
    assert_eq!(reply.status, 200);
}
