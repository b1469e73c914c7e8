//! HTTP/2, spoken with a server that others have written.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gatewright_bench::{BenchError, Plan, Target, Trust};
use gatewright_workload::{Limits, Strategy};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::bench;
use crate::server::{Answer, Server};

/// What a server has seen.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
    connections: AtomicU64,
}

#[derive(Clone, Copy)]
struct Settings {
    streams: u32,
    /// Window of a request's body.
    window: u32,
    pause: Duration,
    /// A connection takes leave after this time.
    leaves_after: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        let pause = Duration::from_millis(2);
        Self { streams: 200, window: 65_535, pause, leaves_after: None }
    }
}

/// A server that answers with the body of the request and `x-asked`, its path; its port.
fn serve(settings: Settings, tls: Option<TlsAcceptor>) -> (u16, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let (sender, receiver) = std::sync::mpsc::channel();
    let for_server = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, tls) = (Arc::clone(&for_server), tls.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(TokioIo::new(stream), settings, seen).await;
                            }
                        }
                        None => converse(TokioIo::new(stream), settings, seen).await,
                    }
                });
            }
        });
    });
    (receiver.recv().unwrap(), seen)
}

async fn converse<I>(io: I, settings: Settings, seen: Arc<Seen>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, settings, Arc::clone(&seen)));
    let connection = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(settings.window)
        .initial_connection_window_size(settings.window.max(65_535))
        .serve_connection(io, service);
    tokio::pin!(connection);
    if let Some(after) = settings.leaves_after {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = tokio::time::sleep(after) => connection.as_mut().graceful_shutdown(),
        }
    }
    // A client that goes away is no matter of the server.
    drop(connection.await);
}

async fn answer(
    request: Request<Incoming>,
    settings: Settings,
    seen: Arc<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let at_once = seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most_at_once.fetch_max(at_once, Ordering::SeqCst);
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let asked = request.uri().to_string();
    let is_stuck = asked.ends_with("/stuck");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    tokio::time::sleep(if is_stuck { Duration::from_secs(60) } else { settings.pause }).await;
    seen.at_once.fetch_sub(1, Ordering::SeqCst);
    let code = if asked.ends_with("/teapot") { 418 } else { 200 };
    let models = Bytes::from_static(br#"{"object":"list","data":[{"id":"llama"}]}"#);
    let body = if asked.ends_with("/v1/models") { models } else { body };
    Ok(Response::builder().status(code).header("x-asked", asked).body(Full::new(body)).unwrap())
}

fn plan(port: u16, path: &str, streams: u32, requests: u64) -> Plan {
    let target = Target::get(format!("http://localhost:{port}{path}"));
    let limits = Limits { requests: Some(requests), ..Limits::default() };
    Plan { http2: true, ..Plan::new(target, Strategy::Concurrent { streams }, limits) }
}

#[test]
fn requests_share_a_connection_and_come_back_in_any_order() {
    let (port, seen) = serve(Settings::default(), None);
    let (outcome, records) = bench(&plan(port, "/", 40, 2_000));
    assert_eq!(outcome.summary.statuses.ok, 2_000, "{:?}", outcome.summary.reasons);
    assert_eq!(records.len(), 2_000);
    assert_eq!(outcome.connections_opened, 1);
    // The server's connection that only looked whether it speaks HTTP/2 is the other one.
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    assert_eq!(seen.most_at_once.load(Ordering::SeqCst), 40);
    let (outcome, _) = bench(&plan(port, "/teapot", 4, 20));
    assert_eq!(
        (outcome.summary.statuses.error, outcome.parts.codes[&418].statuses.error),
        (20, 20)
    );
}

#[test]
fn more_connections_are_opened_when_all_are_full() {
    let (port, seen) = serve(Settings { streams: 8, ..Settings::default() }, None);
    let (outcome, _) = bench(&plan(port, "/", 40, 2_000));
    assert_eq!(outcome.summary.statuses.ok, 2_000, "{:?}", outcome.summary.reasons);
    assert!((5..=6).contains(&outcome.connections_opened), "{}", outcome.connections_opened);
    assert_eq!(seen.most_at_once.load(Ordering::SeqCst), 40);
    let (outcome, _) = bench(&Plan { streams_per_connection: 1, ..plan(port, "/", 12, 200) });
    assert_eq!((outcome.summary.statuses.ok, outcome.connections_opened), (200, 12));
}

#[test]
fn an_open_loop_keeps_its_schedule() {
    let (port, seen) =
        serve(Settings { pause: Duration::from_millis(50), ..Settings::default() }, None);
    let strategy = Strategy::Constant { rate: 1_000.0 };
    let (outcome, _) = bench(&Plan { strategy, ..plan(port, "/", 1, 500) });
    assert_eq!(outcome.summary.statuses.ok, 500, "{:?}", outcome.summary.reasons);
    assert!(seen.most_at_once.load(Ordering::SeqCst) > 20);
}

#[test]
fn a_request_goes_out_though_no_other_follows() {
    let (port, _) = serve(Settings::default(), None);
    let plan = Plan { strategy: Strategy::Constant { rate: 20.0 }, ..plan(port, "/", 1, 4) };
    let (outcome, _) = bench(&Plan { timeout: Duration::from_secs(5), ..plan });
    assert_eq!(outcome.summary.statuses.ok, 4, "{:?}", outcome.summary.reasons);
}

#[test]
fn bodies_are_longer_than_windows() {
    let (port, _) = serve(Settings { window: 10_000, ..Settings::default() }, None);
    let mut plan = plan(port, "/", 8, 100);
    plan.target.body = vec![b'x'; 100_000];
    plan.target.method = "POST".into();
    let (outcome, records) = bench(&plan);
    assert_eq!(outcome.summary.statuses.ok, 100, "{:?}", outcome.summary.reasons);
    assert!(records.iter().all(|record| (record.bytes_in, record.bytes_out) == (100_000, 100_000)));
}

#[test]
fn a_stream_that_takes_too_long_ends_alone() {
    let (port, _) = serve(Settings::default(), None);
    let mut plan = plan(port, "/", 10, 100);
    let target = |path: &str, weight| gatewright_bench::WeightedTarget {
        name: Some(path.into()),
        weight,
        target: Target::get(format!("http://localhost:{port}/{path}")),
        answer: gatewright_bench::AnswerKind::Opaque,
        dialogue: gatewright_bench::Dialogue::default(),
    };
    plan.mix = vec![target("quick", 9.0), target("stuck", 1.0)];
    plan.timeout = Duration::from_millis(300);
    let (outcome, _) = bench(&plan);
    let of = |name: &str| outcome.parts.targets[name].statuses;
    assert_eq!(of("quick").ok + of("stuck").timeout, 100, "{:?}", outcome.summary.reasons);
    assert!(of("stuck").timeout > 0);
    assert_eq!(outcome.connections_opened, 1, "the connection goes on");
}

#[test]
fn a_server_that_takes_leave_costs_no_request() {
    let leaves_after = Some(Duration::from_millis(30));
    let (port, seen) = serve(Settings { leaves_after, ..Settings::default() }, None);
    let (outcome, _) = bench(&plan(port, "/", 20, 3_000));
    assert_eq!(outcome.summary.statuses.ok, 3_000, "{:?}", outcome.summary.reasons);
    assert!(outcome.connections_opened > 2, "{}", outcome.connections_opened);
    assert_eq!(seen.requests.load(Ordering::SeqCst), 3_000, "none is answered twice");
}

#[test]
fn over_tls_it_is_agreed_on() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let acceptor = |protocols: &[&[u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![signed.cert.der().clone()],
                PrivateKeyDer::Pkcs8(key.clone_key()),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    };
    let trust = Trust { ca: None, insecure: true };
    let (port, _) = serve(Settings::default(), Some(acceptor(&[b"http/1.1", b"h2"])));
    let mut secure = Plan { trust, ..plan(port, "/", 20, 500) };
    secure.target.url = format!("https://localhost:{port}/");
    secure.target.method = "POST".into();
    secure.target.body = vec![b'x'; 50_000];
    let (outcome, records) = bench(&secure);
    assert_eq!(outcome.summary.statuses.ok, 500, "{:?}", outcome.summary.reasons);
    assert_eq!(outcome.connections_opened, 1);
    assert!(records.iter().all(|record| record.bytes_out == 50_000));

    for protocols in [&[b"http/1.1".as_slice()][..], &[]] {
        let (port, _) = serve(Settings::default(), Some(acceptor(protocols)));
        secure.target.url = format!("https://localhost:{port}/");
        let mut silent = |_: &gatewright_bench::Snapshot| ControlFlow::Continue(());
        let error = gatewright_bench::run(&secure, &mut silent, None).unwrap_err();
        assert!(matches!(error, BenchError::Tls { .. }), "{error}");
    }
}

#[test]
fn a_server_without_it_is_named() {
    let server = Server::start(|_| Answer::Last(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    let mut plan = plan(1, "/", 1, 1);
    plan.target.url = server.url();
    let mut silent = |_: &gatewright_bench::Snapshot| ControlFlow::Continue(());
    let error = gatewright_bench::run(&plan, &mut silent, None).unwrap_err().to_string();
    assert!(error.ends_with("does not speak HTTP/2: it answers in HTTP/1"), "{error}");
    plan.target.headers = vec![("Connection".into(), "close".into())];
    let error = gatewright_bench::run(&plan, &mut silent, None).unwrap_err().to_string();
    assert!(error.contains("HTTP/2 has no such header"), "{error}");
}

#[test]
fn a_model_is_found_and_a_check_is_made_by_http2() {
    use gatewright_bench::{Demand, OpenAiTarget, Scenario, TargetSpec};

    let (port, seen) = serve(Settings { window: 100, ..Settings::default() }, None);
    let nobody = |_: &str| None;
    let folder = std::path::Path::new("");
    let url = format!("http://localhost:{port}");
    let target = TargetSpec { openai: Some(OpenAiTarget::default()), ..TargetSpec::of(&*url) };
    let mut scenario = Scenario { target: vec![target], ..Scenario::default() };
    scenario.client.http2 = true;
    assert!(scenario.find_models(folder, &nobody).unwrap());
    assert_eq!(scenario.target[0].openai.as_ref().unwrap().model.as_deref(), Some("llama"));
    assert_eq!(seen.requests.load(Ordering::SeqCst), 1);

    let body = Some("x".repeat(10_000));
    let checked = |path: &str| {
        let target = TargetSpec { body: body.clone(), ..TargetSpec::of(format!("{url}{path}")) };
        let demand = vec![Demand { requests: Some(1), ..Demand::new(Strategy::Synchronous) }];
        let mut scenario = Scenario { target: vec![target], demand, ..Scenario::default() };
        (scenario.client.http2, scenario.client.check) = (true, Some(Duration::ZERO));
        scenario.prepare(folder, &nobody).unwrap().check().map_err(|error| error.to_string())
    };
    assert_eq!(checked("/"), Ok(()));
    let error = checked("/teapot").unwrap_err();
    assert!(error.contains("answers with HTTP 418: xxx"), "{error}");
}
