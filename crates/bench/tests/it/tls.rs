//! Secure servers: with a certificate that is trusted, and with others.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use gatewright_bench::{BenchError, Plan, Target, Trust};
use gatewright_workload::{Limits, Strategy};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::bench;

/// A server with a certificate of its own for `localhost`; its port, and the certificate as PEM.
fn serve() -> (u16, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || answer(StreamOwned::new(session, stream)));
        }
    });
    (port, signed.cert.pem())
}

/// Answers every request with 100,000 bytes: more than a record of TLS, or a buffer of the engine, holds.
fn answer(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>) {
    let body = vec![b'x'; 100_000];
    let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        seen.extend_from_slice(&buffer[..count]);
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            seen.drain(..end + 4);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            if sent.and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}

fn plan(port: u16, trust: Trust) -> Plan {
    let target = Target::get(format!("https://localhost:{port}/"));
    let limits = Limits { requests: Some(50), ..Limits::default() };
    Plan { trust, ..Plan::new(target, Strategy::Concurrent { streams: 4 }, limits) }
}

#[test]
fn a_server_that_is_trusted_is_loaded() {
    let (port, pem) = serve();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    for trust in [Trust { ca: Some(ca), insecure: false }, Trust { ca: None, insecure: true }] {
        let (outcome, _) = bench(&plan(port, trust));
        let summary = &outcome.summary;
        assert_eq!(
            (summary.statuses.ok, summary.bytes_out),
            (50, 5_000_000),
            "{:?}",
            summary.reasons
        );
        assert_eq!(outcome.connections_opened, 4, "connections are kept");
    }
}

#[test]
fn a_server_that_proves_nothing_is_refused() {
    let (port, _) = serve();
    let (_, other) = serve();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, other).unwrap();
    let mut silent = |_: &gatewright_bench::Snapshot| std::ops::ControlFlow::Continue(());
    let plan = plan(port, Trust { ca: Some(ca), insecure: false });
    let error = gatewright_bench::run(&plan, &mut silent, None).unwrap_err();
    assert!(matches!(&error, BenchError::Tls { host, .. } if host == "localhost"), "{error}");
    let none = Plan { trust: Trust { ca: Some("none.pem".into()), insecure: false }, ..plan };
    let error = gatewright_bench::run(&none, &mut silent, None).unwrap_err().to_string();
    assert!(error.contains("none.pem"), "{error}");
}
