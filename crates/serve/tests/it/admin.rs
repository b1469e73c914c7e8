//! Operations, health and metrics.

use http::{Method, StatusCode};

use crate::support::{folder, options, serve, serve_with};

const SQUARE: &str = "[function.f]\npython = \"models:Square\"\nreplicas = { min = 1, max = 3 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn functions_can_be_seen_scaled_and_removed() {
    let served = serve(SQUARE).await;
    let admin = served.admin();
    let list = admin.get("/system/functions").await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["name"], &list[0]["replicas"]), (&"f".into(), &1.into()));
    let json_type = [("content-type", "application/json")];
    let scale = |replicas: u32| {
        let body = format!("{{\"serviceName\": \"f\", \"replicas\": {replicas}}}");
        admin.send(Method::POST, "/system/scale-function/f", &json_type, body)
    };
    assert_eq!(scale(9).await.unwrap().json()["replicas"], 3, "within the bounds");
    served.until("f", |function| function["availableReplicas"] == 3).await;
    assert_eq!(scale(2).await.unwrap().json()["replicas"], 2);
    served.until("f", |f| f["instances"].as_array().unwrap().len() == 2).await;
    assert_eq!(served.client.call("f", "[4]").await.text(), "16");

    let invoked = admin.send(Method::POST, "/function/f", &json_type, "[5]").await.unwrap();
    assert_eq!(invoked.text(), "25");
    let gone = admin
        .send(Method::DELETE, "/system/functions", &json_type, "{\"functionName\": \"f\"}")
        .await
        .unwrap();
    assert_eq!(gone.status, StatusCode::ACCEPTED);
    assert_eq!(served.client.call("f", "[4]").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/system/function/f").await.status, StatusCode::NOT_FOUND);
    assert_eq!(scale(2).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(admin.get("/system/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_deployed_and_suspended_while_it_runs() {
    let served = serve(SQUARE).await;
    let admin = served.admin();
    let deploy = |body: &'static str| {
        admin.send(Method::POST, "/system/functions", &[("content-type", "application/json")], body)
    };
    let new = r#"{"service": "g", "python": "models:Same", "replicas": {"min": 2}}"#;
    assert_eq!(deploy(new).await.unwrap().status, StatusCode::ACCEPTED);
    assert_eq!(served.client.call("g", "\"new\"").await.text(), "new");
    assert_eq!(deploy(new).await.unwrap().status, StatusCode::CONFLICT);
    for (wrong, text) in [
        (r#"{"python": "models:Same"}"#, "`service`"),
        (r#"{"service": "h", "pyton": "models:Same"}"#, "pyton"),
        (r#"{"service": "h"}"#, "nothing to run"),
        (r#"{"service": "a/b", "python": "models:Same"}"#, "its name must be"),
    ] {
        let answer = deploy(wrong).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    let suspend = admin.send(Method::POST, "/system/suspend-function/g", &[], "").await.unwrap();
    assert_eq!(suspend.status, StatusCode::ACCEPTED);
    served.until("g", |g| g["instances"].as_array().unwrap().is_empty()).await;
    assert_eq!(served.client.call("g", "\"back\"").await.text(), "back");
    let api = admin.get("/docs/openapi.json").await.json();
    assert!(api["paths"]["/system/functions"]["post"].is_object());
    assert!(admin.get("/docs").await.text().contains("openapi.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_tell_the_truth() {
    let served = serve(SQUARE).await;
    let admin = served.admin();
    served.client.call("f", "[4]").await;
    served.client.call("f", "\"x\"").await;
    let metrics = admin.get("/metrics").await;
    assert!(metrics.field("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.text();
    for line in [
        "gatewright_requests_total{function=\"f\",status=\"ok\"} 1",
        "gatewright_requests_total{function=\"f\",status=\"error\"} 1",
        "gatewright_request_duration_seconds_count{function=\"f\"} 2",
        "gatewright_replicas{function=\"f\",state=\"running\"} 1",
        "gatewright_queued{function=\"f\"} 0",
        "gatewright_replicas_lost_total{function=\"f\"} 0",
        "gatewright_replicas_started_total{function=\"f\"} 1",
        "gatewright_replicas_joined{function=\"f\"} 0",
        "gatewright_batch_size_count{function=\"f\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let health = admin.get("/healthz").await;
    assert_eq!((health.status, &health.json()["ready"]), (StatusCode::OK, &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_everything_but_health_asks_for_it() {
    let token = Some("s3cret".to_owned());
    let options = gatewright_serve::Options { token, ..options() };
    let served = serve_with(SQUARE, folder(), options).await;
    let admin = served.admin();
    for path in ["/metrics", "/system/functions", "/function/f"] {
        for wrong in [&[][..], &[("authorization", "Bearer s3cre")], &[("authorization", "s3cret")]]
        {
            let answer = admin.get_with(path, wrong).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {wrong:?}");
        }
        let right = admin.get_with(path, &[("authorization", "Bearer s3cret")]).await;
        assert_ne!(right.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(admin.get("/healthz").await.status, StatusCode::OK);
    let path = "/docs/openapi.json";
    let stranger = admin.get(path).await.json();
    assert!(stranger["paths"]["/system/functions"].is_object());
    assert!(stranger["paths"]["/function/f"].is_null(), "names of functions are not for everybody");
    let known = admin.get_with(path, &[("authorization", "Bearer s3cret")]).await.json();
    assert!(known["paths"]["/function/f"].is_object());
}
