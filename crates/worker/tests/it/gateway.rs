//! Workers at a gateway with HTTP: batches, and the example as its README has it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gatewright_control::config::{Override, SystemFile};
use gatewright_serve::{Gateway, Options};
use gatewright_worker::{Failure, Request, Worker, batch_fn};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::run;

/// A gateway on free ports.
async fn gateway(text: &str) -> (Gateway, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let set = |key: &str| Override::new(key, "127.0.0.1:0", "test");
    let overrides = [set("gateway.listen"), set("gateway.admin"), set("hub.listen")];
    let file = SystemFile::parse(text, &overrides).unwrap();
    let options = Options::default();
    (Gateway::start(file, folder.path().to_owned(), options).await.unwrap(), folder)
}

/// Calls a function with JSON; status and body.
async fn call(address: SocketAddr, function: &str, json: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = json.len();
    let request = format!(
        "POST /function/{function} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Answers each request with the size of its batch and its number; the whole batch fails if one of them is below 0.
async fn sized(requests: Vec<Request>) -> Result<Vec<(usize, i64)>, Failure> {
    let numbers: Vec<i64> = requests.iter().map(Request::input).collect::<Result<_, _>>()?;
    if numbers.iter().any(|number| *number < 0) {
        return Err(Failure::new("ValueError", "below 0"));
    }
    Ok(numbers.iter().map(|number| (numbers.len(), *number)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_come_whole_and_each_request_has_its_own_answer() {
    let text = "[function.f]\nremote = true\nbatch = { max_size = 4, max_wait = \"10s\" }\n";
    let (gateway, _folder) = gateway(text).await;
    let worker = Worker::new(gateway.hub_address().unwrap().to_string()).function("f").token("");
    let worker = run(worker, batch_fn(4, sized));
    let address = gateway.address();
    let at_once = async |numbers: [i64; 8]| {
        let calls = numbers.map(|number| tokio::spawn(call(address, "f", number.to_string())));
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        answers
    };
    // Eight are two full batches: neither waits for the ten seconds that the first of a smaller one would.
    let answers = at_once([0, 1, 2, 3, 4, 5, 6, 7]).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer, &(200, format!("[4,{number}]")));
    }
    let answers = at_once([1, 2, 3, -4, 5, 6, 7, 8]).await;
    let failed = answers.iter().filter(|(status, body)| *status == 500 && body.contains("below 0"));
    assert_eq!(failed.count(), 4, "the others of its batch, and nobody else: {answers:?}");
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 4);
    worker.stop().await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_counts_primes_and_joins_again() {
    let text = include_str!("../../../../examples/rust-worker/gatewright.toml");
    let (first, _folder) = gateway(text).await;
    let hub = first.hub_address().unwrap();
    // Cargo builds examples beside the tests.
    let here: PathBuf = std::env::current_exe().unwrap();
    let example = here.parent().unwrap().parent().unwrap().join("examples/rust-worker");
    assert!(example.exists(), "{} is not built", example.display());
    let mut child = Command::new(example)
        .arg(hub.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let counted = (200, r#"{"below":1000000,"primes":78498}"#.to_owned());
    assert_eq!(call(first.address(), "primes", "1000000".to_owned()).await, counted);
    let (status, refusal) = call(first.address(), "primes", "100000001".to_owned()).await;
    assert_eq!(status, 500);
    assert!(refusal.contains("TooMuch: at most 100 000 000, please"), "{refusal}");
    first.stop().await;
    let set = |key: &str, value: &str| Override::new(key, value, "test");
    let overrides = [
        set("gateway.listen", "127.0.0.1:0"),
        set("gateway.admin", "127.0.0.1:0"),
        set("hub.listen", &hub.to_string()),
    ];
    let file = SystemFile::parse(text, &overrides).unwrap();
    let second = Gateway::start(file, ".".into(), Options::default()).await.unwrap();
    assert_eq!(call(second.address(), "primes", "1000000".to_owned()).await, counted);
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().await.unwrap().success(), "Ctrl-C");
    second.stop().await;
}
