//! Several upstreams behind one function, and what becomes of requests when some of them fail.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Origin, Served, serve};

/// A function of these upstreams, at every path.
pub(crate) async fn before(upstreams: &[String], extra: &str) -> Served {
    let list: Vec<_> = upstreams.iter().map(|url| format!("\"{url}\"")).collect();
    serve(&format!(
        "[function.o]\nhttp = [{}]\ntimeout = \"5s\"\n{extra}\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"o:/{{rest}}\"\n",
        list.join(", ")
    ))
    .await
}

pub(crate) fn url(origin: &Origin) -> String {
    format!("http://{}", origin.address)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An upstream that takes connections, reads, and then says only this.
pub(crate) async fn says(bytes: &'static [u8], hold: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                drop(stream.read(&mut buffer).await);
                drop(stream.write_all(bytes).await);
                if hold {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn several_upstreams_take_turns_by_their_weights() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let served = serve(&format!(
        "[function.o]\nhttp = [{{ url = \"{}\", weight = 3 }}, \"{}/b\"]\nbalance = \"round_robin\"",
        url(&a),
        url(&b)
    ))
    .await;
    for _ in 0..8 {
        assert_eq!(served.client.get("/function/o").await.status, StatusCode::OK);
    }
    assert_eq!((a.requests(), b.requests()), (6, 2));
    let described = served.function("o").await;
    assert_eq!(described["instances"].as_array().unwrap().len(), 2);
    assert_eq!(described["instances"][0]["upstream"], url(&a));
    assert_eq!(described["instances"][1]["upstream"], format!("{}/b", url(&b)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_together_goes_to_one_upstream() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let urls: Vec<_> = origins.iter().map(url).collect();
    let balance = "balance = { policy = \"consistent_hash\", key = { header = \"x-user\" } }";
    let served = before(&urls, balance).await;
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for round in 0..3 {
        for user in 0..20 {
            let before: Vec<_> = origins.iter().map(Origin::requests).collect();
            let (path, user) = (format!("/{round}"), user.to_string());
            served.client.get_with(&path, &[("x-user", &user)]).await;
            let now = origins.iter().map(Origin::requests).zip(before);
            let which = now.map(|(now, before)| now - before).collect();
            let place = seen.entry(user).or_insert_with(|| Vec::clone(&which));
            assert_eq!(*place, which);
        }
    }
    assert!(origins.iter().all(|origin| origin.requests() > 0), "not all at one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_another_upstream_when_one_is_not_there() {
    let origin = Origin::start().await;
    let served = before(&[nobody().await, url(&origin)], "balance = \"round_robin\"").await;
    for _ in 0..6 {
        assert_eq!(served.client.get("/x").await.status, StatusCode::OK);
    }
    assert_eq!(origin.requests(), 6);
    assert!(served.function("o").await["totals"]["retries"].as_u64().unwrap() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_named() {
    let silent = says(b"", true).await;
    let served = before(&[silent], "timeouts = { head = \"100ms\" }").await;
    let answer = served.client.get("/x").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        answer.text().contains("the head of the answer (timeouts.head) took 100ms"),
        "{}",
        answer.text()
    );

    let half = says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", true).await;
    let served = before(&[half], "timeouts = { idle = \"100ms\" }").await;
    let broken = tokio::time::timeout(
        Duration::from_secs(4),
        served.client.send(http::Method::GET, "/x", &[], ""),
    );
    assert!(broken.await.expect("before the function's timeout").is_err(), "never a short 200");
    served.until("o", |function| function["inFlight"] == 0).await;
}

/// An upstream that answers with this status for as long as it is told to, and counts.
struct Moody {
    url: String,
    bad: std::sync::Arc<std::sync::atomic::AtomicU16>,
    asked: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Moody {
    async fn start() -> Self {
        use axum::http::StatusCode as Status;
        use std::sync::atomic::Ordering::SeqCst;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (bad, asked) = (std::sync::Arc::default(), std::sync::Arc::default());
        let moody = Self { url, bad, asked };
        let (bad, asked) = (moody.bad.clone(), moody.asked.clone());
        let app = axum::Router::new().fallback(move || {
            let (bad, asked) = (bad.clone(), asked.clone());
            async move {
                asked.fetch_add(1, SeqCst);
                let status = Status::from_u16(bad.load(SeqCst)).unwrap_or(Status::OK);
                let fields =
                    [("cache-control", "max-age=0, stale-if-error=600"), ("retry-after", "1")];
                (status, fields, "said")
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        moody
    }

    fn answers(&self, status: u16) {
        self.bad.store(status, std::sync::atomic::Ordering::SeqCst);
    }

    fn asked(&self) -> u64 {
        self.asked.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Waits until an upstream of `o` is in this condition.
async fn until_condition(served: &Served, condition: &str) {
    served.until("o", |function| function["instances"][0]["condition"] == condition).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_lets_what_is_stale_be_served_and_closes() {
    let upstream = Moody::start().await;
    let served = serve(&format!(
        "[function.o]\nhttp = \"{}\"\nbreaker = {{ failures = 3, open = \"300ms\" }}\n\
         [[route]]\npath = \"/cached\"\nto = \"o:/\"\ncache = {{}}\n",
        upstream.url
    ))
    .await;
    assert_eq!(served.client.get("/cached").await.text(), "said");
    upstream.answers(500);
    for _ in 0..3 {
        assert_eq!(
            served.client.get("/function/o").await.status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    let before = upstream.asked();
    let refused = served.client.get("/function/o").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.field("retry-after"), "1");
    assert!(refused.text().contains("no upstream of function `o` is well"), "{}", refused.text());
    let stale = served.client.get("/cached").await;
    assert_eq!((stale.status, stale.text()), (StatusCode::OK, "said".to_owned()));
    assert!(
        stale.field("cache-status").contains("stale-if-error"),
        "{}",
        stale.field("cache-status")
    );
    assert_eq!(upstream.asked(), before, "it is left alone");
    until_condition(&served, "half_open").await;
    assert_eq!(served.client.get("/function/o").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    until_condition(&served, "open").await;
    upstream.answers(200);
    until_condition(&served, "half_open").await;
    assert_eq!(served.client.get("/function/o").await.status, StatusCode::OK);
    until_condition(&served, "healthy").await;
    let metrics = served.admin().get("/metrics").await.text();
    let line =
        format!("gatewright_upstream_healthy{{function=\"o\",upstream=\"{}\"}} 1", upstream.url);
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_its_checks_gets_no_requests_until_it_is_well() {
    let (sick, well) = (Moody::start().await, Moody::start().await);
    sick.answers(503);
    let check = "health = { path = \"/\", interval = \"20ms\", unhealthy = 2, healthy = 2 }";
    let served = before(&[sick.url.clone(), well.url.clone()], check).await;
    until_condition(&served, "unhealthy").await;
    for _ in 0..10 {
        assert_eq!(served.client.get("/x").await.status, StatusCode::OK);
    }
    sick.answers(200);
    until_condition(&served, "healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_are_worth_it_are_tried_elsewhere_and_only_what_may_be() {
    let (bad, good) = (Moody::start().await, Moody::start().await);
    bad.answers(503);
    let rules = "balance = \"round_robin\"\nretries = { statuses = [503] }";
    let served = before(&[bad.url.clone(), good.url.clone()], rules).await;
    for _ in 0..6 {
        assert_eq!(served.client.get("/x").await.status, StatusCode::OK);
    }
    let mut posted = Vec::new();
    for _ in 0..2 {
        let answer = served.client.send(http::Method::POST, "/x", &[], "body").await.unwrap();
        posted.push(answer.status.as_u16());
    }
    posted.sort_unstable();
    assert_eq!(posted, [200, 503], "a POST is not sent twice");
    let alone =
        before(std::slice::from_ref(&bad.url), "retries = { statuses = [503], attempts = 1 }")
            .await;
    let answer = alone.client.get("/x").await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "said"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_before_its_head_is_asked_for_elsewhere() {
    let breaks = says(b"", false).await;
    let good = Moody::start().await;
    let served = before(&[breaks, good.url.clone()], "balance = \"round_robin\"").await;
    for _ in 0..6 {
        assert_eq!(served.client.get("/x").await.status, StatusCode::OK);
    }
}

/// What a gRPC call consists of on the wire: HTTP/2 without TLS, a message with its length before it, and the status
/// in trailers.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_grpc_passes_through_with_its_trailers() {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |request: http::Request<hyper::body::Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.version(), http::Version::HTTP_2);
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
        let response = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(answer);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let served = before(&[url], "http2 = true").await;
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    let request = http::Request::post(format!("http://{}/a.Service/Method", served.client.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message.clone()))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(whole.to_bytes(), message);
}
