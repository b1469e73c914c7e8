//! Workers that join: which are taken, how long they may be silent, and a network that is cut without a word.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatewright_control::config::{Override, SystemFile};
use gatewright_protocol::{Frame, FrameDecoder, Hello, VERSION, encode};
use gatewright_serve::Gateway;
use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

use crate::support::{Http, Served, folder, options, python};

/// A gateway that workers join.
async fn joinable(text: &str) -> Served {
    let folder = folder();
    let set = |key: &str| Override::new(key, "127.0.0.1:0", "test");
    let overrides = [set("gateway.listen"), set("gateway.admin"), set("hub.listen")];
    let file = SystemFile::parse(text, &overrides).unwrap();
    let gateway = Gateway::start(file, folder.path().to_owned(), options()).await.unwrap();
    let client = Http::new(gateway.address());
    Served { gateway, folder, client }
}

/// A worker that joins function `f` at `hub`.
fn worker(served: &Served, class: &str, hub: SocketAddr) -> Child {
    let mut command = Command::new(python());
    command
        .args(["-m", "gatewright.worker", class, "--hub", &hub.to_string(), "--function", "f"])
        .current_dir(served.folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A peer that says hello for `f` with this window, and what it is told.
async fn greeted(served: &Served, window: u32) -> (TcpStream, Frame) {
    let mut peer = TcpStream::connect(served.gateway.hub_address().unwrap()).await.unwrap();
    let hello = Hello {
        version: VERSION,
        name: "peer".to_owned(),
        pid: 1,
        window,
        token: String::new(),
        function: Some("f".to_owned()),
        node: "here".to_owned(),
        labels: BTreeMap::new(),
        cpus: None,
        memory: None,
    };
    let mut frames = BytesMut::new();
    encode(&Frame::Hello(hello), &mut frames).unwrap();
    peer.write_all(&frames).await.unwrap();
    let mut decoder = FrameDecoder::new(4096);
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return (peer, frame);
        }
        assert!(peer.read_buf(decoder.buffer()).await.unwrap() > 0, "it is told something");
    }
}

/// A network between workers and a hub.
struct Wire {
    address: SocketAddr,
    /// Set when it is to swallow everything: no end of a connection is passed on either.
    cut: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Carries 64 KiB each `pause` in each direction of a connection.
    fn to(hub: SocketAddr, pause: Duration) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(64 << 10).unwrap();
                let far = socket.connect(hub).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near.0, far.1, Arc::clone(&state), pause));
                tokio::spawn(carry(far.0, near.1, Arc::clone(&state), pause));
            }
        });
        Self { address, cut, task }
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Arc<AtomicBool>,
    pause: Duration,
) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut piece).await.unwrap_or_default();
        if cut.load(Ordering::SeqCst) {
            // Held open: the other side is told nothing.
            if read == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if read == 0 || to.write_all(&piece[..read]).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

const JOINED: &str = "[hub]\nliveness = \"1h\"\nremote_liveness = \"1s\"\n\
                      [function.f]\nremote = true\ntimeout = \"1m\"\nretries = { budget = 1.0 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_noticed_and_its_request_goes_elsewhere() {
    let served = joinable(JOINED).await;
    let hub = served.gateway.hub_address().unwrap();
    let wire = Wire::to(hub, Duration::ZERO);
    let _beyond = worker(&served, "models:Gate", wire.address);
    served.until("f", |function| function["availableReplicas"] == 1).await;
    let client = served.client.clone();
    let call = tokio::spawn(async move { client.call("f", "\"open\"").await });
    served.until("f", |function| function["inFlight"] == 1).await;
    wire.cut();
    std::fs::write(served.file("open"), "").unwrap();
    let cut = std::time::Instant::now();
    let _near = worker(&served, "models:Gate", hub);
    served.until("f", |function| function["totals"]["replicas_lost"] == 1).await;
    println!("a cut was noticed after {:?}", cut.elapsed());
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "open"));
    assert_eq!(served.function("f").await["totals"]["retries"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_worker_that_answers_no_pings_is_let_go() {
    let served = joinable(JOINED).await;
    let frozen = worker(&served, "models:Same", served.gateway.hub_address().unwrap());
    served.until("f", |function| function["availableReplicas"] == 1).await;
    let pid = Pid::from_raw(frozen.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    served.until("f", |function| function["totals"]["replicas_lost"] == 1).await;
    // Awake again, it sees the end of its connection and joins anew.
    kill_process(pid, Signal::CONT).unwrap();
    served.until("f", |function| function["availableReplicas"] == 1).await;
    assert_eq!(served.client.call("f", "3").await.text(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_two_spans_is_for_its_own_workers() {
    let text = "[hub]\nliveness = \"1s\"\nremote_liveness = \"1h\"\n[function.f]\nremote = true\n\
                [function.own]\npython = \"models:Pid\"\n";
    let served = joinable(text).await;
    let joined = worker(&served, "models:Same", served.gateway.hub_address().unwrap());
    served.until("f", |function| function["availableReplicas"] == 1).await;
    let stop = |pid: i32| kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    stop(joined.id().unwrap().cast_signed());
    stop(served.client.get("/function/own").await.text().parse().unwrap());
    served.until("own", |function| function["totals"]["replicas_lost"] == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_on_a_slow_network_is_no_silence() {
    let served = joinable(JOINED).await;
    let wire = Wire::to(served.gateway.hub_address().unwrap(), Duration::from_millis(15));
    let _beyond = worker(&served, "models:Same", wire.address);
    served.until("f", |function| function["availableReplicas"] == 1).await;
    let bytes = [("content-type", "application/octet-stream")];
    let long = Bytes::from(vec![7; 15 << 20]);
    let answer = served.client.send(Method::POST, "/function/f", &bytes, long).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 15 << 20));
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_and_never_answers_is_let_go() {
    let served = joinable(JOINED).await;
    let (mut peer, frame) = greeted(&served, 1).await;
    assert!(matches!(frame, Frame::Init { .. }), "{frame:?}");
    let mut ready = BytesMut::new();
    encode(&Frame::Ready, &mut ready).unwrap();
    peer.write_all(&ready).await.unwrap();
    let mut pings = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), peer.read_to_end(&mut pings)).await;
    assert!(end.is_ok(), "its connection is closed");
    assert_eq!(pings.len(), 5 * 7, "it was pinged as often as it may be");
    served.until("f", |function| function["totals"]["replicas_lost"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_too_few_requests_or_is_one_too_many_is_told_so() {
    let text = "[hub]\nmax_workers = 1\n[function.f]\nremote = true\nconcurrency = 2\n";
    let served = joinable(text).await;
    let (_narrow, told) = greeted(&served, 1).await;
    let reason = "it takes 1 requests at a time, not 2".to_owned();
    assert_eq!(told, Frame::Bye { reason });
    let (first, told) = greeted(&served, 2).await;
    assert!(matches!(told, Frame::Init { .. }), "{told:?}");
    let (_second, told) = greeted(&served, 2).await;
    let reason = "there are as many workers as hub.max_workers allows".to_owned();
    assert_eq!(told, Frame::Bye { reason });
    drop(first);
    for _ in 0..500 {
        let (_third, told) = greeted(&served, 2).await;
        if matches!(told, Frame::Init { .. }) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("its place is not given to another");
}
