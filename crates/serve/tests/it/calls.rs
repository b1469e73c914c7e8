//! Functions that run in worker processes.

use http::{Method, StatusCode};

use crate::support::{folder, options, serve, serve_with};

fn function(name: &str, rest: &str) -> String {
    format!("[function.f]\npython = \"models:{name}\"\n{rest}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_parallel_requests_on_four_workers_are_all_answered() {
    let served = serve(&function("Square", "args = [0.25]\nreplicas = { min = 4 }")).await;
    let calls = (0..10).map(|x| {
        let client = served.client.clone();
        tokio::spawn(async move { (x, client.call("f", &format!("[{x}]")).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (x, answer) = call.await.unwrap();
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, (x * x).to_string()));
    }
    let totals = &served.function("f").await["totals"];
    assert_eq!((&totals["arrived"], &totals["ok"]), (&10.into(), &10.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_become_arguments() {
    let text = function("Echo", "args = [1, 100000000000000000000]\nkwargs = { name = \"n\" }")
        .replace("100000000000000000000", "9007199254740993");
    let served = serve(&text).await;
    let client = &served.client;
    let named = client.call("f", r#"{"a": [1.5, null]}"#).await.json();
    assert_eq!(named["kwargs"], serde_json::json!({"a": [1.5, null]}));
    assert_eq!(named["made"], serde_json::json!([[1, 9_007_199_254_740_993_i64], {"name": "n"}]));
    assert_eq!(client.call("f", "[1, \"x\"]").await.json()["args"], serde_json::json!([1, "x"]));
    assert_eq!(client.call("f", "7").await.json()["args"], serde_json::json!([7]));
    let none = client.get("/function/f").await.json();
    assert_eq!((&none["args"], &none["kwargs"]), (&serde_json::json!([]), &serde_json::json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_become_text_octets_or_json() {
    let served = serve(&function("Same", "")).await;
    let client = &served.client;
    let text = client.call("f", "\"h\u{e9}\"").await;
    assert_eq!(
        (text.text().as_str(), text.field("content-type")),
        ("h\u{e9}", "text/plain; charset=utf-8")
    );
    let octets = [("content-type", "image/png")];
    let bytes = client.send(Method::POST, "/function/f", &octets, "\x00\x01").await.unwrap();
    assert_eq!(bytes.field("content-type"), "application/octet-stream");
    assert_eq!(bytes.body.as_ref(), b"\x00\x01");
    // What `curl -d` sends: JSON, if it reads as JSON.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let number = client.send(Method::POST, "/function/f", &form, "3").await.unwrap();
    assert_eq!((number.text().as_str(), number.field("content-type")), ("3", "application/json"));
    let pairs = client.send(Method::POST, "/function/f", &form, "a=b").await.unwrap();
    assert_eq!(pairs.field("content-type"), "application/octet-stream");
    let json = client.call("f", "[[1, 2.5, null, true, {\"k\": \"v\"}]]").await;
    assert_eq!(json.text(), "[1,2.5,null,true,{\"k\":\"v\"}]");
    assert_eq!(json.field("content-type"), "application/json");
    let big = "123456789012345678901234567890";
    assert_eq!(client.call("f", big).await.text(), big);
    assert_eq!(client.call("f", "null").await.text(), "null");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_user_code_is_said() {
    let served = serve(&function("Odd", "")).await;
    let client = &served.client;
    let raised = client.call("f", "\"raise\"").await;
    assert_eq!(raised.status, StatusCode::INTERNAL_SERVER_ERROR);
    let body = raised.json();
    assert_eq!(body["error"], "ValueError: not this one");
    assert_eq!(body["type"], "ValueError");
    assert_eq!(body["request_id"], raised.field("x-request-id"));
    assert!(body.get("traceback").is_none());
    let nan = client.call("f", "\"nan\"").await.json();
    assert_eq!(nan["error"], "the result cannot be sent as JSON: NaN at $.a[1]");
    assert_eq!(client.call("f", "\"object\"").await.json()["type"], "TypeError");
    assert_eq!(client.call("f", "\"big\"").await.text(), "100000000000000000000");
    let missing = client.call("f", "[]").await;
    assert_eq!(missing.json()["type"], "TypeError");
    // And the worker is still the same one.
    assert_eq!(served.function("f").await["totals"]["replicas_lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traceback_is_shown_where_the_system_file_wants_it() {
    let served = serve(&function("Odd", "expose_traceback = true")).await;
    let body = served.client.call("f", "\"raise\"").await.json();
    assert!(body["traceback"].as_str().unwrap().contains("in __call__"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_comes_piece_by_piece() {
    let served = serve(&function("Tokens", "")).await;
    let answer = served.client.call("f", "[3]").await;
    assert_eq!(answer.text(), "t0 t1 t2 ");
    assert_eq!(answer.field("content-type"), "text/plain; charset=utf-8");
    let many = served.client.call("f", "[1000]").await.text();
    assert!(many.ends_with("t999 "), "{} bytes", many.len());
    let json_type = [("content-type", "application/json")];
    let broken = served.client.send(Method::POST, "/function/f", &json_type, "[5000, true]").await;
    assert!(broken.is_err(), "an answer that broke off must not look whole: {broken:?}");
    let after = served.client.call("f", "[1]").await;
    assert_eq!(after.text(), "t0 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let served = serve(&function("Same", "")).await;
    let client = &served.client;
    let malformed = client.call("f", "{\"x\": ").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    assert!(malformed.json()["error"].as_str().unwrap().contains("line 1"), "{}", malformed.text());
    let unknown = client.call("g", "1").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["error"], "there is no function `g`");
    assert_eq!(unknown.json()["hint"], "there is f");
    assert_eq!(client.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    let put = client.send(Method::PUT, "/function/f", &[], "1").await.unwrap();
    assert_eq!((put.status, put.field("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, POST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_taken_over_or_made() {
    let served = serve(&function("Same", "")).await;
    let own = served.client.get_with("/function/f", &[("x-request-id", "mine-1")]).await;
    assert_eq!(own.field("x-request-id"), "mine-1");
    let odd = served.client.get_with("/function/f", &[("x-request-id", "a b")]).await;
    let made = odd.field("x-request-id").to_owned();
    assert_ne!(made, "a b");
    assert_ne!(made, served.client.get("/function/f").await.field("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_deadline_ends() {
    let served = serve(&function(
        "Pause",
        "args = [\"log\"]\nqueue = { capacity = 1 }\ntimeout = \"1500ms\"",
    ))
    .await;
    let call = |name: &'static str, seconds: f64| {
        let client = served.client.clone();
        tokio::spawn(async move { client.call("f", &format!("[\"{name}\", {seconds}]")).await })
    };
    let long = call("long", 30.0);
    served.until("f", |function| function["inFlight"] == 1).await;
    let queued = call("queued", 0.0);
    served.until("f", |function| function["queued"] == 1).await;
    let refused = call("refused", 0.0).await.unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.field("retry-after"), "1");
    for late in [long, queued] {
        let late = late.await.unwrap();
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(late.json()["error"], "function `f` did not answer within 1.5 s");
    }
    let log = std::fs::read_to_string(served.file("log")).unwrap();
    assert_eq!(log, "begin long\n", "what timed out in the queue never started");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_leaves_a_record() {
    let folder = folder();
    let records = folder.path().join("records.jsonl");
    let options = gatewright_serve::Options { records: Some(records.clone()), ..options() };
    let served = serve_with(&function("Odd", ""), folder, options).await;
    for what in ["\"x\"", "\"raise\""] {
        served.client.call("f", what).await;
    }
    served.client.get("/nowhere").await;
    let folder = served.folder;
    served.gateway.stop().await;
    let file = std::io::BufReader::new(std::fs::File::open(records).unwrap());
    let format = gatewright_record::Format::JsonLines;
    let records: Vec<_> =
        gatewright_record::read_records(file, format).collect::<Result<_, _>>().unwrap();
    use gatewright_record::{Status, World};
    assert_eq!(records.len(), 3);
    let ok = &records[0];
    assert_eq!((ok.world, ok.id, &*ok.function, ok.code), (World::Serve, 0, "f", Some(200)));
    assert_eq!((ok.status, ok.attempts, ok.in_flight), (Status::Ok, 1, Some(1)));
    assert_eq!((ok.replica, ok.node.as_deref()), (Some(0), Some("local")));
    assert_eq!((ok.bytes_in, ok.bytes_out, ok.cold), (3, 1, false));
    let moments = [ok.received, ok.queued_out, ok.started, ok.first_byte, ok.finished];
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{moments:?}");
    assert_eq!((records[1].status, records[1].code), (Status::Error, Some(500)));
    assert_eq!(records[1].reason.as_deref(), Some("ValueError"));
    assert_eq!((records[2].status, records[2].code), (Status::Error, Some(404)));
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_replica_works_on_several_requests() {
    let served = serve(&function("Pause", "args = [\"log\"]\nconcurrency = 3")).await;
    let calls: Vec<_> = (0..3)
        .map(|number| {
            let client = served.client.clone();
            tokio::spawn(async move { client.call("f", &format!("[\"{number}\", 0.5]")).await })
        })
        .collect();
    served.until("f", |function| function["inFlight"] == 3).await;
    for call in calls {
        assert_eq!(call.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_may_be_relative() {
    let folder = tempfile::tempdir_in("tests").unwrap();
    std::fs::write(
        folder.path().join("here.py"),
        "def where():\n    import os\n    return os.getcwd()\n",
    )
    .unwrap();
    let relative = std::path::Path::new("tests").join(folder.path().file_name().unwrap());
    let file = crate::support::system("[function.f]\npython = \"here:where\"\n");
    let gateway = gatewright_serve::Gateway::start(file, relative, options()).await.unwrap();
    let client = crate::support::Http::new(gateway.address());
    let there = client.get("/function/f").await.text();
    assert_eq!(there, folder.path().canonicalize().unwrap().to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_at_zero_starts_when_it_is_asked() {
    let served = serve(&function("Square", "replicas = { min = 0, max = 1 }")).await;
    assert_eq!(served.function("f").await["availableReplicas"], 0);
    assert_eq!(served.client.call("f", "[9]").await.text(), "81");
    assert_eq!(served.function("f").await["availableReplicas"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_of_an_answer_is_held_against_the_schema() {
    let folder = folder();
    let model = "class Yields:\n    def __call__(self, *pieces):\n        for piece in pieces:\n            \
                 yield piece.encode() if piece == '7' else piece\n";
    std::fs::write(folder.path().join("yields.py"), model).unwrap();
    let schema = r#"{"anyOf": [{"type": "integer", "minimum": 3}, {"enum": ["text", "1"]}]}"#;
    std::fs::write(folder.path().join("out.json"), schema).unwrap();
    let text = "[function.f]\npython = \"yields:Yields\"\noutput = { schema = \"out.json\", status = 502 }\n";
    let served = serve_with(text, folder, options()).await;
    let answer = served.client.call("f", r#"[3, 4, "text", "1"]"#).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "3\n4\ntext1"));
    assert_eq!(served.client.call("f", "[\"7\"]").await.text(), "7", "bytes are JSON");
    // The first piece: nothing has gone out yet.
    for body in ["[2, 3]", r#"["other"]"#] {
        let refused = served.client.call("f", body).await;
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY, "{}", refused.text());
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(
            error.starts_with("the function's answer is not as expected: at its top"),
            "{error}"
        );
    }
    // A later one: the answer must not look whole.
    let json = [("content-type", "application/json")];
    let broken = served.client.send(Method::POST, "/function/f", &json, "[3, 2, 4]").await;
    assert!(broken.is_err(), "{broken:?}");
    let counted = "gatewright_schema_mismatches_total{function=\"f\",side=\"output\"} 3";
    let metrics = served.admin().get("/metrics").await.text();
    assert!(metrics.contains(counted), "{metrics}");
    served.until("f", |function| function["inFlight"] == 0).await;
    assert_eq!(served.client.call("f", "[5]").await.text(), "5\n", "the worker is well");
}
