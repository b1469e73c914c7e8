//! A client as plain as can be: one request a connection, over a blocking socket.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gatewright_mock::{Config, Mock, OpenAiConfig, start};
use gatewright_protocol::SseDecoder;
use gatewright_sim::Law;
use serde_json::Value;

/// An answer, as it was read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The events of a stream: (type, data).
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        events(&self.body)
    }
}

pub(crate) fn events(body: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut events = Vec::new();
    let mut decoder = SseDecoder::new(1 << 20);
    decoder.feed(body, |event| events.push((text(event.event), text(event.data)))).unwrap();
    events
}

/// A server on a free port, quick unless told otherwise.
pub(crate) fn server(change: impl FnOnce(&mut Config)) -> Mock {
    let mut config = Config { listen: "127.0.0.1:0".to_owned(), ..Config::default() };
    config.limits.grace_seconds = 5.0;
    change(&mut config);
    start(config).unwrap()
}

/// A quick language model.
pub(crate) fn openai(change: impl FnOnce(&mut OpenAiConfig)) -> Mock {
    let mut openai = OpenAiConfig {
        ttft: Law::Fixed(0.0),
        itl: Law::Fixed(0.0),
        output_tokens: Law::Fixed(7.0),
        ..OpenAiConfig::default()
    };
    change(&mut openai);
    server(|config| config.openai = Some(openai))
}

pub(crate) fn send(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses the body may have closed the connection already.
    let _refused = stream.write_all(body);
    stream
}

/// Everything that comes until the connection ends.
pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(&bytes[end..]) } else { bytes[end..].to_vec() };
    Reply { status, head, body }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let start = end + 2;
        let stop = (start + size).min(bytes.len());
        body.extend_from_slice(&bytes[start..stop]);
        bytes = &bytes[(stop + 2).min(bytes.len())..];
    }
    body
}

pub(crate) fn get(mock: &Mock, path: &str) -> Reply {
    read(&mut send(mock.address(), "GET", path, b"")).unwrap()
}

pub(crate) fn post(mock: &Mock, path: &str, body: &Value) -> Reply {
    read(&mut send(mock.address(), "POST", path, body.to_string().as_bytes())).unwrap()
}
