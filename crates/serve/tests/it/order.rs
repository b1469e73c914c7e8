//! In which order who waits is served, and what waiting for a replica leaves behind in the records.

use std::time::Duration;

use gatewright_control::{End, Shed};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::programs::with_server;
use crate::support::{Served, options, serve_with};

/// The lines of a file of records.
fn lines(served: &Served, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(served.file("records").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Serves `text` with a folder of records.
async fn recorded(text: &str) -> Served {
    let folder = with_server();
    let options =
        gatewright_serve::Options { records: Some(folder.path().join("records")), ..options() };
    serve_with(text, folder, options).await
}

/// Asks `name` once for each urgency, one after another, while every replica is busy; the order in which those who
/// waited were served, as their places in the order of arrival.
async fn served_in_order(text: &str, busy: usize, body: &str, urgencies: &[&str]) -> Vec<usize> {
    let served = recorded(text).await;
    let ask = |urgency: &str| {
        let (client, body) = (served.client.clone(), body.to_owned());
        let urgency = urgency.to_owned();
        tokio::spawn(async move {
            let headers = [("priority", &*urgency), ("content-type", "application/json")];
            let path = "/function/f";
            let answer = client.send(Method::POST, path, &headers, body).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        })
    };
    let mut asked: Vec<_> = (0..busy).map(|_| ask("u=0")).collect();
    served.until("f", |f| f["inFlight"] == busy).await;
    for (place, urgency) in urgencies.iter().enumerate() {
        asked.push(ask(urgency));
        // The next one comes when this one waits.
        served.until("f", |f| f["queued"] == place + 1).await;
    }
    std::fs::write(served.file("go"), "").unwrap();
    for asked in asked {
        asked.await.unwrap();
    }
    let (folder, gateway) = (served.folder, served.gateway);
    gateway.stop().await;
    let text = std::fs::read_to_string(folder.path().join("records/invocations.jsonl")).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["received_ns"].as_u64());
    let mut waited: Vec<_> = records.into_iter().skip(busy).enumerate().collect();
    waited.sort_by_key(|(_, record)| record["started_ns"].as_u64());
    waited.into_iter().map(|(place, _)| place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn equals_are_served_in_the_order_of_their_arrival() {
    let text = "[function.f]\npython = \"models:Gate\"\nreplicas = { min = 4 }\n";
    let order = served_in_order(text, 4, "\"go\"", &["u=3"; 60]).await;
    assert_eq!(order, (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_urgent_overtake_whatever_runs() {
    let urgencies = ["u=5", "u=5", "", "u=1", "u=7", "u=1", "u=0"];
    let expected = [6, 3, 5, 2, 0, 1, 4];
    let worker = "[function.f]\npython = \"models:Gate\"\n";
    assert_eq!(served_in_order(worker, 1, "\"go\"", &urgencies).await, expected);
    let program = "[function.f]\nprocess = [\"python3\", \"server.py\"]\nmode = \"http\"\n";
    assert_eq!(served_in_order(program, 1, "wait for go", &urgencies).await, expected);
    let fork =
        "[function.f]\nprocess = [\"sh\", \"-c\", \"until [ -e go ]; do sleep 0.01; done\"]\n";
    assert_eq!(served_in_order(fork, 1, "", &urgencies).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_at_zero_is_started_by_a_request_that_is_recorded_as_cold_and_goes_back_to_zero()
{
    let served = recorded(
        "[function.f]\npython = \"models:Square\"\nreplicas = { min = 0, max = 2 }\n\
         autoscale = { policy = \"kpa\", stable_window = \"6s\", scale_to_zero_grace = \"0s\" }\n",
    )
    .await;
    assert!(served.function("f").await["instances"].as_array().unwrap().is_empty());
    assert_eq!(served.client.call("f", "[3]").await.text(), "9");
    assert_eq!(served.client.call("f", "[4]").await.text(), "16");
    served.until("f", |f| f["instances"].as_array().unwrap().is_empty()).await;
    assert_eq!(served.client.call("f", "[5]").await.text(), "25");
    let metrics = served.admin().get("/metrics").await.text();
    assert!(metrics.contains("gatewright_cold_requests_total{function=\"f\"} 2"), "{metrics}");
    let Served { gateway, folder, client } = served;
    gateway.stop().await;
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join("records").join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    drop(client);
    let invocations = read("invocations.jsonl");
    let cold: Vec<_> = invocations.iter().map(|record| &record["cold"]).collect();
    assert_eq!(cold, [true, false, true]);
    for record in &invocations {
        let moment = |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
        assert!(moment("received_ns") <= moment("queued_out_ns"));
        assert!(moment("queued_out_ns") <= moment("started_ns"));
        assert!(moment("started_ns") <= moment("finished_ns"));
    }
    let replicas = read("replicas.jsonl");
    let states = |number: u64| {
        let events = replicas.iter().filter(|event| event["replica"] == number);
        events.map(|event| event["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(0), ["starting", "running", "suspended", "gone"]);
    let time = |state: &str| {
        let event = replicas.iter().find(|event| event["state"] == state).unwrap();
        event["time_ns"].as_u64().unwrap()
    };
    let waited = invocations[0]["started_ns"].as_u64().unwrap();
    assert_eq!(time("running"), waited, "the request is handed over when the replica is ready");
    let scaling: Vec<_> = read("scaling.jsonl")
        .iter()
        .map(|event| (event["from"].clone(), event["to"].clone()))
        .collect();
    assert_eq!(scaling[..3], [(0.into(), 1.into()), (1.into(), 0.into()), (0.into(), 1.into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_records_has_a_stream_of_every_state() {
    let served =
        recorded("[function.f]\npython = \"models:Gate\"\nreplicas = { min = 1, max = 2 }\n").await;
    let client = served.client.clone();
    let asked = tokio::spawn(async move { client.call("f", "\"go\"").await });
    served.until("f", |f| f["inFlight"] == 1).await;
    let admin = served.admin();
    let json = [("content-type", "application/json")];
    let gone = admin.send(Method::DELETE, "/system/functions", &json, r#"{"functionName": "f"}"#);
    assert_eq!(gone.await.unwrap().status, StatusCode::ACCEPTED);
    for _ in 0..500 {
        if lines(&served, "replicas.jsonl").len() >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::write(served.file("go"), "").unwrap();
    assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    for _ in 0..500 {
        if lines(&served, "replicas.jsonl").len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let states: Vec<_> =
        lines(&served, "replicas.jsonl").iter().map(|event| event["state"].clone()).collect();
    assert_eq!(states, ["starting", "running", "draining", "suspended", "gone"]);
}

/// How requests end that nobody answers is said in the same words in every world: those of the system.
#[tokio::test(flavor = "multi_thread")]
async fn records_say_in_the_words_of_the_system_why_nobody_answered() {
    let gate = "process = [\"sh\", \"-c\", \"until [ -e go ]; do sleep 0.01; done\"]";
    let served = recorded(&format!(
        "[function.f]\n{gate}\nreplicas = {{ max = 1 }}\nqueue = {{ capacity = 1 }}\n\
         [function.late]\n{gate}\ntimeout = \"200ms\"\n\
         [function.none]\npython = \"models:NoStart\"\nreplicas = {{ min = 0 }}\n\
         [function.lost]\npython = \"models:Suicide\"\nretries = {{ attempts = 1 }}\n",
    ))
    .await;
    let ask = |name: &str| {
        let (client, path) = (served.client.clone(), format!("/function/{name}"));
        tokio::spawn(async move { client.send(Method::POST, &path, &[], "").await })
    };
    let left = ask("f");
    served.until("f", |f| f["inFlight"] == 1).await;
    let waits = ask("f");
    served.until("f", |f| f["queued"] == 1).await;
    for name in ["f", "late", "lost", "none"] {
        ask(name).await.unwrap().unwrap();
    }
    let removal = r#"{"functionName": "f"}"#;
    let json = [("content-type", "application/json")];
    served.admin().send(Method::DELETE, "/system/functions", &json, removal).await.unwrap();
    waits.await.unwrap().unwrap();
    left.abort();
    let Served { gateway, folder, client } = served;
    gateway.stop().await;
    drop(client);
    let text = std::fs::read_to_string(folder.path().join("records/invocations.jsonl")).unwrap();
    let mut found: Vec<[String; 3]> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|record| {
            ["function", "status", "reason"].map(|key| record[key].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort_unstable();
    let expected = [
        ("f", "cancelled", End::Cancelled),
        ("f", "shed", End::Shed(Shed::Removed)),
        ("f", "shed", End::Shed(Shed::QueueFull)),
        ("late", "timeout", End::TimedOut),
        ("lost", "lost", End::Lost),
        ("none", "shed", End::Shed(Shed::Unavailable)),
    ];
    let expected = expected.map(|(name, status, end)| [name, status, end.reason().unwrap()]);
    assert_eq!(found, expected);
}
