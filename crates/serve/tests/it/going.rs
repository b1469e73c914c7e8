//! Workers that go, and what they leave undone: with one attempt, only what a worker had begun may be lost.

use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Served, serve};

const ONCE: &str = "[function.pid]\npython = \"models:Pid\"\nretries = { attempts = 1 }\n";

fn send(pid: &str, signal: Signal) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal).unwrap();
}

/// A request at the one worker of `pid`, which is stopped and cannot read it; and who that is.
async fn asked_of_a_stopped_worker(served: &Served) -> (tokio::task::JoinHandle<Answer>, String) {
    let stopped = served.client.get("/function/pid").await.text();
    send(&stopped, Signal::STOP);
    let client = served.client.clone();
    let call = tokio::spawn(async move { client.get("/function/pid").await });
    served.until("pid", |function| function["inFlight"] == 1).await;
    (call, stopped)
}

async fn answered_by_another(served: &Served, call: tokio::task::JoinHandle<Answer>, gone: &str) {
    let answer = call.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_ne!(answer.text(), gone);
    let totals = served.function("pid").await["totals"].clone();
    assert_eq!((&totals["retries"], &totals["replicas_lost"]), (&0.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_had_not_read_goes_to_another() {
    let served = serve(ONCE).await;
    let (call, stopped) = asked_of_a_stopped_worker(&served).await;
    send(&stopped, Signal::KILL);
    answered_by_another(&served, call, &stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_worker_had_not_read_goes_to_another() {
    let served = serve(&format!("[hub]\nliveness = \"2s\"\n{ONCE}")).await;
    let (call, stopped) = asked_of_a_stopped_worker(&served).await;
    answered_by_another(&served, call, &stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_end_is_replaced_before_it_has_finished() {
    let served = serve(
        "[function.f]\npython = \"models:Pause\"\nargs = [\"log\"]\nretries = { attempts = 1 }\n",
    )
    .await;
    let pause = async |name: &str, seconds: f64| {
        let answer = served.client.call("f", &format!("[\"{name}\", {seconds}]")).await;
        (answer.status, answer.text())
    };
    let begun = async |name: &str| loop {
        let log = std::fs::read_to_string(served.file("log")).unwrap_or_default();
        if log.contains(&format!("begin {name}")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let others = async {
        begun("long").await;
        send(&worker(&served), Signal::TERM);
        served.until("f", |function| function["totals"]["replicas_lost"] == 1).await;
        pause("short", 0.0).await
    };
    let (long, short) = tokio::join!(pause("long", 6.0), others);
    assert_eq!((long.0, long.1.as_str()), (StatusCode::OK, "long"));
    assert_eq!((short.0, short.1.as_str()), (StatusCode::OK, "short"));
    let log = std::fs::read_to_string(served.file("log")).unwrap();
    assert_eq!(log, "begin long\nbegin short\nend short\nend long\n");
}

/// The process that serves from this folder.
fn worker(served: &Served) -> String {
    let folder = served.folder.path().to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let found = pids.find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(folder) && line.contains("models:Pause")
    });
    found.expect("there is a worker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_does_not_make_its_worker_look_frozen() {
    let text = "[hub]\nliveness = \"500ms\"\n[function.f]\npython = \"models:Blocks\"\n";
    let served = serve(text).await;
    let mut slow = TcpStream::connect(served.client.address).await.unwrap();
    let body = "[1000]";
    let head = format!(
        "POST /function/f HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    served.until("f", |function| function["inFlight"] == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let totals = served.function("f").await["totals"].clone();
    assert_eq!(totals["replicas_lost"], 0, "it was held up by its client: {totals}");
    drop(slow);
    served.until("f", |function| function["inFlight"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_crosses_with_the_end_of_the_gateway_is_answered() {
    let served = serve(ONCE).await;
    let mut kept = TcpStream::connect(served.client.address).await.unwrap();
    let request = b"GET /function/pid HTTP/1.1\r\nhost: x\r\n\r\n";
    kept.write_all(request).await.unwrap();
    let mut first = [0; 4096];
    let length = kept.read(&mut first).await.unwrap();
    assert!(first[..length].starts_with(b"HTTP/1.1 200"));
    let stopping = tokio::spawn(served.gateway.stop());
    // Whether the gateway has heard of its end by now or not.
    kept.write_all(request).await.unwrap();
    let mut last = String::new();
    kept.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200"), "{last:?}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_the_time_to_clean_up() {
    let served = serve("[function.f]\npython = \"models:Ends\"\n").await;
    assert_eq!(served.client.get("/function/f").await.text(), "here");
    let Served { gateway, folder, .. } = served;
    gateway.stop().await;
    assert!(folder.path().join("ended").exists());
}
