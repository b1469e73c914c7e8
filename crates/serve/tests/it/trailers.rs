//! What comes behind a body: gRPC over HTTP/2, and the trailer fields of HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Served, folder, options, raw, serve, serve_with};
use crate::tls::Authority;

type Pieces =
    StreamBody<futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// A body that is sent piece by piece.
fn pieces() -> (mpsc::Sender<Frame<Bytes>>, Pieces) {
    let (sender, receiver) = mpsc::channel(4);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    (sender, StreamBody::new(Box::pin(stream)))
}

fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    fields.insert(name, HeaderValue::from_static(value));
    fields.insert("set-cookie", HeaderValue::from_static("late=1"));
    Frame::trailers(fields)
}

/// A server of one method in the manner of gRPC: each message comes back at once, and a status at the end. What its
/// request ended with is told in `x-end`.
async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let (sender, body) = pieces();
                tokio::spawn(async move {
                    let mut incoming = request.into_body();
                    let mut end = HeaderMap::new();
                    while let Some(Ok(frame)) = incoming.frame().await {
                        match frame.into_data() {
                            Ok(data) => sender.send(Frame::data(data)).await.unwrap(),
                            Err(frame) => end = frame.into_trailers().unwrap(),
                        }
                    }
                    let mut fields = HeaderMap::new();
                    fields.insert("grpc-status", HeaderValue::from_static("0"));
                    fields.insert("set-cookie", HeaderValue::from_static("late=1"));
                    if let Some(value) = end.remove("x-client-end") {
                        fields.insert("x-client-end", value);
                    }
                    sender.send(Frame::trailers(fields)).await.unwrap();
                });
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

async fn gateway(upstream: SocketAddr, more: &str) -> Served {
    serve(&format!(
        "[function.o]\nhttp = \"http://{upstream}\"\n{more}\n[[route]]\npath = \"/cached/{{*rest}}\"\nto = \"o\"\n\
         cache = {{}}\n[[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\n"
    ))
    .await
}

/// Two calls of the method that this gateway leads to, message by message.
async fn converse(served: &Served) {
    let stream = TcpStream::connect(served.gateway.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for path in ["/pkg.Service/Method", "/cached/pkg.Service/Method"] {
        let (messages, body) = pieces();
        let url = format!("http://{}{path}", served.gateway.address());
        let request = Request::post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        // The answer begins before the request ends.
        let response = sender.send_request(request).await.unwrap();
        let mut answer = response.into_body();
        for message in ["one", "two", "three"] {
            messages.send(Frame::data(Bytes::from_static(message.as_bytes()))).await.unwrap();
            let piece = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece, message);
        }
        messages.send(trailers("x-client-end", "bye")).await.unwrap();
        drop(messages);
        let end = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(
            (&end["grpc-status"], &end["x-client-end"]),
            (&"0".parse().unwrap(), &"bye".parse().unwrap())
        );
        assert!(!end.contains_key("set-cookie"), "no such field may come late");
    }
    served.until("o", |function| function["inFlight"] == 0).await;
    assert_eq!(served.function("o").await["totals"]["ok"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_both_ways_and_its_status_comes_behind_the_body() {
    converse(&gateway(grpc().await, "http2 = true").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_tls_needs_no_word_of_http2() {
    let authority = Authority::new();
    let folder = folder();
    authority.issue(folder.path(), "own");
    let behind = format!(
        "[gateway]\ntls = {{ certificate = \"own.pem\", key = \"own.key\" }}\n[function.o]\n\
         http = \"http://{}\"\nhttp2 = true\n[[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\n",
        grpc().await
    );
    let behind = serve_with(&behind, folder, options()).await;
    let folder = self::folder();
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    let front = format!(
        "[function.o]\nhttp = \"https://localhost:{}\"\ntls = {{ ca = \"root.pem\" }}\n\
         [[route]]\npath = \"/cached/{{*rest}}\"\nto = \"o:/{{rest}}\"\ncache = {{}}\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"o\"\n",
        behind.gateway.address().port()
    );
    converse(&serve_with(&front, folder, options()).await).await;
}

/// An HTTP/1.1 upstream: answers with trailer fields, and tells what it was sent.
async fn chunked() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut question = String::new();
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    question.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
                    let ends = question.starts_with("GET") && question.ends_with("\r\n\r\n")
                        || question.contains("\r\n0\r\n") && question.ends_with("\r\n\r\n");
                    if ends {
                        asked.send(std::mem::take(&mut question)).unwrap();
                        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncache-control: max-age=60\r\n\
                                      trailer: x-sum, content-length\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\
                                      content-length: 5\r\nx-not-said: 1\r\n\r\n";
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, questions)
}

async fn ask(served: &Served, head: &str) -> String {
    let head = format!("{head}\r\nhost: h\r\n");
    raw(
        served.gateway.address(),
        head.replace("\r\nhost: h\r\n", "\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn trailer_fields_reach_a_client_that_takes_them_and_no_other() {
    let (upstream, mut questions) = chunked().await;
    let served = gateway(upstream, "").await;
    let answer = ask(&served, "GET /a HTTP/1.1\r\nte: trailers").await;
    assert!(answer.contains("\r\ntrailer: x-sum, content-length\r\n"), "{answer}");
    assert!(answer.ends_with("\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
    let asked = questions.recv().await.unwrap();
    assert!(asked.contains("te: trailers\r\n") && asked.contains("connection: te\r\n"), "{asked}");

    for (path, takes) in
        [("/a", ""), ("/cached/a", "\r\nte: trailers"), ("/cached/a", "\r\nte: trailers")]
    {
        let answer = ask(&served, &format!("GET {path} HTTP/1.1{takes}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hello"), "{answer}");
        assert!(!answer.contains("trailer:") && !answer.contains("x-sum"), "{path}: {answer}");
    }
    assert!(!questions.recv().await.unwrap().contains("te:"), "not asked for, so not wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailer_fields_of_a_request_reach_the_upstream_if_they_are_announced() {
    let (upstream, mut questions) = chunked().await;
    let served = gateway(upstream, "").await;
    let request = "POST /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n\
                   3\r\nabc\r\n0\r\nx-sum: 7\r\nhost: evil\r\nx-other: 1\r\n\r\n";
    let answer = raw(served.gateway.address(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let asked = questions.recv().await.unwrap();
    assert!(asked.contains("\r\ntrailer: x-sum, host\r\n"), "{asked}");
    assert!(asked.ends_with("3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"), "{asked}");
}
