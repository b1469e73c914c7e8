//! What the relay stores, shares, checks and forgets, before an upstream whose every byte the test decides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Http, Served, folder, options, raw, serve, serve_with};

/// Pieces of an answer and the pause before each.
type Script = Vec<(u64, String)>;

/// An upstream that answers the n-th request (from 1) as a script says, and closes.
struct Scripted {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    heads: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(script: impl Fn(&str, u64) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<AtomicU64>::default();
        let heads = Arc::<parking_lot::Mutex<Vec<String>>>::default();
        let (script, count, seen) = (Arc::new(script), Arc::clone(&requests), Arc::clone(&heads));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (script, count, seen) =
                    (Arc::clone(&script), Arc::clone(&count), Arc::clone(&seen));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.lock().push(head.clone());
                    for (pause, piece) in script(&head, number) {
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        if stream.write_all(piece.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests, heads }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    async fn relay(&self, policy: &str) -> Served {
        serve(&self.file(policy, "")).await
    }

    fn file(&self, policy: &str, more: &str) -> String {
        format!(
            "[function.o]\nhttp = \"http://{}\"\ntimeout = \"5s\"\n[[route]]\npath = \"/{{*rest}}\"\n\
             to = \"o\"\ncache = {policy}\n{more}",
            self.address
        )
    }
}

/// A whole answer.
fn whole(status: &str, fields: &str, body: &str) -> Script {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    vec![(0, format!("{head}{fields}\r\n{body}"))]
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_stand_beside_each_other() {
    let origin = Scripted::start(|head, _| {
        let body = if head.contains("accept-language: de") { "hallo" } else { "hello" };
        whole("200 OK", "cache-control: max-age=60\r\nvary: accept-language\r\n", body)
    })
    .await;
    let served = origin.relay("{}").await;
    for _ in 0..2 {
        for (language, text) in [("de", "hallo"), ("en", "hello")] {
            let answer = served.client.get_with("/x", &[("accept-language", language)]).await;
            assert_eq!(answer.text(), text);
        }
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_variant_is_fetched_once_however_many_ask() {
    let origin = Scripted::start(|head, _| {
        let body = if head.contains("accept-language: de") { "hallo" } else { "hello" };
        let fields = "cache-control: max-age=60\r\nvary: accept-language\r\n";
        let mut script = whole("200 OK", fields, body);
        script[0].0 = 300;
        script
    })
    .await;
    let served = origin.relay("{}").await;
    let ask = |number: usize| {
        let client = Http::new(served.client.address);
        tokio::spawn(async move {
            let (language, text) = [("de", "hallo"), ("en", "hello")][number % 2];
            let answer = client.get_with("/x", &[("accept-language", language)]).await;
            assert_eq!(answer.text(), text);
        })
    };
    for client in (0..100).map(ask).collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(origin.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_response_is_served_while_one_request_asks_for_it_anew() {
    let origin = Scripted::start(|head, number| {
        let fields = "cache-control: max-age=1, stale-while-revalidate=60\r\netag: \"a\"\r\n";
        if head.contains("if-none-match: \"a\"") {
            return vec![(
                0,
                format!("HTTP/1.1 304 Not Modified\r\nconnection: close\r\n{fields}\r\n"),
            )];
        }
        whole("200 OK", fields, &format!("body {number}"))
    })
    .await;
    let served = origin.relay("{}").await;
    served.client.get("/x").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..5 {
        assert_eq!(served.client.get("/x").await.text(), "body 1");
    }
    while origin.requests() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let fresh = served.client.get("/x").await;
    assert!(fresh.field("cache-status").starts_with("gatewright; hit; ttl=0"), "{fresh:?}");
    assert_eq!(origin.requests(), 2, "validated once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_response_stands_in_for_a_failure() {
    let origin = Scripted::start(|_, number| match number {
        1 => whole("200 OK", "cache-control: max-age=1\r\n", "good"),
        2 => whole("503 Busy", "", "bad"),
        _ => Vec::new(),
    })
    .await;
    let served = origin.relay("{ stale_if_error = \"1h\" }").await;
    served.client.get("/x").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..20 {
        let answer = served.client.get("/x").await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "good"));
        assert!(answer.field("cache-status").contains("detail=stale-if-error"));
    }
    assert!(origin.requests() <= 4, "one that fails is left alone: {}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_cut_is_neither_stored_nor_taken_for_whole() {
    let origin = Scripted::start(|_, number| {
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nconnection: close\r\n";
        match number {
            1 => vec![
                (300, format!("{head}content-length: 100\r\n\r\nhalf")),
                (200, "of it".to_owned()),
            ],
            2 => vec![(0, format!("{head}transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"))],
            _ => whole("200 OK", "cache-control: max-age=60\r\n", "all of it"),
        }
    })
    .await;
    let served = origin.relay("{}").await;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = Http::new(served.client.address);
            tokio::spawn(async move {
                client.send(Method::GET, "/x", &[], "").await.map_err(|error| error.to_string())
            })
        })
        .collect();
    for client in clients {
        assert!(client.await.unwrap().is_err(), "a part is not taken for the whole");
    }
    assert_eq!(origin.requests(), 1);
    assert!(served.client.send(Method::GET, "/x", &[], "").await.is_err());
    assert_eq!(served.client.get("/x").await.text(), "all of it");
    assert!(served.client.get("/x").await.field("cache-status").contains("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_reads_while_the_fetch_goes_on() {
    let origin = Scripted::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nconnection: close\r\n";
        let head = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        vec![(100, head), (60_000, "0\r\n\r\n".to_owned())]
    })
    .await;
    let served = origin.relay("{}").await;
    let request = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(served.client.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let first = async {
            while !seen.windows(5).any(|part| part == b"first") {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
        };
        tokio::time::timeout(Duration::from_secs(3), first).await.expect("before its end");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_fetched_anew() {
    let origin = Scripted::start(|head, number| {
        let tag = if head.starts_with("get /a") { "even" } else { "odd" };
        let fields = format!("cache-control: max-age=60\r\ncache-tag: {tag}\r\netag: \"e\"\r\n");
        whole("200 OK", &fields, &format!("{number}"))
    })
    .await;
    let served = origin.relay("{}").await;
    let admin = served.admin();
    let purge = async |json: &str| {
        let fields = [("content-type", "application/json")];
        let path = "/system/cache/purge";
        admin.send(Method::POST, path, &fields, json.to_owned()).await.unwrap()
    };
    let hit = async |path: &str| {
        served.client.get(path).await.field("cache-status").starts_with("gatewright; hit")
    };
    for path in ["/a?1", "/a?2", "/b", "/c"] {
        assert!(!hit(path).await && hit(path).await);
    }
    assert_eq!(admin.get("/system/cache").await.json()["keys"], 4);
    for (wish, purged, gone, stays) in [
        (r#"{"url":"/a?1"}"#, 1, "/a?1", "/a?2"),
        (r#"{"tag":"even"}"#, 2, "/a?2", "/b"),
        (r#"{"prefix":"/b"}"#, 1, "/b", "/c"),
        (r#"{"url":"/c","soft":true}"#, 1, "/c", "/b"),
    ] {
        assert_eq!(purge(wish).await.json()["purged"], purged, "{wish}");
        assert!(!hit(gone).await && hit(stays).await, "{wish}");
    }
    let last = origin.heads.lock().last().cloned().unwrap();
    assert!(last.contains("if-none-match: \"e\""), "a soft purge lets it be validated: {last}");
    assert_eq!(purge("{}").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_it_is_purged_is_not_stored() {
    let origin = Scripted::start(|_, number| {
        let mut script = whole("200 OK", "cache-control: max-age=60\r\n", &format!("{number}"));
        script[0].0 = 400;
        script
    })
    .await;
    let served = origin.relay("{}").await;
    let first = {
        let client = served.client.clone();
        tokio::spawn(async move { client.get("/x").await })
    };
    while origin.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.client.send(Method::DELETE, "/x", &[], "").await.unwrap();
    first.await.unwrap();
    served.client.get("/x").await;
    assert_eq!(origin.requests(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_does_not_fit_its_schema_is_an_error_and_not_kept() {
    let origin = Scripted::start(|_, number| {
        let body = if number == 2 { "{\"id\":1}" } else { "{\"id\":\"x\"}" };
        whole("200 OK", "", body)
    })
    .await;
    let folder = folder();
    let schema = r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#;
    std::fs::write(folder.path().join("s.json"), schema).unwrap();
    let check = "check = { schema = \"s.json\", status = 404 }\n";
    let text = origin.file("{ ttl = \"1h\" }", check);
    let served = serve_with(&text, folder, options()).await;
    let wrong = served.client.get("/x").await;
    assert_eq!(wrong.status, StatusCode::NOT_FOUND);
    let error = wrong.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("the upstream's response is not as expected: at /id: "), "{error}");
    for _ in 0..2 {
        assert_eq!(served.client.get("/x").await.text(), "{\"id\":1}");
    }
    assert_eq!(origin.requests(), 2, "what fits is kept");
    let encoded = origin.heads.lock().iter().any(|head| head.contains("accept-encoding"));
    assert!(!encoded, "what is looked at is not asked for in an encoding");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_does_not_make_others_wait_again() {
    let origin = Scripted::start(|_, _| {
        let mut script = whole("200 OK", "cache-control: private\r\n", "own");
        script[0].0 = 200;
        script
    })
    .await;
    let served = origin.relay("{}").await;
    served.client.get("/x").await;
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let client = Http::new(served.client.address);
            tokio::spawn(async move { client.get("/x").await })
        })
        .collect();
    for client in clients {
        let answer = client.await.unwrap();
        assert!(!answer.field("cache-status").contains("collapsed"), "{answer:?}");
    }
    assert_eq!(origin.requests(), 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_from_a_stored_whole() {
    let origin = Scripted::start(|_, _| {
        whole("200 OK", "cache-control: max-age=60\r\netag: \"a\"\r\n", "0123456789")
    })
    .await;
    let served = origin.relay("{}").await;
    served.client.get("/x").await;
    let part = served.client.get_with("/x", &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status, part.text().as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert_eq!(part.field("content-range"), "bytes 2-4/10");
    let behind = served.client.get_with("/x", &[("range", "bytes=20-")]).await;
    assert_eq!(behind.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let known = served.client.get_with("/x", &[("if-none-match", "\"a\"")]).await;
    assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_a_circle_or_names_two_hosts_is_refused() {
    let origin = Scripted::start(|head, _| {
        let via = head.lines().find_map(|line| line.strip_prefix("via: 1.1 ")).unwrap_or_default();
        whole("200 OK", "", via)
    })
    .await;
    let served = origin.relay("{}").await;
    let name = served.client.get("/x").await.text();
    let again = served.client.get_with("/x", &[("via", &format!("1.1 a, 1.1 {name}"))]).await;
    assert_eq!(again.status, StatusCode::LOOP_DETECTED);
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let request = format!("GET /x HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = raw(served.client.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_body_is_passed_on_as_it_comes() {
    let origin = Scripted::start(|_, _| {
        let mut script = whole("200 OK", "", "done");
        script[0].0 = 500;
        script
    })
    .await;
    let served = origin.relay("{}").await;
    let mut stream = tokio::net::TcpStream::connect(served.client.address).await.unwrap();
    let head = "POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let arrives = async {
        while origin.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), arrives).await.expect("before its end");
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|part| part == b"done") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_is_bounded_too() {
    let origin = Scripted::start(|_, _| vec![(60_000, String::new())]).await;
    let bound = "[gateway]\nmax_body = \"100KiB\"\n";
    let served = serve(&format!("{}{bound}", origin.file("{}", ""))).await;
    let piece = format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000));
    let head =
        "POST /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}{}0\r\n\r\n", piece.repeat(10));
    let answer = raw(served.client.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// `/450` is answered with so many KiB.
async fn sized() -> Scripted {
    Scripted::start(|head, _| {
        let kib = head.split([' ', '/', '?']).find_map(|part| part.parse::<usize>().ok());
        let fields = "cache-control: max-age=60\r\nvary: accept-language\r\n";
        whole("200 OK", fields, &"x".repeat(kib.unwrap() * 1024))
    })
    .await
}

async fn is_hit(served: &Served, path: &str, language: &str) -> bool {
    let answer = served.client.get_with(path, &[("accept-language", language)]).await;
    assert_eq!(answer.status, 200);
    answer.field("cache-status").contains("hit")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_half_the_memory_is_kept_on_every_machine() {
    let origin = sized().await;
    let served = serve(&origin.file("{}", "[cache]\nmemory = \"1MiB\"\n")).await;
    for (path, kept) in [("/512", true), ("/513", false), ("/1100", false)] {
        assert!(!is_hit(&served, path, "").await);
        let mut hits = 0;
        // Its last bytes may leave a moment before it is stored.
        for _ in 0..20 {
            hits += u32::from(is_hit(&served, path, "").await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(hits > 0, kept, "{path} KiB: {hits} hits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_variants_that_do_not_fit_together_the_oldest_go() {
    let origin = sized().await;
    let served = serve(&origin.file("{}", "[cache]\nmemory = \"1MiB\"\n")).await;
    for language in ["a", "b", "c", "d", "e", "f"] {
        assert!(!is_hit(&served, "/200", language).await);
    }
    for (language, kept) in [("f", true), ("e", true), ("d", true), ("c", true), ("a", false)] {
        assert_eq!(is_hit(&served, "/200", language).await, kept, "{language}");
    }
}
