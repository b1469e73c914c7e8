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
