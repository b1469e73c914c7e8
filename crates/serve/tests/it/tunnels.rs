//! Connections that switch to another protocol.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Served, raw, serve};

/// An upstream that answers each request with `head`, and then sends back in capitals what it gets. What it was asked
/// goes to the channel.
async fn shouter(head: &'static str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let question = read_head(&mut stream).await;
                let accept = question.lines().find_map(|line| {
                    let key = line.strip_prefix("sec-websocket-key: ")?;
                    let mut hash = sha1_smol::Sha1::new();
                    hash.update(key.as_bytes());
                    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
                    Some(base64(&hash.digest().bytes()))
                });
                let head = head.replace("{accept}", &accept.unwrap_or_default());
                // Nobody may listen to what it was asked.
                drop(asked.send(question));
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    bytes[..length].make_ascii_uppercase();
                    if stream.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, questions)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\
     sec-websocket-accept: {accept}\r\n\r\n";
const ASKS: &[u8] =
    b"GET /ws/a?b=c HTTP/1.1\r\nhost: front\r\nconnection: Upgrade\r\nupgrade: h2c, websocket\r\n\
      http2-settings: AAMAAABkAAQAAP__\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Reads a head, no byte more.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn gateway(upstream: SocketAddr, upgrade: &str) -> Served {
    serve(&format!(
        "[gateway]\ndrain = \"200ms\"\n[function.o]\nhttp = \"http://{upstream}/base\"\ntimeout = \"1s\"\n\
         [[route]]\npath = \"/ws/{{*rest}}\"\nto = \"o\"\nupgrade = {upgrade}\n\
         [[route]]\npath = \"/plain/{{*rest}}\"\nto = \"o\"\n"
    ))
    .await
}

/// A tunnel through the gateway.
async fn tunnel(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.gateway.address()).await.unwrap();
    stream.write_all(ASKS).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

async fn echo(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), text.to_uppercase());
}

/// The value of a metric, with its labels.
async fn metric(served: &Served, name: &str) -> String {
    let text = served.admin().get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
}

async fn until_metric(served: &Served, name: &str, value: &str) {
    for _ in 0..1000 {
        if metric(served, name).await == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is {}", metric(served, name).await);
}

const OPEN: &str = "gatewright_tunnels{function=\"o\"}";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_once_the_upstream_has_switched() {
    let (upstream, mut questions) = shouter(SWITCHES).await;
    let served = gateway(upstream, "[\"websocket\"]").await;
    let mut stream = TcpStream::connect(served.gateway.address()).await.unwrap();
    // What a client sends at once is not lost.
    stream.write_all(&[ASKS, b"early"].concat()).await.unwrap();
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(
        head.contains("\r\nupgrade: websocket\r\n") && head.contains("connection: upgrade\r\n")
    );
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"EARLY");
    let asked = questions.recv().await.unwrap();
    assert!(asked.starts_with("GET /base/ws/a?b=c HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("upgrade: websocket\r\n") && asked.contains("via: 1.1 gatewright-"),
        "{asked}"
    );
    assert!(!asked.contains("h2c") && !asked.contains("http2-settings"), "{asked}");
    // Longer than a request may take.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    echo(&mut stream, "hello").await;
    until_metric(&served, OPEN, "1").await;
    assert_eq!(
        metric(&served, "gatewright_tunnel_bytes_total{function=\"o\",to=\"upstream\"}").await,
        "10"
    );
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut early).await.unwrap(), 0, "the end is passed on and comes back");
    until_metric(&served, OPEN, "0").await;
    assert_eq!(served.function("o").await["totals"]["ok"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_the_upstream_or_the_route_refuses_is_an_ordinary_request() {
    let (upstream, mut questions) =
        shouter("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let served = gateway(upstream, "[\"websocket\"]").await;
    let mut stream = TcpStream::connect(served.gateway.address()).await.unwrap();
    stream.write_all(ASKS).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("content-length: 2\r\n"), "{head}");
    questions.recv().await.unwrap();

    let ask = String::from_utf8(ASKS.to_vec()).unwrap();
    for ask in [ask.replace("/ws/", "/plain/"), ask.replace("h2c, websocket", "h2c")] {
        let ask = ask.replace("connection: Upgrade", "connection: close, Upgrade, HTTP2-Settings");
        let answer = raw(served.gateway.address(), ask.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let asked = questions.recv().await.unwrap().to_lowercase();
        assert!(!asked.contains("upgrade") && !asked.contains("http2-settings"), "{asked}");
    }
    let answer = raw(
        served.gateway.address(),
        b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_switches_unasked_or_to_something_else_is_not_followed() {
    let (upstream, _questions) = shouter(SWITCHES).await;
    let served = gateway(upstream, "[\"chat\"]").await;
    let answer = served.client.get("/plain/a").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let ask = String::from_utf8(ASKS.to_vec()).unwrap().replace("websocket", "chat");
    let answer =
        raw(served.gateway.address(), ask.replace("Upgrade\r\n", "Upgrade, close\r\n").as_bytes())
            .await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_bounded_in_number_and_silence() {
    let (upstream, _questions) = shouter(SWITCHES).await;
    let rules = "{ protocols = [\"websocket\"], max = 1, idle_timeout = \"300ms\" }";
    let served = gateway(upstream, rules).await;
    let mut first = tunnel(&served).await;
    echo(&mut first, "there").await;
    let second = String::from_utf8(ASKS.to_vec()).unwrap().replace(": Upgrade", ": close, Upgrade");
    let second = raw(served.gateway.address(), second.as_bytes()).await;
    assert!(second.starts_with("HTTP/1.1 503 ") && second.contains("retry-after"), "{second}");
    assert_eq!(first.read(&mut [0; 8]).await.unwrap_or(0), 0, "it was silent for too long");
    until_metric(&served, OPEN, "0").await;
    tunnel(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_waits_for_tunnels_as_for_requests() {
    let (upstream, _questions) = shouter(SWITCHES).await;
    let served = gateway(upstream, "[\"websocket\"]").await;
    let mut stream = tunnel(&served).await;
    let stopping = tokio::spawn(served.gateway.stop());
    tokio::time::sleep(Duration::from_millis(50)).await;
    echo(&mut stream, "still here").await;
    assert!(!stopping.is_finished());
    stopping.await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "its time was up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_in_http2_is_one_in_http1_at_the_upstream() {
    let (upstream, mut questions) = shouter(SWITCHES).await;
    let served = gateway(upstream, "[\"websocket\"]").await;
    let stream = TcpStream::connect(served.gateway.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let url = format!("http://{}", served.gateway.address());
    let connect = |protocol: &'static str, path: &str| {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("{url}{path}").parse().unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
        request
    };
    // The server's settings allow it, once they are here.
    sender
        .send_request(Request::get(format!("{url}/nowhere")).body(Empty::new()).unwrap())
        .await
        .unwrap();
    let response = sender.send_request(connect("websocket", "/ws/a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let asked = questions.recv().await.unwrap();
    assert!(
        asked.starts_with("GET /base/ws/a HTTP/1.1\r\n") && asked.contains("upgrade: websocket"),
        "{asked}"
    );
    assert!(asked.contains("sec-websocket-version: 13"), "{asked}");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HELLO");
    for (protocol, path) in [("websocket", "/plain/a"), ("chat", "/ws/a")] {
        let refused = sender.send_request(connect(protocol, path)).await.unwrap();
        assert_eq!(refused.status(), StatusCode::NOT_IMPLEMENTED);
    }
}
