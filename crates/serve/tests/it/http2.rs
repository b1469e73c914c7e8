//! What an HTTP/2 client may ask of a connection, in frames written by hand.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Http, Origin, Served, serve};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// GET http://h/
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];
/// POST http://h/
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'h'];

struct Connection(TcpStream);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

impl Connection {
    async fn open(served: &Served) -> Self {
        let mut stream = TcpStream::connect(served.gateway.address()).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The other side may have ended it.
        drop(self.0.write_all(bytes).await);
    }

    /// The next frame: kind, stream and payload. `None` at the end.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The next frame of this kind.
    async fn until(&mut self, kind: u8) -> Option<(u32, Vec<u8>)> {
        let look = async {
            loop {
                match self.next().await {
                    Some((found, stream, payload)) if found == kind => {
                        return Some((stream, payload));
                    }
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.expect("something comes")
    }
}

/// The number that a frame ends with: an error, most often.
fn error(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

async fn gateway(origin: &Origin, more: &str) -> Served {
    serve(&format!(
        "[gateway]\nmax_body = \"64MiB\"\n{more}\n[function.o]\nhttp = \"http://{}\"\n[[route]]\npath = \"/\"\nto = \"o\"\n",
        origin.address
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_requests_back_at_once_is_sent_away() {
    let origin = Origin::start().await;
    let served = gateway(&origin, "").await;
    let mut connection = Connection::open(&served).await;
    connection.until(SETTINGS).await.unwrap();
    let mut burst = Vec::new();
    for number in 0..2_000 {
        burst.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, GET));
        burst.extend(frame(RESET, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    connection.send(&burst).await;
    let (_, payload) = connection.until(GO_AWAY).await.expect("it is said why");
    assert_eq!(error(&payload[4..8]), 11, "ENHANCE_YOUR_CALM");
    assert_eq!(connection.until(GO_AWAY).await, None, "and it ends");
    let others = Http::http2(served.gateway.address());
    assert_eq!(others.get("/").await.status, 200, "the others go on");
    assert!(origin.requests() < 200, "few of them went further: {}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_refused() {
    let origin = Origin::start().await;
    let served = gateway(&origin, "").await;
    let mut connection = Connection::open(&served).await;
    connection.until(SETTINGS).await.unwrap();
    connection.send(&frame(HEADERS, END_STREAM, 1, GET)).await;
    // A field of 8 KiB in each frame: x-a: aaa...
    let mut field = vec![0x00, 3];
    field.extend(b"x-a");
    field.extend([0x7f, 0x81, 0x3f]);
    field.resize(field.len() + 8_192, b'a');
    for _ in 0..1_000 {
        connection.send(&frame(CONTINUATION, 0, 1, &field)).await;
    }
    let (_, payload) = connection.until(GO_AWAY).await.expect("it is said why");
    assert_ne!(error(&payload[4..8]), 0);
    assert_eq!(origin.requests(), 0);
    assert_eq!(Http::http2(served.gateway.address()).get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_how_much_it_may_send_and_is_held_to_it() {
    let origin = Origin::start().await;
    let served = gateway(&origin, "").await;
    let mut connection = Connection::open(&served).await;
    let (_, settings) = connection.until(SETTINGS).await.unwrap();
    let of = |wanted: u16| {
        settings.chunks(6).find_map(|pair| {
            let name = u16::from_be_bytes([pair[0], pair[1]]);
            (name == wanted).then(|| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
        })
    };
    let (streams, window, head, connect) = (of(3), of(4), of(6), of(8));
    assert_eq!((streams, window), (Some(1_024), Some(256 * 1024)));
    assert_eq!((head, connect), (Some(64 * 1024), Some(1)));
    let (stream, more) = connection.until(WINDOW_UPDATE).await.unwrap();
    assert_eq!((stream, error(&more)), (0, 1024 * 1024 - 65_535), "all streams together");
    // More than the window of the stream, which nobody reads yet.
    connection.send(&frame(HEADERS, END_HEADERS, 1, POST)).await;
    let piece = vec![b'x'; 16 * 1024];
    for _ in 0..200 {
        connection.send(&frame(DATA, 0, 1, &piece)).await;
    }
    let look = async {
        loop {
            match connection.next().await {
                Some((kind @ (RESET | GO_AWAY), _, payload)) => return (kind, payload),
                Some(_) => {}
                None => panic!("it is said why"),
            }
        }
    };
    let (_, payload) = tokio::time::timeout(Duration::from_secs(20), look).await.unwrap();
    assert_eq!(
        error(&payload[payload.len().min(8) - 4..payload.len().min(8)]),
        3,
        "FLOW_CONTROL_ERROR"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_uses_is_ended_with_a_word() {
    let origin = Origin::start().await;
    let served = gateway(&origin, "idle_timeout = \"300ms\"").await;
    let mut connection = Connection::open(&served).await;
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await;
    let (_, payload) = connection.until(GO_AWAY).await.expect("it is said");
    assert_eq!(error(&payload[4..8]), 0, "NO_ERROR");
    assert_eq!(origin.requests(), 1);
}
