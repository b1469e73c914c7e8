//! Python workers from elsewhere: over TLS, with labels, and leaving under load.

use std::net::SocketAddr;
use std::process::Stdio;

use gatewright_control::config::{Override, SystemFile};
use gatewright_serve::Gateway;
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::support::{Http, Served, folder, options, python};
use crate::tls::Authority;

/// A gateway whose hub speaks TLS with workers that show a certificate; the roots are in `ca.pem`.
async fn secured(text: &str) -> Served {
    let (folder, authority) = (folder(), Authority::new());
    authority.issue(folder.path(), "hub");
    authority.issue(folder.path(), "worker");
    std::fs::write(folder.path().join("ca.pem"), authority.root()).unwrap();
    let set = |key: &str, value: &str| Override::new(key, value, "test");
    let overrides = [
        set("gateway.listen", "127.0.0.1:0"),
        set("gateway.admin", "127.0.0.1:0"),
        set("hub.listen", "127.0.0.1:0"),
    ];
    let text = format!(
        "[hub]\ntls = {{ certificate = \"hub.pem\", key = \"hub.key\", client_ca = \"ca.pem\" }}\n{text}"
    );
    let file = SystemFile::parse(&text, &overrides).unwrap();
    let gateway = Gateway::start(file, folder.path().to_owned(), options()).await.unwrap();
    let client = Http::new(gateway.address());
    Served { gateway, folder, client }
}

fn worker(served: &Served, class: &str, hub: SocketAddr) -> Child {
    command(served, class, hub).spawn().unwrap()
}

fn command(served: &Served, class: &str, hub: SocketAddr) -> Command {
    let mut command = Command::new(python());
    command
        .args(["-m", "gatewright.worker", class, "--hub", &format!("localhost:{}", hub.port())])
        .args(["--function", "f", "--label", "zone=a", "--label", "gpu=", "--tls-ca", "ca.pem"])
        .args(["--tls-certificate", "worker.pem", "--tls-key", "worker.key"])
        .current_dir(served.folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_speaks_tls_and_tells_of_its_machine() {
    let served = secured("[function.f]\nremote = true\n").await;
    let hub = served.gateway.hub_address().unwrap();
    let mut child = worker(&served, "models:Same", hub);
    served.until("f", |function| function["availableReplicas"] == 1).await;
    let instance = &served.function("f").await["instances"][0];
    assert_eq!(instance["labels"], serde_json::json!({"gpu": "", "zone": "a"}));
    assert!(!instance["node"].as_str().unwrap().is_empty());
    assert!(instance["cpus"].as_u64().unwrap() > 0 && instance["memory"].as_u64().unwrap() > 0);
    // More than every buffer on the way holds, in both directions.
    let long = format!("\"{}\"", "x".repeat(4 << 20));
    assert_eq!(served.client.call("f", &long).await.text().len(), 4 << 20);
    assert_eq!(served.client.call("f", "\"short\"").await.text(), "short");
    served.gateway.stop().await;
    // Its hub is gone, and does not come again.
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_under_load_takes_no_request_with_it() {
    let text = "[function.f]\nremote = true\nretries = { attempts = 1 }\n";
    let served = secured(text).await;
    let hub = served.gateway.hub_address().unwrap();
    let mut leaving = worker(&served, "models:Same", hub);
    let _staying = worker(&served, "models:Same", hub);
    served.until("f", |function| function["availableReplicas"] == 2).await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = served.client.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    assert_eq!(client.call("f", "1").await.status, StatusCode::OK);
                }
            })
        })
        .collect();
    served.until("f", |function| function["totals"]["ok"].as_u64() > Some(200)).await;
    let pid = Pid::from_raw(leaving.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(leaving.wait().await.unwrap().success());
    for caller in callers {
        caller.await.unwrap();
    }
    let totals = &served.function("f").await["totals"];
    assert_eq!((&totals["ok"], &totals["replicas_lost"]), (&1600.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_start_says_why_where_it_was_started() {
    let served = secured("[function.f]\nremote = true\n").await;
    let hub = served.gateway.hub_address().unwrap();
    let mut command = command(&served, "models:NoStart", hub);
    let output = command.stderr(Stdio::piped()).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(told, "gatewright worker: RuntimeError: no weights here\n");
    assert_eq!(output.status.code(), Some(1));
}
