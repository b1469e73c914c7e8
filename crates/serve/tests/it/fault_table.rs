//! Every fault a few times under load: every request is answered or refused clearly, none is run twice where that is
//! forbidden, the books add up, and the pool is back at its full size.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Http, Served, folder, options, serve_with};

const ROUNDS: u32 = 3;
const CLIENTS: u64 = 8;

const JOURNAL: &str = r#"
import os, time

class Journal:
    """Notes every call before it begins."""
    def __init__(self):
        self.log = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.hoard = []
    def __call__(self, number, what=""):
        os.write(self.log, b"%d\n" % number)
        if what == "raise":
            raise ValueError("no")
        if what == "object":
            return object()
        if what == "hoard":
            self.hoard.append(b"x" * (120 << 20))
        time.sleep(0.002)
        return number
"#;

/// What came back, by status.
type Tally = BTreeMap<u16, u64>;

async fn journal(rest: &str) -> Served {
    let folder = folder();
    std::fs::write(folder.path().join("journal_model.py"), JOURNAL).unwrap();
    let text = format!(
        "[function.f]\npython = \"journal_model:Journal\"\nreplicas = {{ min = 2 }}\n\
         retries = {{ attempts = 1 }}\n{rest}\n"
    );
    serve_with(&text, folder, options()).await
}

/// The processes that serve from this folder.
fn workers(folder: &Path) -> Vec<Pid> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let own = pids.filter(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains(folder) && line.contains("journal_model")
    });
    own.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Sends a signal to a process, which may be gone.
fn send(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap_or_default();
}

/// Has clients ask as fast as they are answered while `fault` happens a few times, and checks the books.
async fn under_load(served: &Served, fault: impl AsyncFn(&Served, u32)) -> Tally {
    let (stop, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client = Http::new(served.client.address);
            let (stop, numbers) = (Arc::clone(&stop), Arc::clone(&numbers));
            tokio::spawn(async move {
                let mut tally = Tally::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let answer = client.call("f", &format!("[{number}]")).await;
                    *tally.entry(answer.status.as_u16()).or_default() += 1;
                    if answer.status == StatusCode::OK {
                        assert_eq!(answer.text(), number.to_string());
                    } else {
                        assert!(answer.json()["error"].is_string(), "{}", answer.text());
                    }
                }
                tally
            })
        })
        .collect();
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        fault(served, round).await;
        served.until("f", |f| f["availableReplicas"] == 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::new();
    for client in clients {
        for (status, count) in client.await.unwrap() {
            *tally.entry(status).or_default() += count;
        }
    }
    check_books(served, &tally, numbers.load(Ordering::Relaxed)).await;
    tally
}

async fn check_books(served: &Served, tally: &Tally, asked: u64) {
    assert_eq!(tally.values().sum::<u64>(), asked, "every client got an answer");
    served.until("f", |f| f["inFlight"] == 0 && f["queued"] == 0).await;
    let totals = served.function("f").await["totals"].clone();
    let count = |name: &str| totals[name].as_u64().unwrap();
    let ended: u64 =
        ["ok", "error", "timed_out", "cancelled", "shed", "lost"].map(count).into_iter().sum();
    assert_eq!(count("arrived"), ended, "{totals}");
    assert_eq!(count("retries"), 0);
    let text = std::fs::read_to_string(served.file("journal")).unwrap();
    let runs: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    let different: BTreeSet<u64> = runs.iter().copied().collect();
    assert_eq!(runs.len(), different.len(), "nothing is run twice with one attempt");
}

/// So many of the answers are good, and only these others may come at all.
fn expect(tally: &Tally, others: &[u16]) {
    let good = tally.get(&200).copied().unwrap_or_default();
    assert!(good >= 50, "{tally:?}");
    assert!(tally.keys().all(|status| *status == 200 || others.contains(status)), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed() {
    let served = journal("").await;
    let tally = under_load(&served, async |served, round| {
        let found = workers(served.folder.path());
        let victims = if round == ROUNDS - 1 { found.len() } else { 1 };
        for pid in found.into_iter().take(victims) {
            send(pid, Signal::KILL);
        }
        served.until("f", |f| f["totals"]["replicas_lost"].as_u64() > Some(round.into())).await;
    })
    .await;
    expect(&tally, &[502]);
    assert!(tally.get(&502).copied().unwrap_or_default() <= 4, "one for each death: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_told_to_end() {
    let served = journal("").await;
    let tally = under_load(&served, async |served, round| {
        send(workers(served.folder.path())[0], Signal::TERM);
        served.until("f", |f| f["totals"]["replicas_lost"].as_u64() > Some(round.into())).await;
    })
    .await;
    expect(&tally, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_frozen_past_their_time() {
    let served = journal("max_execution = \"500ms\"").await;
    let tally = under_load(&served, async |served, round| {
        send(workers(served.folder.path())[0], Signal::STOP);
        served.until("f", |f| f["totals"]["replicas_lost"].as_u64() > Some(round.into())).await;
    })
    .await;
    expect(&tally, &[504]);
    assert!(tally.get(&504).copied().unwrap_or_default() <= 3, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_go_wrong_and_memory_that_leaks() {
    let served = journal("memory_limit = \"100MiB\"").await;
    let numbers = AtomicU64::new(1 << 40);
    let tally = under_load(&served, async |served, _| {
        for (what, status) in [("raise", 500), ("object", 500), ("hoard", 200)] {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let answer = served.client.call("f", &format!("[{number}, \"{what}\"]")).await;
            assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        }
    })
    .await;
    expect(&tally, &[]);
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave() {
    let served = journal("").await;
    let numbers = AtomicU64::new(1 << 40);
    let tally = under_load(&served, async |served, _| {
        for _ in 0..10 {
            let mut leaving = TcpStream::connect(served.client.address).await.unwrap();
            let body = format!("[{}]", numbers.fetch_add(1, Ordering::Relaxed));
            let length = body.len();
            let head =
                format!("POST /function/f HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            leaving.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    })
    .await;
    expect(&tally, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_at_once() {
    let served = journal("queue = { capacity = 1000 }").await;
    let calls: Vec<_> = (0..5_000)
        .map(|number| {
            let client = served.client.clone();
            tokio::spawn(async move { client.call("f", &format!("[{number}]")).await })
        })
        .collect();
    let mut tally = Tally::new();
    for call in calls {
        let answer = call.await.unwrap();
        let refused = answer.status == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(refused, !answer.field("retry-after").is_empty());
        *tally.entry(answer.status.as_u16()).or_default() += 1;
    }
    expect(&tally, &[429]);
    check_books(&served, &tally, 5_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_for_each_request() {
    let folder = folder();
    let text = "[function.f]\nprocess = [\"sh\", \"-c\", \"read line; echo $Http_Method $Http_X_Name $GREETING $line; \
                test \\\"$line\\\" != bad || { echo oh no >&2; exit 3; }\"]\nenv = { GREETING = \"hello\" }\n\
                [function.slow]\nprocess = [\"sleep\", \"1000\"]\ntimeout = \"300ms\"\n\
                [function.none]\nprocess = [\"./no-such-program\"]\n";
    let served = serve_with(text, folder, options()).await;
    let fields = [("x-name", "n"), ("content-type", "text/plain")];
    let ask = |name: &str, body: &'static str| {
        let path = format!("/function/{name}");
        let client = served.client.clone();
        async move { client.send(http::Method::POST, &path, &fields, body).await.unwrap() }
    };
    let good = ask("f", "you\n").await;
    assert_eq!((good.status, good.text().as_str()), (StatusCode::OK, "POST n hello you\n"));
    assert_eq!(good.field("content-type"), "text/plain");
    let bad = ask("f", "bad\n").await;
    assert_eq!(bad.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(bad.text().contains("its process ended (exit status: 3): oh no"), "{}", bad.text());
    for _ in 0..2 {
        assert_eq!(ask("slow", "").await.status, StatusCode::GATEWAY_TIMEOUT);
    }
    let none = ask("none", "").await;
    assert!(none.text().contains("cannot run ./no-such-program"), "{}", none.text());
}
