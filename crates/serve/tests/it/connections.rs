//! What clients do to connections.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Http, Origin, raw, serve};

const SAME: &str = "[gateway]\nmax_body = \"64KiB\"\nheader_timeout = \"500ms\"\n\
                    [function.f]\npython = \"models:Same\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn http2_works_from_the_first_byte() {
    let served = serve(SAME).await;
    let client = Http::http2(served.client.address);
    let calls: Vec<_> = (0..20)
        .map(|x| {
            let client = client.clone();
            tokio::spawn(async move { client.call("f", &format!("[{x}]")).await.text() })
        })
        .collect();
    for (x, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), x.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_is_refused() {
    let served = serve(SAME).await;
    let long = format!("\"{}\"", "x".repeat(100_000));
    let answer = served.client.call("f", &long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.json()["hint"].as_str().unwrap().contains("gateway.max_body"));
    // Also when its length is not announced.
    let mut chunked =
        b"POST /function/f HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..10 {
        chunked.extend_from_slice(format!("2710\r\n{}\r\n", "1".repeat(10_000)).as_bytes());
    }
    let answer = raw(served.client.address, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(served.client.call("f", "1").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_closed() {
    let served = serve(SAME).await;
    let long_head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let cases: [(&[u8], &str); 6] = [
        (b"nonsense\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", "HTTP/1.1 400 "),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "HTTP/1.1 400 ",
        ),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 400 "),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", "HTTP/1.1 400 "),
        (long_head.as_bytes(), "HTTP/1.1 431 "),
    ];
    for (bytes, expected) in cases {
        let answer = raw(served.client.address, bytes).await;
        let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(answer.starts_with(expected), "{sent:?} was answered {answer:?}");
    }
    assert_eq!(served.client.call("f", "1").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_smuggled_behind_two_lengths() {
    let served = serve(SAME).await;
    // By its length the body is five bytes and a second request follows; by its chunks there is none.
    let smuggling = b"POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\
                      transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /function/f HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = raw(served.client.address, smuggling).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

/// Sends `bytes` and reads until the answer ends in `end`.
async fn exchange(stream: &mut TcpStream, bytes: &[u8], end: &str) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.ends_with(end) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let count = read.await.unwrap().unwrap();
        assert_ne!(count, 0, "closed after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_a_chunked_request_and_after_a_pause() {
    let served = serve(SAME).await;
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    let chunked = b"POST /function/f HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n42\r\n0\r\n\r\n";
    for _ in 0..2 {
        let answer = exchange(&mut stream, chunked, "\r\n\r\n42").await;
        assert!(!answer.contains("connection: close"), "{answer}");
        // Longer than a head may take.
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    // A head that is begun has to come to its end.
    stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
    closed.await.expect("it is closed").unwrap_or_default();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_uses_is_closed() {
    let text = SAME.replace("header_timeout", "idle_timeout = \"300ms\"\nheader_timeout");
    let served = serve(&text).await;
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    let ask = b"POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n7";
    exchange(&mut stream, ask, "7").await;
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
    closed.await.expect("it is closed").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_or_half_are_not_waited_for() {
    let served = serve(SAME).await;
    for bytes in ["", "P", "PRI * HT", "GET / HTTP/1.1\r\nhos"] {
        let answer = raw(served.client.address, bytes.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{bytes:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row_on_one_connection_are_answered_in_a_row() {
    let served = serve(SAME).await;
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    for x in ["1", "22", "333"] {
        let head =
            format!("POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", x.len());
        stream.write_all(format!("{head}{x}").as_bytes()).await.unwrap();
    }
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while seen.matches("HTTP/1.1 200").count() < 3 || !seen.ends_with("333") {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer));
        let count = read.await.unwrap().unwrap();
        assert_ne!(count, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let bodies: Vec<_> = ["\r\n\r\n1HTTP", "\r\n\r\n22HTTP", "\r\n\r\n333"]
        .map(|body| seen.find(body).unwrap_or_else(|| panic!("{body:?} in {seen}")))
        .into();
    assert!(bodies.is_sorted());
}

/// What differs between two parsers is how requests are smuggled past one of them: none of these may be answered as if
/// it were good, nor what follows it be taken for a request.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_smuggle_come_to_nothing() {
    let served = serve(SAME).await;
    let heads: [(&str, &str); 12] = [
        ("a space before the colon", "transfer-encoding : chunked"),
        ("a coding that is none", "transfer-encoding: xchunked"),
        ("chunked is not the last", "transfer-encoding: chunked, gzip"),
        ("a tab for a name", "\ttransfer-encoding: chunked"),
        ("a folded line", "x: y\r\n transfer-encoding: chunked"),
        ("a signed length", "content-length: +5"),
        ("a negative length", "content-length: -5"),
        ("a hexadecimal length", "content-length: 0x5"),
        ("two lengths in a line", "content-length: 5, 6"),
        ("a length that no number holds", "content-length: 99999999999999999999"),
        ("an end of line in a value", "x: y\rcontent-length: 5"),
        ("a zero byte in a value", "x: y\0z"),
    ];
    for (what, line) in heads {
        let attack = format!(
            "POST /function/f HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n\
             0\r\n\r\nGET /function/f HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        let answer = raw(served.client.address, attack.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
    }
    for (what, chunks) in [
        ("a size that no number holds", "fffffffffffffffff\r\nx"),
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\nx\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "1\r\nxGET / HTTP/1.1\r\n\r\n"),
    ] {
        let head = "POST /function/f HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = raw(served.client.address, format!("{head}{chunks}").as_bytes()).await;
        assert!(!answer.contains("HTTP/1.1 2"), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    }
    assert_eq!(served.client.call("f", "1").await.text(), "1");
}

/// CVE-2023-44487: requests that are reset as soon as they are made cost a server more than its client.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_all_its_requests_is_sent_away() {
    let served = serve(SAME).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        bytes.extend_from_slice(&[0, 0, payload.len() as u8, kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    };
    frame(4, 0, 0, &[]);
    for number in 0..500 {
        // GET / of host x, and RST_STREAM with CANCEL.
        frame(1, 5, number * 2 + 1, &[0x82, 0x86, 0x84, 0x41, 0x01, b'x']);
        frame(3, 0, number * 2 + 1, &[0, 0, 0, 8]);
    }
    let mut stream = TcpStream::connect(served.client.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
    let _end = read.await.expect("the connection is closed");
    let mut rest = &answer[..];
    let mut goodbye = None;
    while rest.len() >= 9 {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        if rest[3] == 7 {
            goodbye = Some(rest[9 + 7]);
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    assert_eq!(goodbye, Some(0xb), "GOAWAY with ENHANCE_YOUR_CALM");
    assert_eq!(served.client.call("f", "1").await.text(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_when_it_is_wanted_and_refused_before_it_is_sent() {
    let origin = Origin::start().await;
    let served = serve(&format!(
        "[gateway]\nmax_body = \"1MiB\"\n[function.o]\nhttp = \"http://{}\"\n[function.same]\npython = \"models:Same\"\n",
        origin.address
    ))
    .await;
    for (path, length) in [("/function/o", 5), ("/function/o", 300_000), ("/function/same", 5)] {
        let mut stream = TcpStream::connect(served.gateway.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-Continue\r\nconnection: close\r\ncontent-type: text/plain\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut word = [0; 25];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n", "{path}");
        stream.write_all(&vec![b'x'; length]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let ask = |fields: &str| format!("POST /function/o HTTP/1.1\r\nhost: h\r\n{fields}\r\n\r\n");
    // Neither sends its body.
    let address = served.gateway.address();
    let long =
        raw(address, ask("expect: 100-continue\r\ncontent-length: 9000000").as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 413 "), "{long}");
    let other = raw(address, ask("expect: 200-ok\r\ncontent-length: 9000000").as_bytes()).await;
    assert!(other.starts_with("HTTP/1.1 417 "), "{other}");
    let nowhere =
        ask("expect: 100-continue\r\ncontent-length: 9").replace("/function/o", "/nowhere");
    let nowhere = raw(address, nowhere.as_bytes()).await;
    assert!(nowhere.starts_with("HTTP/1.1 404 "), "{nowhere}");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_connects_at_once_waits_to_be_accepted() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let crowd = most.trim().parse::<usize>().unwrap().min(2_000);
    // It takes one, and the others wait: a listener without room for them would not answer them.
    let served =
        serve("[gateway]\nmax_connections = 1\n[function.f]\nhttp = \"http://127.0.0.1:1\"\n")
            .await;
    let mut connected = Vec::new();
    for _ in 0..crowd {
        let connecting = TcpStream::connect(served.client.address);
        let connecting = tokio::time::timeout(Duration::from_secs(20), connecting);
        connected.push(connecting.await.expect("there is room").unwrap());
    }
    assert_eq!(connected.len(), crowd);
}
