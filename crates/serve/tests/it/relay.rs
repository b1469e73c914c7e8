//! Upstreams and the cache before them.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::support::{Http, Origin, Served, serve};

async fn relay(origin: &Origin, extra: &str) -> Served {
    serve(&format!(
        "[function.o]\nhttp = \"http://{}/base\"\ntimeout = \"5s\"\n{extra}\n\
         [[route]]\npath = \"/plain/{{id}}\"\nto = \"o:/p/{{id}}\"\n\
         [[route]]\npath = \"/own/{{*rest}}\"\nto = \"o\"\n\
         [[route]]\npath = \"/cached/{{*rest}}\"\nto = \"o:/c/{{rest}}\"\ncache = {{ ttl = \"1h\" }}\n\
         [[route]]\npath = \"/said/{{id}}\"\nto = \"o:/s/{{id}}\"\ncache = {{}}\n",
        origin.address
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_passed_on_and_its_answer_back() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let headers = [("connection", "x-own"), ("x-own", "secret"), ("te", "trailers")];
    let answer =
        served.client.send(Method::PUT, "/plain/a%20b?q=1&r=2", &headers, "hello").await.unwrap();
    let text = answer.text();
    assert!(text.starts_with("PUT /base/p/a%20b?q=1&r=2 body=hello "), "{text}");
    assert!(text.contains(&format!("host={}", origin.address)), "{text}");
    assert!(text.contains("via=1.1 gatewright-") && text.contains(" xff=127.0.0.1 own="), "{text}");
    assert!(text.ends_with("own="), "what Connection names is not passed on: {text}");
    assert_eq!(answer.field("x-own"), "", "nor in the answer");
    assert_eq!(answer.field("x-number"), "1");
    let own = served.client.get("/own/x/y").await.text();
    assert!(own.starts_with("GET /base/own/x/y "), "{own}");
    let named = served.client.get("/function/o?q=1").await.text();
    assert!(named.starts_with("GET /base?q=1 "), "{named}");
    assert_eq!(served.client.get("/plain/..").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_size_survive() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let missing = served.client.get("/plain/x?status=404").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let long = served.client.get("/plain/x?size=3000000").await;
    assert_eq!(long.body.len(), 3_000_000);
    let head = served.client.send(Method::HEAD, "/plain/x?size=1234", &[], "").await.unwrap();
    assert_eq!((head.field("content-length"), head.body.len()), ("1234", 0));
    served.until("o", |function| function["inFlight"] == 0).await;
    assert_eq!(served.function("o").await["totals"]["ok"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_is_a_502_and_a_slow_one_a_504() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let slow = served.client.get("/plain/x?pause=60000").await;
    assert_eq!(slow.status, StatusCode::GATEWAY_TIMEOUT);
    served.until("o", |function| function["inFlight"] == 0).await;

    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let served = serve(&format!("[function.o]\nhttp = \"http://{nobody}\"\n")).await;
    let answer = served.client.get("/function/o").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["error"], "the upstream of function `o` cannot be reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place_at_the_upstream() {
    let origin = Origin::start().await;
    let served = relay(&origin, "concurrency = 1").await;
    let leaving = {
        let client = Http::new(served.client.address);
        tokio::spawn(async move { client.get("/plain/x?pause=60000").await })
    };
    served.until("o", |function| function["inFlight"] == 1).await;
    let waiting = {
        let client = served.client.clone();
        tokio::spawn(async move { client.get("/plain/y").await.status })
    };
    served.until("o", |function| function["queued"] == 1).await;
    leaving.abort();
    assert_eq!(waiting.await.unwrap(), StatusCode::OK);
    let totals = served.function("o").await["totals"].clone();
    assert_eq!((&totals["cancelled"], &totals["ok"]), (&1.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_one_cold_url_make_one_request() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        // A connection of its own for each.
        let client = Http::new(served.client.address);
        clients.push(tokio::spawn(async move { client.get("/cached/x?pause=1000").await }));
    }
    let mut waited = 0;
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text().starts_with("GET /base/c/x?pause=1000 "));
        assert_eq!(answer.field("x-number"), "1");
        let status = answer.field("cache-status");
        waited += u32::from(status.contains("collapsed") || status.contains("hit"));
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(waited, 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_what_cannot_be_stored_do_not_queue() {
    let origin = Origin::start().await;
    // With time enough for a thousand connections on a machine that does other things too.
    let served = serve(&format!(
        "[function.o]\nhttp = \"http://{}\"\ntimeout = \"120s\"\n\
         [[route]]\npath = \"/said/{{id}}\"\nto = \"o\"\ncache = {{}}\n",
        origin.address
    ))
    .await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let client = Http::new(served.client.address);
        clients.push(tokio::spawn(async move {
            client.get("/said/x?pause=5000&cc=private").await.status
        }));
    }
    // The first one finds out for all; then all the others are at the upstream together.
    served.until("o", |function| function["inFlight"].as_u64() >= Some(900)).await;
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(origin.requests(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_response_is_served_until_it_is_stale() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let client = &served.client;
    let first = client.get("/cached/x?a=1").await;
    let status = first.field("cache-status");
    assert!(
        status.starts_with("gatewright; fwd=uri-miss; ttl=3") && status.ends_with("; stored"),
        "{status}"
    );
    let second = client.get("/cached/x?a=1").await;
    assert!(second.field("cache-status").starts_with("gatewright; hit; ttl=35"));
    assert_eq!((second.field("age"), second.text()), ("0", first.text()));
    let head = client.send(Method::HEAD, "/cached/x?a=1", &[], "").await.unwrap();
    assert!(head.field("cache-status").contains("hit") && head.body.is_empty());
    assert_eq!(head.field("content-length"), first.body.len().to_string());
    assert_eq!(origin.requests(), 1);
    client.get("/cached/x?a=2").await;
    assert_eq!(origin.requests(), 2, "the query is part of the key");

    client.get("/said/x?cc=max-age=1").await;
    assert!(client.get("/said/x?cc=max-age=1").await.field("cache-status").contains("hit"));
    assert_eq!(origin.requests(), 3);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.get("/said/x?cc=max-age=1").await;
    assert_eq!(origin.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_stored_is_not() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let client = &served.client;
    for path in [
        "/said/1",
        "/said/2?cc=no-store",
        "/said/3?cc=private,max-age=60",
        "/said/4?cc=max-age=0",
        "/said/5?status=500",
        "/cached/6?cookie=a",
        "/said/7?cc=max-age=60&vary=*",
        "/cached/8?cc=no-store",
        "/cached/9?status=404",
    ] {
        let before = origin.requests();
        client.get(path).await;
        let second = client.get(path).await;
        assert_eq!(origin.requests(), before + 2, "{path}: {}", second.field("cache-status"));
    }
    let before = origin.requests();
    client.get("/said/7b?cc=max-age=60&vary=Accept-Encoding").await;
    client.get("/said/7b?cc=max-age=60&vary=Accept-Encoding").await;
    assert_eq!(origin.requests(), before + 1, "encodings are not asked for");
    for method in [Method::POST, Method::PUT] {
        let answer = client.send(method, "/cached/x", &[], "b").await.unwrap();
        assert_eq!(answer.field("cache-status"), "gatewright; fwd=method");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_with_credentials_is_for_them_alone() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let client = &served.client;
    let credentials = [("authorization", "Bearer x")];
    for _ in 0..2 {
        client.get_with("/cached/x", &credentials).await;
    }
    assert_eq!(origin.requests(), 2);
    client.get("/cached/x").await;
    assert_eq!(origin.requests(), 3);
    client.get_with("/cached/x", &credentials).await;
    assert_eq!(origin.requests(), 3, "what is for everyone is for them too (RFC 9111 section 3.5)");
    let public = "/cached/x?cc=public";
    client.get_with(public, &credentials).await;
    client.get_with(public, &credentials).await;
    client.get(public).await;
    assert_eq!(origin.requests(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_on_what_cannot_be_shared_does_not_queue_up() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let client = Http::new(served.client.address);
        clients.push(tokio::spawn(async move { client.get("/said/x?pause=300&cc=private").await }));
    }
    let began = std::time::Instant::now();
    for client in clients {
        assert_eq!(client.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(origin.requests(), 20);
    assert!(began.elapsed() < Duration::from_secs(4), "one after another would take 6 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_does_not_take_the_fetch_along() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let leader = {
        let client = Http::new(served.client.address);
        tokio::spawn(async move { client.get("/cached/x?pause=500").await })
    };
    while origin.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let follower = {
        let client = served.client.clone();
        tokio::spawn(async move { client.get("/cached/x?pause=500").await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    leader.abort();
    assert_eq!(follower.await.unwrap().status, StatusCode::OK);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_fails_fails_for_all_who_wait() {
    let origin = Origin::start().await;
    let served = relay(&origin, "").await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let client = Http::new(served.client.address);
        clients.push(tokio::spawn(async move { client.get("/cached/x?pause=60000").await }));
    }
    for client in clients {
        assert_eq!(client.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    }
    assert_eq!(origin.requests(), 1);
    let error = served.client.get("/cached/x?status=503").await;
    assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE, "the next one is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_to_store_is_passed_on() {
    let origin = Origin::start().await;
    let served = relay(&origin, "[cache]\nmax_body = \"10KiB\"").await;
    for request in 1..=2 {
        let answer = served.client.get("/cached/x?size=200000").await;
        assert_eq!(answer.body.len(), 200_000);
        assert_eq!(answer.field("content-length"), "200000");
        assert_eq!(origin.requests(), request);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let origin = Origin::start().await;
    let served = relay(&origin, "[cache]\nmemory = \"256KiB\"").await;
    for number in 0..100 {
        served.client.get(&format!("/cached/{number}?size=20000")).await;
    }
    let metrics = served.admin().get("/metrics").await.text();
    let line = metrics.lines().find(|line| line.starts_with("gatewright_cache_stored_bytes"));
    let bytes: u64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!((20_000..=256 * 1024).contains(&bytes), "{bytes}");
}
