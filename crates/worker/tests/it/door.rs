//! The door for workers while others knock who are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use gatewright_control::config::{Override, SystemFile};
use gatewright_protocol::{Frame, FrameDecoder, Hello, VERSION, encode};
use gatewright_serve::{Gateway, Options};
use gatewright_worker::{Request, service_fn};

use crate::support::{Running, run, worker};

/// A gateway with one function, `f`, that a worker with the right token answers.
struct Place {
    gateway: Gateway,
    worker: Running,
    folder: tempfile::TempDir,
}

async fn place() -> Place {
    let set = |key: &str| Override::new(key, "127.0.0.1:0", "test");
    let listens = [set("gateway.listen"), set("gateway.admin"), set("hub.listen")];
    let system = SystemFile::parse("[function.f]\nremote = true\n", &listens).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        worker_token: Some("secret".to_owned()),
        hello_timeout: Duration::from_secs(2),
        records: Some(folder.path().join("records.jsonl")),
        ..Options::default()
    };
    let gateway = Gateway::start(system, folder.path().to_owned(), options).await.unwrap();
    let worker = worker(gateway.hub_address().unwrap()).token("secret").function("f");
    let worker = worker.node("rack-7").label("zone", "eu").label("gpu", "a100");
    let worker = run(
        worker,
        service_fn(async |request: Request| request.input::<u32>().map_err(Into::into)),
    );
    Place { gateway, worker, folder }
}

/// What an HTTP server says, head and body.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

impl Place {
    fn hub(&self) -> SocketAddr {
        self.gateway.hub_address().unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let (address, path) = (self.gateway.admin_address(), path.to_owned());
        let get = move || {
            http(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        };
        tokio::task::spawn_blocking(get).await.unwrap()
    }

    /// How many connections were refused for this cause.
    async fn refused(&self, cause: &str) -> u64 {
        let text = self.get("/metrics").await;
        let line = format!("gatewright_workers_refused_total{{cause=\"{cause}\"}} ");
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0, |count| count.parse().unwrap())
    }

    /// The worker answers, and it is the only one.
    async fn serves(&self) {
        let address = self.gateway.address();
        let post = "POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n42";
        let answer = tokio::task::spawn_blocking(move || http(address, post)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("42"), "{answer}");
        let status = self.get("/system/function/f").await;
        assert!(status.contains("\"availableReplicas\":1"), "{status}");
    }

    async fn end(self) {
        self.worker.stop().await.unwrap();
        self.gateway.stop().await;
    }
}

/// What the hub says to these bytes before it closes the connection, which it must do by itself.
async fn say(hub: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let talk = move || {
        let mut stream = TcpStream::connect(hub).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may have closed already.
        drop(stream.write_all(&bytes));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("still open"),
            // Reset: it did not read all that was sent.
            Err(_) | Ok(_) => answer,
        }
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

fn frame(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes).unwrap();
    bytes.to_vec()
}

fn hello(token: &str) -> Vec<u8> {
    frame(&Frame::Hello(Hello {
        version: VERSION,
        name: "knocker".into(),
        pid: 1,
        window: 1,
        token: token.into(),
        function: Some("f".into()),
        node: "somewhere".into(),
        labels: [].into(),
        cpus: None,
        memory: None,
    }))
}

fn bye(answer: &[u8]) -> String {
    let mut decoder = FrameDecoder::new(1 << 16);
    decoder.buffer().extend_from_slice(answer);
    match decoder.next_frame() {
        Ok(Some(Frame::Bye { reason })) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_its_connection_and_nothing_else() {
    let place = place().await;
    place.serves().await;
    let mut luck = 1u64;
    let mut random = || {
        luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (luck >> 56) as u8
    };
    for length in 0..60 {
        // Whatever the first four say, most of it is no hello.
        let mut bytes: Vec<u8> = (0..length * 7).map(|_| random()).collect();
        bytes.splice(..bytes.len().min(4), (length as u32).to_le_bytes());
        say(place.hub(), bytes).await;
    }
    assert_eq!(
        bye(&say(place.hub(), b"\xff\xff\xff\xff".to_vec()).await),
        "a frame of 4294967295 bytes is announced, at most 4096 are taken"
    );
    assert_eq!(
        bye(&say(place.hub(), frame(&Frame::Ready)).await),
        "the first frame is not a hello"
    );
    assert!(bye(&say(place.hub(), b"\x16\x03\x01\x02\x00\x01".to_vec()).await).contains("TLS"));
    assert_eq!(place.refused("tls").await, 1);
    assert!(place.refused("protocol").await >= 50);
    place.serves().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_hello_has_its_time_and_no_more() {
    let place = place().await;
    let whole = hello("secret");
    let answer = say(place.hub(), whole[..whole.len() / 2].to_vec()).await;
    assert_eq!(bye(&answer), "it did not say hello in time");
    assert_eq!(place.refused("silent").await, 1);
    place.serves().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_counted_and_closed() {
    let place = place().await;
    for token in ["", "secre", "secret2", "SECRET", "another"] {
        assert_eq!(bye(&say(place.hub(), hello(token)).await), "its token is not the right one");
    }
    assert_eq!(place.refused("token").await, 5);
    place.serves().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_that_say_nothing_keep_no_worker_out() {
    let place = place().await;
    place.serves().await;
    let hub = place.hub();
    let knock = move || (0..2000).map(|_| TcpStream::connect(hub).unwrap()).collect::<Vec<_>>();
    let crowd = tokio::task::spawn_blocking(knock).await.unwrap();
    // All but those that there is room for were closed when others came after them.
    let mut closed = 0;
    for _ in 0..2000 {
        // On a slow machine, some have had their time before.
        closed = place.refused("crowd").await + place.refused("silent").await;
        if closed >= 2000 - 256 - 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(closed >= 2000 - 256 - 100 && place.refused("crowd").await > 0, "{closed} closed");
    let late = worker(hub).token("secret").function("f");
    let late = run(late, service_fn(async |_request: Request| Ok(43)));
    for _ in 0..2000 {
        if place.get("/system/function/f").await.contains("\"availableReplicas\":2") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    late.stop().await.unwrap();
    place.serves().await;
    drop(crowd);
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_worker_is_stands_in_its_status_and_in_records() {
    let place = place().await;
    place.serves().await;
    let status = place.get("/system/function/f").await;
    let (_, body) = status.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    let instance = &status["instances"][0];
    assert_eq!(instance["node"], "rack-7");
    assert_eq!(instance["labels"], serde_json::json!({"gpu": "a100", "zone": "eu"}));
    assert!(instance["cpus"].as_u64().unwrap() > 0);
    assert!(instance["memory"].as_u64().unwrap() > 1 << 20);
    let Place { gateway, worker, folder } = place;
    worker.stop().await.unwrap();
    gateway.stop().await;
    let records = std::fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    assert_eq!(record["node"], "rack-7", "{record}");
}
