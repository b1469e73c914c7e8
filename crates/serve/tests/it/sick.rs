//! Upstreams that are sick for a while: what their clients get meanwhile, and afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::{Answer, Served, serve};
use crate::upstreams::before;

const WELL: u8 = 0;
/// It answers 500.
const ERROR: u8 = 1;
/// It answers, and resets the connection in the middle of the body.
const RESET: u8 = 2;
/// It reads requests and says nothing.
const HANG: u8 = 3;
/// It closes connections as soon as they are there.
const CLOSE: u8 = 4;
/// One after the other, request by request.
const FLAP: u8 = 5;

/// An upstream that is as it is told to be.
struct Upstream {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    asked: Arc<AtomicU64>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, asked) = (Arc::<AtomicU8>::default(), Arc::<AtomicU64>::default());
        let upstream = Self { address, mood: Arc::clone(&mood), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, Arc::clone(&mood), Arc::clone(&asked)));
            }
        });
        upstream
    }

    fn is(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

/// Answers one request of a connection, and closes it.
async fn answer(mut stream: TcpStream, mood: Arc<AtomicU8>, asked: Arc<AtomicU64>) {
    let mut head = [0; 4096];
    if mood.load(Ordering::SeqCst) == CLOSE {
        return;
    }
    if !matches!(stream.read(&mut head).await, Ok(1..)) {
        return;
    }
    let number = asked.fetch_add(1, Ordering::SeqCst);
    let mood = match mood.load(Ordering::SeqCst) {
        FLAP if number.is_multiple_of(2) => WELL,
        FLAP => [ERROR, RESET, HANG, CLOSE][(number / 2 % 4) as usize],
        mood => mood,
    };
    let fields = "connection: close\r\ncache-control: max-age=0\r\ncontent-length: 10\r\n\r\n";
    match mood {
        WELL => drop(
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}0123456789").as_bytes()).await,
        ),
        ERROR => {
            let whole = format!("HTTP/1.1 500 Sick\r\n{fields}0123456789");
            drop(stream.write_all(whole.as_bytes()).await);
        }
        RESET => {
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}01234").as_bytes()).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
            // Unsent bytes are dropped, and the other side is reset.
            drop(stream.set_zero_linger());
        }
        HANG => std::future::pending().await,
        _ => {}
    }
}

/// A gateway before it, with a route that keeps stale answers and one that keeps nothing.
async fn gateway(upstream: &Upstream) -> Served {
    serve(&format!(
        "[function.o]\nhttp = \"http://{}\"\ntimeout = \"2s\"\ntimeouts = {{ head = \"100ms\", idle = \"100ms\" }}\n\
         retries = {{ attempts = 1 }}\n\
         breaker = {{ failures = 3, open = \"100ms\", max_open = \"200ms\" }}\n\
         [[route]]\npath = \"/kept\"\nto = \"o:/\"\ncache = {{ stale_if_error = \"10m\" }}\n\
         [[route]]\npath = \"/bare\"\nto = \"o:/\"\n",
        upstream.address
    ))
    .await
}

async fn ask(served: &Served, path: &str) -> Option<Answer> {
    // Broken connections are errors here; an answer is a whole one.
    served.client.send(Method::GET, path, &[], "").await.ok()
}

async fn until_well(served: &Served) {
    for _ in 0..500 {
        let answer = ask(served, "/bare").await;
        if answer.is_some_and(|answer| answer.status == StatusCode::OK) {
            return served.until("o", |of| of["instances"][0]["condition"] == "healthy").await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_sick_what_is_stale_is_served_and_the_breaker_spares_it() {
    let upstream = Upstream::start().await;
    let served = gateway(&upstream).await;
    for mood in [ERROR, RESET, HANG, CLOSE] {
        until_well(&served).await;
        assert_eq!(ask(&served, "/kept").await.unwrap().text(), "0123456789");
        upstream.is(mood);
        for _ in 0..40 {
            let answer = ask(&served, "/kept").await.expect("nobody sees a broken answer");
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "0123456789"));
            assert!(
                answer.field("cache-status").contains("stale-if-error"),
                "mood {mood}: {answer:?}"
            );
        }
        // Without anything stale, the failure is told until the breaker opens, and then at once.
        let before = upstream.asked.load(Ordering::SeqCst);
        let mut refused = 0;
        for _ in 0..40 {
            let answer = ask(&served, "/bare").await;
            assert!(
                answer.as_ref().is_none_or(|answer| answer.status.is_server_error()),
                "{answer:?}"
            );
            refused += u64::from(answer.is_some_and(|answer| answer.field("retry-after") == "1"));
        }
        let asked = upstream.asked.load(Ordering::SeqCst) - before;
        assert!(
            refused > 0 && asked + refused <= 40,
            "mood {mood}: {refused} refused, {asked} asked"
        );
        upstream.is(WELL);
    }
    until_well(&served).await;
    // For a moment after a failure its page is left alone.
    for _ in 0..500 {
        let answer = ask(&served, "/kept").await.unwrap();
        if !answer.field("cache-status").contains("stale-if-error") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is never asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_and_goes_is_never_seen_by_those_whom_stale_answers_serve() {
    let upstream = Upstream::start().await;
    let served = gateway(&upstream).await;
    assert_eq!(ask(&served, "/kept").await.unwrap().status, StatusCode::OK);
    upstream.is(FLAP);
    for _ in 0..60 {
        let answer = ask(&served, "/kept").await.expect("nobody sees a broken answer");
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "0123456789"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    upstream.is(WELL);
    until_well(&served).await;
    served.until("o", |function| function["inFlight"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_takes_no_longer_than_it_may() {
    // One that never accepts: when those who wait to be are as many as may, nothing answers any more.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut crowd = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        crowd.push(stream);
    }
    let rules = "timeouts = { connect = \"100ms\" }\nretries = { attempts = 1 }";
    let served = before(&[format!("http://{address}")], rules).await;
    let answer = served.client.get("/x").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
    assert!(answer.text().contains("(timeouts.connect) took 100ms"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_takes_no_longer_than_it_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    let rules = "timeouts = { tls = \"100ms\" }\nretries = { attempts = 1 }";
    let served = before(&[format!("https://{address}")], rules).await;
    let answer = served.client.get("/x").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
    assert!(answer.text().contains("(timeouts.tls) took 100ms"), "{}", answer.text());
    silent.abort();
}
