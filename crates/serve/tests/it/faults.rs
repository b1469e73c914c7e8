//! Workers that die, clients that leave, gateways that stop.

use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Http, serve};

/// Ends a process the hard way.
fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn until_dead(pid: &str) {
    for _ in 0..1000 {
        if !alive(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_worker_dies_is_tried_again() {
    let served = serve(
        "[function.f]\npython = \"models:Kill\"\nargs = [\"flag\"]\nretries = { budget = 1.0 }\n\
         replicas = { min = 2 }\n",
    )
    .await;
    let answer = served.client.get("/function/f").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "alive"));
    served.until("f", |function| function["availableReplicas"] == 2).await;
    let totals = &served.function("f").await["totals"];
    assert_eq!((&totals["retries"], &totals["replicas_lost"]), (&1.into(), &1.into()));
    assert_eq!((&totals["arrived"], &totals["ok"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_that_is_worth_another_attempt_gets_one() {
    let text = "[function.f]\npython = \"models:Flaky\"\nretries = { budget = 1.0 }\n";
    let served = serve(text).await;
    assert_eq!(served.client.get("/function/f").await.text(), "2");
    assert_eq!(served.function("f").await["totals"]["retries"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_a_gateway() {
    let shutdown = gatewright_serve::Shutdown::on_signals().unwrap();
    let served = serve("[function.f]\npython = \"models:Pause\"\nargs = [\"log\"]\n").await;
    let call = {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("f", "[\"x\", 0.5]").await.text() })
    };
    served.until("f", |function| function["inFlight"] == 1).await;
    let running = tokio::spawn(served.gateway.run_until(shutdown));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
    assert_eq!(call.await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_tried_again_fails_clearly() {
    let served =
        serve("[function.f]\npython = \"models:Suicide\"\nretries = { attempts = 1 }\n").await;
    let answer = served.client.get("/function/f").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "the replica of function `f` that worked on the request was lost");
    served.until("f", |function| function["availableReplicas"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_client_gets_an_answer_though_workers_are_killed() {
    let served = serve(
        "[function.f]\npython = \"models:Square\"\nargs = [0.01]\nreplicas = { min = 3 }\n\
         [function.pid]\npython = \"models:Pid\"\n",
    )
    .await;
    let mut clients = Vec::new();
    for client_number in 0..8 {
        let client = served.client.clone();
        clients.push(tokio::spawn(async move {
            let mut good = 0;
            for number in 0..40 {
                let x = client_number * 100 + number;
                let answer = client.call("f", &format!("[{x}]")).await;
                match answer.status {
                    StatusCode::OK => {
                        assert_eq!(answer.text(), (x * x).to_string());
                        good += 1;
                    }
                    StatusCode::BAD_GATEWAY => {}
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            good
        }));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        kill(&worker_pid(&served.file("models.py")));
    }
    let mut good = 0;
    for client in clients {
        good += client.await.unwrap();
    }
    served.until("f", |function| function["availableReplicas"] == 3).await;
    let totals = served.function("f").await["totals"].clone();
    let count = |name: &str| totals[name].as_u64().unwrap();
    assert_eq!(count("arrived"), 320);
    assert_eq!(count("ok"), good);
    assert_eq!(count("ok") + count("lost"), 320, "{totals}");
    assert_eq!(count("replicas_lost"), 3);
    assert!(good >= 317, "three deaths cost at most three requests: {totals}");
}

/// The first worker process of the class `Square` whose modules are in this folder.
fn worker_pid(models: &std::path::Path) -> String {
    let folder = models.parent().unwrap().to_str().unwrap().to_owned();
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut pids = processes.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let found = pids.find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(&folder) && line.contains("models:Square")
    });
    found.expect("there is a worker")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_queue_is_never_served() {
    let served = serve("[function.f]\npython = \"models:Pause\"\nargs = [\"log\"]\n").await;
    let first = {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("f", "[\"first\", 1.0]").await })
    };
    served.until("f", |function| function["inFlight"] == 1).await;
    let mut leaving = TcpStream::connect(served.client.address).await.unwrap();
    let body = "[\"left\", 0]";
    let head =
        format!("POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    leaving.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    served.until("f", |function| function["queued"] == 1).await;
    drop(leaving);
    served.until("f", |function| function["queued"] == 0).await;
    assert_eq!(first.await.unwrap().text(), "first");
    assert_eq!(served.client.call("f", "[\"last\", 0]").await.text(), "last");
    let log = std::fs::read_to_string(served.file("log")).unwrap();
    assert_eq!(log, "begin first\nend first\nbegin last\nend last\n");
    assert_eq!(served.function("f").await["totals"]["cancelled"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_was_taken_and_leaves_nothing_running() {
    let served = serve(
        "[function.f]\npython = \"models:Pause\"\nargs = [\"log\"]\nreplicas = { min = 2 }\n\
         [function.pid]\npython = \"models:Pid\"\n",
    )
    .await;
    let pid = served.client.get("/function/pid").await.text();
    let calls: Vec<_> = (0..6)
        .map(|number| {
            // A connection of its own for each.
            let client = Http::new(served.client.address);
            tokio::spawn(async move { client.call("f", &format!("[\"{number}\", 0.3]")).await })
        })
        .collect();
    served.until("f", |function| function["totals"]["arrived"] == 6).await;
    let address = served.client.address;
    let log = served.file("log");
    let folder = served.folder;
    served.gateway.stop().await;
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.matches("end").count(), 6);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    until_dead(&pid).await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_word_ends_at_once() {
    let served = serve("[function.f]\npython = \"models:Pause\"\nargs = [\"log\"]\n").await;
    let call = {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("f", "[\"long\", 1000]").await })
    };
    served.until("f", |function| function["inFlight"] == 1).await;
    let (handle, shutdown) = gatewright_serve::Shutdown::channel();
    let running = tokio::spawn(served.gateway.run_until(shutdown));
    handle.stop(gatewright_serve::Stop::Drain);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!running.is_finished(), "it waits for the request");
    handle.stop(gatewright_serve::Stop::Now);
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
    // Answered or cut off, but not left waiting.
    drop(tokio::time::timeout(Duration::from_secs(20), call).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_gateway_takes_its_workers_with_it() {
    let served = serve("[function.pid]\npython = \"models:Pid\"\n").await;
    let pid = served.client.get("/function/pid").await.text();
    assert!(alive(&pid));
    drop(served.gateway);
    until_dead(&pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_seen_though_a_child_of_the_worker_lives_on() {
    let text = "[function.f]\npython = \"models:Forks\"\nretries = { attempts = 1 }\n";
    let served = serve(text).await;
    let child = served.client.get("/function/f").await.text();
    assert!(alive(&child));
    let lost = served.client.call("f", "true").await;
    assert_eq!(lost.status, StatusCode::BAD_GATEWAY);
    until_dead(&child).await;
    served.until("f", |function| function["availableReplicas"] == 1).await;
    assert_ne!(served.client.get("/function/f").await.text(), child);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_frozen_is_replaced() {
    let text = "[hub]\nliveness = \"3s\"\n\
                [function.pid]\npython = \"models:Pid\"\n\
                [function.slow]\npython = \"models:Square\"\nargs = [4.0]\n";
    let served = serve(text).await;
    let slow = {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("slow", "[3]").await.text() })
    };
    let frozen = served.client.get("/function/pid").await.text();
    let pid = rustix::process::Pid::from_raw(frozen.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    until_dead(&frozen).await;
    let answer = served.client.get("/function/pid").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.text(), frozen);
    assert_eq!(slow.await.unwrap(), "9", "a long call is not taken for silence");
    assert_eq!(served.function("slow").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_begun_is_not_begun_again() {
    let served =
        serve("[function.f]\npython = \"models:HalfKill\"\nretries = { budget = 1.0 }\n").await;
    let broken = served.client.send(http::Method::GET, "/function/f", &[], "").await;
    assert!(broken.is_err(), "it must not look whole: {broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_by_itself_is_replaced() {
    let served = serve("[function.pid]\npython = \"models:Pid\"\n").await;
    let first = served.client.get("/function/pid").await.text();
    let pid = rustix::process::Pid::from_raw(first.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until_dead(&first).await;
    let second = served.client.get("/function/pid").await;
    assert_eq!(second.status, StatusCode::OK);
    assert_ne!(second.text(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_has_started_goes_with_it() {
    let served = serve("[function.f]\npython = \"models:Forks\"\n").await;
    let child = served.client.get("/function/f").await.text();
    assert!(alive(&child));
    served.gateway.stop().await;
    until_dead(&child).await;
}

#[test]
fn what_a_worker_has_started_goes_with_a_gateway_whose_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let gateway = runtime();
    let (served, child) = gateway.block_on(async {
        let served = serve("[function.f]\npython = \"models:Forks\"\n").await;
        let child = served.client.get("/function/f").await.text();
        (served, child)
    });
    assert!(alive(&child));
    // Its tasks end in the middle of what they do: none gets to its own clearing up.
    drop(gateway);
    runtime().block_on(until_dead(&child));
    drop(served);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exception_of_any_kind_leaves_its_worker_alive() {
    let served = serve("[function.f]\npython = \"models:Odd\"\n").await;
    let answer = served.client.call("f", "\"base\"").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["error"], "BaseException: no ordinary one");
    assert_eq!(served.client.call("f", "1").await.text(), "1");
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}
