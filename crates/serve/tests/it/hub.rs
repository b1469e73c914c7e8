//! Batches, urgency, limits, reloads; workers that join over TCP; the hub without a gateway.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::config::{Override, SystemFile};
use gatewright_serve::{EmbeddedHub, Gateway, HubError, HubOptions, Options, ServeError};
use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::{Http, Served, folder, options, python, serve_with};

const POOL: &str = r#"
import os, time
import gatewright

class Sums:
    def __call__(self, items):
        if "raise" in items:
            raise ValueError("not this batch")
        if "short" in items:
            return items[1:]
        return [[len(items), item] for item in items]

class Order:
    """Says in which order it was called."""
    def __init__(self):
        self.calls = 0
    def __call__(self, seconds=0):
        time.sleep(seconds)
        self.calls += 1
        return self.calls

class Glutton:
    def __init__(self):
        self.eaten = []
    def __call__(self, mebibytes=0):
        self.eaten.append(b"x" * (mebibytes << 20))
        return os.getpid()

class Pid:
    def __call__(self, seconds=0):
        time.sleep(seconds)
        return os.getpid()

class Context:
    def __call__(self):
        request = gatewright.current_request()
        assert 0 < request.remaining <= 30
        while not request.cancelled:
            time.sleep(0.01)
        open("cancelled", "w").close()
"#;

fn pool() -> TempDir {
    let folder = folder();
    std::fs::write(folder.path().join("pool.py"), POOL).unwrap();
    folder
}

async fn serve_pool(text: &str) -> Served {
    serve_with(text, pool(), options()).await
}

/// Calls `f` with these bodies at the same time; the answers in the order of the bodies.
async fn at_once(served: &Served, bodies: &[&str]) -> Vec<(StatusCode, String)> {
    let calls: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (client, body) = (served.client.clone(), (*body).to_owned());
            tokio::spawn(async move { client.call("f", &body).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        answers.push((answer.status, answer.text()));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_call_with_a_list() {
    let served = serve_pool(
        "[function.f]\npython = \"pool:Sums\"\nbatch = { max_size = 3, max_wait = \"10s\" }\n",
    )
    .await;
    let ok = |text: &str| (StatusCode::OK, text.to_owned());
    let answers = at_once(&served, &["1", "\"two\"", "{\"three\": 3}"]).await;
    assert_eq!(answers, [ok("[3,1]"), ok("[3,\"two\"]"), ok("[3,{\"three\":3}]")]);
    // One of them is no item of a batch: its own failure.
    let answers = at_once(&served, &["[1, 2]", "4", "5"]).await;
    assert_eq!(answers[0].0, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answers[0].1.contains("one positional argument"), "{}", answers[0].1);
    assert_eq!(answers[1..], [ok("[2,4]"), ok("[2,5]")]);
    for (word, text) in [("raise", "not this batch"), ("short", "answered with 2 results")] {
        let word = format!("\"{word}\"");
        for (status, answer) in at_once(&served, &[&word, "1", "2"]).await {
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(answer.contains(text), "{answer}");
        }
    }
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_urgent_goes_first_and_who_is_refused_is_told_when_to_return() {
    let served =
        serve_pool("[function.f]\npython = \"pool:Order\"\nqueue = { capacity = 2 }\n").await;
    let ask = |seconds: &'static str, urgency: &'static str| {
        let client = served.client.clone();
        let headers = [("priority", urgency), ("content-type", "application/json")];
        tokio::spawn(async move {
            client.send(Method::POST, "/function/f", &headers, seconds).await.unwrap()
        })
    };
    assert_eq!(ask("1.2", "").await.unwrap().text(), "1");
    let running = ask("1.2", "");
    served.until("f", |function| function["inFlight"] == 1).await;
    let late = ask("0", "u=6");
    served.until("f", |function| function["queued"] == 1).await;
    let urgent = ask("0", "u=0, i");
    served.until("f", |function| function["queued"] == 2).await;
    let refused = ask("0", "u=0").await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    // Two wait and this one would, each for about the 1.2 s of the first call.
    let seconds: u32 = refused.field("retry-after").parse().unwrap();
    assert!((3..=5).contains(&seconds), "{seconds}");
    assert_eq!(running.await.unwrap().text(), "2");
    assert_eq!(
        (urgent.await.unwrap().text(), late.await.unwrap().text()),
        ("3".into(), "4".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_costs_the_worker_its_life() {
    let served = serve_pool(
        "[function.f]\npython = \"pool:Pid\"\nmax_execution = \"500ms\"\n\
         [function.g]\npython = \"pool:Pid\"\ntimeout = \"300ms\"\ncancel_grace = \"200ms\"\n",
    )
    .await;
    for name in ["f", "g"] {
        let first = served.client.call(name, "0").await.text();
        let late = served.client.call(name, "1000").await;
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
        served.until(name, |function| function["totals"]["replicas_lost"] == 1).await;
        served.until(name, |function| function["availableReplicas"] == 1).await;
        assert_ne!(served.client.call(name, "0").await.text(), first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_above_its_memory_is_replaced_without_a_lost_request() {
    let served =
        serve_pool("[function.f]\npython = \"pool:Glutton\"\nmemory_limit = \"100MiB\"\n").await;
    let first = served.client.call("f", "0").await.text();
    assert_eq!(served.client.call("f", "0").await.text(), first);
    assert_eq!(served.client.call("f", "150").await.text(), first);
    loop {
        let answer = served.client.call("f", "0").await;
        assert_eq!(answer.status, StatusCode::OK);
        if answer.text() != first {
            break;
        }
    }
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_serves_the_new_code_and_loses_nothing() {
    let served = serve_pool("[function.f]\npython = \"pool:Pid\"\nreplicas = { min = 2 }\n").await;
    let new = POOL.replace("return os.getpid()", "return \"new\"");
    std::fs::write(served.file("pool.py"), new).unwrap();
    let admin = served.admin();
    let reload = admin.send(Method::POST, "/system/reload/f", &[], "").await.unwrap();
    assert_eq!(reload.status, StatusCode::ACCEPTED);
    let mut answers = 0;
    while served.client.call("f", "0.01").await.text() != "new" || answers < 20 {
        answers += 1;
        assert!(answers < 2_000, "the new code never came");
    }
    served.until("f", |function| function["instances"].as_array().unwrap().len() == 2).await;
    assert_eq!(served.client.call("f", "0").await.text(), "new");
    let totals = &served.function("f").await["totals"];
    assert_eq!(totals["arrived"], totals["ok"]);
    let missing = admin.send(Method::POST, "/system/reload/g", &[], "").await.unwrap();
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_code_knows_that_nobody_waits() {
    let served = serve_pool("[function.f]\npython = \"pool:Context\"\n").await;
    let leaving = served.client.send(Method::GET, "/function/f", &[], "");
    assert!(tokio::time::timeout(Duration::from_millis(300), leaving).await.is_err());
    served.until("f", |function| function["inFlight"] == 0).await;
    assert!(served.file("cancelled").exists());
}

// Workers from elsewhere.

/// A gateway with a door at this address.
async fn with_door(text: &str, hub: &str, token: Option<&str>) -> Result<Served, ServeError> {
    let options = Options { worker_token: token.map(str::to_owned), ..options() };
    with_door_and(text, hub, pool(), options).await
}

async fn with_door_and(
    text: &str,
    hub: &str,
    folder: TempDir,
    options: Options,
) -> Result<Served, ServeError> {
    let set = |key: &str, value: &str| Override::new(key, value, "test");
    let overrides = [
        set("gateway.listen", "127.0.0.1:0"),
        set("gateway.admin", "127.0.0.1:0"),
        set("hub.listen", hub),
    ];
    let file = SystemFile::parse(text, &overrides).unwrap();
    let gateway = Gateway::start(file, folder.path().to_owned(), options).await?;
    let client = Http::new(gateway.address());
    Ok(Served { gateway, folder, client })
}

/// A worker that was started elsewhere.
fn worker(folder: &TempDir, class: &str, hub: SocketAddr, function: &str, token: &str) -> Child {
    Command::new(python())
        .args(["-m", "gatewright.worker", class, "--hub", &hub.to_string()])
        .args(["--function", function])
        .current_dir(folder.path())
        .env("GATEWRIGHT_WORKER_TOKEN", token)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_serves_and_joins_again_after_a_restart() {
    let text = "[function.f]\nremote = true\n";
    let served = with_door(text, "127.0.0.1:0", Some("s3cret")).await.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    // It waits for a worker as it would for a busy one.
    let waiting = {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("f", "0").await })
    };
    let mut child = worker(&served.folder, "pool:Pid", hub, "f", "s3cret");
    let pid = child.id().unwrap().to_string();
    assert_eq!(waiting.await.unwrap().text(), pid);
    let function = served.function("f").await;
    assert_eq!((&function["availableReplicas"], &function["replicas"]), (&1.into(), &0.into()));
    assert_eq!(function["instances"][0]["joined"], true);
    let folder = served.folder;
    served.gateway.stop().await;
    let again = with_door(text, &hub.to_string(), Some("s3cret")).await.unwrap();
    assert_eq!(again.client.call("f", "0").await.text(), pid, "the same process joins again");
    // SIGTERM is a drain: what it has is answered, then it ends well.
    let slow = {
        let client = again.client.clone();
        tokio::spawn(async move { client.call("f", "0.5").await.text() })
    };
    again.until("f", |function| function["inFlight"] == 1).await;
    let id = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(slow.await.unwrap(), pid);
    assert!(child.wait().await.unwrap().success());
    again.until("f", |function| function["availableReplicas"] == 0).await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_workers_is_read_anew() {
    let text = "[function.f]\nremote = true\n";
    let folder = pool();
    let file = folder.path().join("token");
    let token = (Some("old".to_owned()), Some(file.clone()));
    let options = Options { worker_token: token.0, worker_token_file: token.1, ..options() };
    let served = with_door_and(text, "127.0.0.1:0", folder, options).await.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    let early = worker(&served.folder, "pool:Pid", hub, "f", "old");
    served.until("f", |function| function["availableReplicas"] == 1).await;
    std::fs::write(file, "new\n").unwrap();
    served.gateway.reload();
    let pid = early.id().unwrap().to_string();
    assert_eq!(served.client.call("f", "0").await.text(), pid, "who has joined stays");
    let mut late = worker(&served.folder, "pool:Pid", hub, "f", "old");
    assert!(!late.wait().await.unwrap().success());
    let _new = worker(&served.folder, "pool:Pid", hub, "f", "new");
    served.until("f", |function| function["availableReplicas"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_helps_those_that_were_started_and_leaves_with_the_function() {
    let text = "[function.f]\npython = \"pool:Pid\"\n";
    let served = with_door(text, "127.0.0.1:0", None).await.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    let mut child = worker(&served.folder, "pool:Pid", hub, "f", "");
    served.until("f", |function| function["availableReplicas"] == 2).await;
    let answers = at_once(&served, &["0.3", "0.3"]).await;
    assert_ne!(answers[0].1, answers[1].1, "each takes one");
    // Killed with a request: it is tried again elsewhere.
    child.kill().await.unwrap();
    served.until("f", |function| function["availableReplicas"] == 1).await;
    assert_eq!(served.client.call("f", "0").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_door_disturb_nobody() {
    let text = "[function.f]\nremote = true\n[function.up]\nhttp = \"http://127.0.0.1:1\"\n";
    let served = with_door(text, "127.0.0.1:0", Some("s3cret")).await.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    let mut strangers = Vec::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff",
        b"\x02\x00\x00\x00\x91\x03",
        b"",
    ] {
        let mut stranger = TcpStream::connect(hub).await.unwrap();
        stranger.write_all(garbage).await.unwrap();
        strangers.push(stranger);
    }
    let _silent: Vec<_> = {
        let mut silent = Vec::new();
        // More than the door keeps.
        for _ in 0..200 {
            silent.push(TcpStream::connect(hub).await.unwrap());
        }
        silent
    };
    let wrong = worker(&served.folder, "pool:Pid", hub, "f", "wrong");
    let nowhere = worker(&served.folder, "pool:Pid", hub, "g", "s3cret");
    let upstream = worker(&served.folder, "pool:Pid", hub, "up", "s3cret");
    let right = worker(&served.folder, "pool:Pid", hub, "f", "s3cret");
    for _ in 0..20 {
        let answer = served.client.call("f", "0").await.text();
        assert_eq!(answer, right.id().unwrap().to_string());
    }
    let mut words = Vec::new();
    strangers[0].read_to_end(&mut words).await.unwrap();
    assert!(String::from_utf8_lossy(&words).contains("at most 4096 are taken"), "{words:?}");
    drop((wrong, nowhere, upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_worker_that_hangs_is_let_go_of_and_begins_anew() {
    let text = "[function.f]\nremote = true\nmax_execution = \"400ms\"\n";
    let served = with_door(text, "127.0.0.1:0", None).await.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    let child = worker(&served.folder, "pool:Pid", hub, "f", "");
    assert_eq!(served.client.call("f", "1000").await.status, StatusCode::GATEWAY_TIMEOUT);
    let pid = served.client.call("f", "0").await.text();
    assert_eq!(pid, child.id().unwrap().to_string(), "the same process with a new program");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_not_let_in_without_a_token_nor_from_elsewhere() {
    let text = "[function.f]\nremote = true\n";
    let open = with_door(text, "0.0.0.0:0", None).await.map(drop).unwrap_err();
    assert!(matches!(open, ServeError::WorkerTokenMissing { .. }), "{open}");
    let text = "[hub]\nallow = [\"10.0.0.0/8\"]\n[function.f]\nremote = true\n";
    let served = with_door(text, "127.0.0.1:0", None).await.unwrap();
    let mut stranger = TcpStream::connect(served.gateway.hub_address().unwrap()).await.unwrap();
    assert_eq!(stranger.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_another_language_joins() {
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/node-worker/worker.js");
    let is_there = std::process::Command::new("node").arg("--version").output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        return;
    }
    let served = with_door("[function.f]\nremote = true\n", "127.0.0.1:0", Some("s3cret")).await;
    let served = served.unwrap();
    let hub = served.gateway.hub_address().unwrap();
    let _child = Command::new("node")
        .args([worker, &hub.to_string(), "f"])
        .env("GATEWRIGHT_WORKER_TOKEN", "s3cret")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for x in [12_u64, 100_000, 3, 5_000_000_000] {
        let answer = served.client.call("f", &x.to_string()).await;
        let square = answer.json()["square"].as_f64();
        assert_eq!((answer.status, square), (StatusCode::OK, Some((x as f64).powi(2))));
    }
}

// The hub without a gateway.

const NONE: Bytes = Bytes::from_static(b"\x80");

/// One positional argument.
fn number(value: u8) -> Bytes {
    Bytes::from(vec![0x91, value])
}

async fn hub(options: HubOptions) -> EmbeddedHub {
    EmbeddedHub::start(HubOptions { listen: "127.0.0.1:0".to_owned(), ..options }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_alone_answers_in_order_and_tries_again() {
    let hub = hub(HubOptions::default()).await;
    let folder = pool();
    let nobody = hub.request(number(7), NONE, Some(Duration::from_millis(50)), Some(1)).await;
    assert!(matches!(nobody, Err(HubError::TimedOut(_))), "{nobody:?}");
    let patient = hub.request(number(7), NONE, Some(Duration::from_millis(50)), None);
    let patient = tokio::spawn(patient);
    let _child = worker(&folder, "models:Same", hub.address(), "hub", "");
    assert_eq!(patient.await.unwrap().unwrap().as_ref(), b"\x07");
    let raised = hub.request(number(1), Bytes::from_static(b"\x81\xa1y\x01"), None, None).await;
    assert!(matches!(raised, Err(HubError::Call(error)) if error.kind == "TypeError"));
    let calls: Vec<_> = (0..100).map(|x| hub.request(number(x), NONE, None, Some(0))).collect();
    for (x, call) in (0..100).zip(calls) {
        assert_eq!(call.await.unwrap().as_ref(), [x]);
    }
    let status = hub.status();
    assert_eq!((status.workers, status.queued, status.in_flight), (1, 0, 0));
    hub.stop(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_come_joined_and_a_full_queue_says_so() {
    let hub = hub(HubOptions { queue_capacity: 1, ..HubOptions::default() }).await;
    let folder = pool();
    let waiting = tokio::spawn(hub.request(number(3), NONE, None, None));
    while hub.status().queued == 0 {
        tokio::task::yield_now().await;
    }
    let refused = hub.request(number(3), NONE, None, None).await;
    assert!(matches!(refused, Err(HubError::QueueFull { .. })), "{refused:?}");
    let _child = worker(&folder, "models:Tokens", hub.address(), "hub", "");
    let joined = waiting.await.unwrap().unwrap();
    assert_eq!(joined.as_ref(), b"\xdb\x00\x00\x00\x09t0 t1 t2 ");
}
