//! Answers in content codings.

use std::io::Read;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Answer, Http, Origin, Served, serve};

async fn gateway(address: std::net::SocketAddr, more: &str) -> Served {
    serve(&format!(
        "[function.o]\nhttp = \"http://{address}\"\n\
         [[route]]\npath = \"/plain/{{*rest}}\"\nto = \"o\"\ncompress = true\n\
         [[route]]\npath = \"/cached/{{*rest}}\"\nto = \"o\"\ncompress = true\ncache = {{ ttl = \"1h\" }}\n\
         [[route]]\npath = \"/gzip/{{*rest}}\"\nto = \"o\"\ncompress = [\"gzip\"]\ncache = {{}}\n\
         [[route]]\npath = \"/never/{{*rest}}\"\nto = \"o\"\n{more}"
    ))
    .await
}

fn decoded(answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    match answer.field("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut plain).unwrap(),
        "br" => brotli::Decompressor::new(&*answer.body, 4096).read_to_end(&mut plain).unwrap(),
        "zstd" => std::io::copy(&mut zstd::Decoder::new(&*answer.body).unwrap(), &mut plain)
            .unwrap()
            .try_into()
            .unwrap(),
        other => panic!("content-encoding: {other}"),
    };
    plain
}

const TEXT: &str = "type=text/plain&etag=%22a%22";

#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_the_coding_that_it_likes_best_and_the_upstream_is_asked_once() {
    let origin = Origin::start().await;
    let served = gateway(origin.address, "").await;
    for (number, path) in ["/plain/a", "/cached/a"].into_iter().enumerate() {
        let path = format!("{path}?{TEXT}&size=100000");
        let before = origin.requests();
        for (accepted, coding) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("gzip;q=0.5, br", "br"),
            ("gzip", "gzip"),
        ] {
            let answer = served.client.get_with(&path, &[("accept-encoding", accepted)]).await;
            assert_eq!((answer.status, answer.field("content-encoding")), (StatusCode::OK, coding));
            assert!(answer.body.len() < 2_000, "{}", answer.body.len());
            assert_eq!(decoded(&answer), [b'x'; 100_000], "{path} {accepted}");
            assert_eq!(
                (answer.field("vary"), answer.field("etag")),
                ("accept-encoding", "W/\"a\"")
            );
        }
        let plain = served.client.get(&path).await;
        assert_eq!((plain.field("content-encoding"), plain.body.len()), ("", 100_000));
        assert_eq!((plain.field("vary"), plain.field("etag")), ("accept-encoding", "\"a\""));
        assert_eq!(origin.requests() - before, [6, 1][number]);
    }
    let path = format!("/cached/a?{TEXT}&size=100000");
    let hit = served.client.get_with(&path, &[("accept-encoding", "br")]).await;
    assert_eq!(hit.field("content-length"), hit.body.len().to_string(), "it is kept");
    assert!(hit.field("cache-status").contains("; hit"), "{hit:?}");
    let never = served
        .client
        .get_with("/never/a?type=text/plain&size=9000", &[("accept-encoding", "gzip")])
        .await;
    assert_eq!((never.field("content-encoding"), never.field("vary")), ("", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_for_one_client_is_kept_for_the_next_and_counts() {
    let origin = Origin::start().await;
    let served = gateway(origin.address, "").await;
    let path = format!("/cached/a?{TEXT}&size=4000000");
    let bytes =
        async || served.admin().get("/system/cache").await.json()["bytes"].as_u64().unwrap();
    served.client.get(&path).await;
    let plain = bytes().await;
    let gzip = [("accept-encoding", "gzip")];
    let first = served.client.get_with(&path, &gzip).await;
    for _ in 0..1_000 {
        if bytes().await > plain {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(bytes().await, plain + first.body.len() as u64, "it counts");
    let second = served.client.get_with(&path, &gzip).await;
    assert_eq!(second.field("content-length"), first.body.len().to_string());
    assert_eq!(second.body, first.body);
    let head = served.client.send(Method::HEAD, &path, &gzip, "").await.unwrap();
    for field in ["content-encoding", "content-length", "etag", "vary", "content-type"] {
        assert_eq!(head.field(field), second.field(field), "{field}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_as_it_is_is_not_compressed() {
    let origin = Origin::start().await;
    let served = gateway(origin.address, "").await;
    for query in [
        "type=text/plain&size=100",
        "type=image/png&size=9000",
        "size=9000",
        "type=text/plain&size=9000&coding=br",
        "type=text/plain&size=9000&cc=no-transform",
        "type=text/plain&size=9000&status=206",
    ] {
        for path in ["/plain/a", "/cached/a"] {
            let path = format!("{path}?{query}");
            for _ in 0..2 {
                let answer = served.client.get_with(&path, &[("accept-encoding", "gzip")]).await;
                assert_ne!(answer.field("content-encoding"), "gzip", "{path}");
                assert!(answer.body.len() == 100 || answer.body.len() == 9_000, "{path}");
            }
        }
    }
    let path = format!("/cached/b?{TEXT}&size=9000");
    served.client.get(&path).await;
    let part = [("accept-encoding", "gzip"), ("range", "bytes=0-99")];
    let part = served.client.get_with(&path, &part).await;
    assert_eq!((part.status, part.body.len()), (StatusCode::PARTIAL_CONTENT, 100));
    assert_eq!((part.field("content-encoding"), part.field("vary")), ("", "accept-encoding"));
    let known = [("accept-encoding", "gzip"), ("if-none-match", "W/\"a\"")];
    let same = served.client.get_with(&path, &known).await;
    assert_eq!((same.status, same.field("etag")), (StatusCode::NOT_MODIFIED, "W/\"a\""));
    let only = served
        .client
        .get_with("/gzip/a?type=text/plain&size=9000", &[("accept-encoding", "br")])
        .await;
    assert_eq!(only.field("content-encoding"), "", "not of the route's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_has_one_upstream_request_and_whole_answers() {
    let origin = Origin::start().await;
    let served = gateway(origin.address, "").await;
    let path = format!("/cached/a?{TEXT}&size=300000&pause=500");
    let clients: Vec<_> = (0..200)
        .map(|number| {
            let (client, path) = (Http::new(served.client.address), path.clone());
            let coding = ["gzip", "br", "zstd"][number % 3];
            tokio::spawn(
                async move { client.get_with(&path, &[("accept-encoding", coding)]).await },
            )
        })
        .collect();
    for client in clients {
        assert_eq!(decoded(&client.await.unwrap()), [b'x'; 300_000]);
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_sent_when_they_come() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = gateway(listener.local_addr().unwrap(), "").await;
    for path in ["/plain/events", "/cached/events"] {
        let url = format!("http://{}{path}", served.gateway.address());
        let request = http::Request::get(url).header("accept-encoding", "gzip");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let asked = tokio::spawn(async move { client.request(request).await.unwrap() });
        let mut stream = upstream_of(&listener).await;
        let mut body = asked.await.unwrap().into_body();
        let (mut got, mut text) = (Vec::new(), [0; 6]);
        // It is readable before the upstream says more.
        while flate2::read::GzDecoder::new(&*got).read_exact(&mut text).is_err() {
            got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(&text, b"first\n");
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
        got.extend_from_slice(&body.collect().await.unwrap().to_bytes());
        let mut all = String::new();
        flate2::read::GzDecoder::new(&*got).read_to_string(&mut all).unwrap();
        assert_eq!(all, "first\nlast");
    }
}

/// Takes a request and begins to answer it.
async fn upstream_of(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = [0; 4096];
    let length = stream.read(&mut head).await.unwrap();
    assert!(String::from_utf8_lossy(&head[..length]).contains("accept-encoding: identity\r\n"));
    let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                 6\r\nfirst\n\r\n";
    stream.write_all(begin.as_bytes()).await.unwrap();
    stream
}
