//! Workers whose hub speaks TLS, and those that do not speak as it does.

use std::fs;

use gatewright_control::config::ServerTls;
use gatewright_serve::HubOptions;
use gatewright_worker::{Request, Tls, TlsError, service_fn};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{Running, ask, hub, options, run, until, worker};

/// A root, a certificate of it for 127.0.0.1, and one for a worker.
struct Papers {
    folder: TempDir,
}

impl Papers {
    fn new() -> Self {
        let papers = Self { folder: tempfile::tempdir().unwrap() };
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        papers.write("ca.pem", &root.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(root, key);
        for (name, holder) in [("hub", "127.0.0.1"), ("worker", "worker.example")] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![holder.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            papers.write(&format!("{name}.pem"), &certificate.pem());
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn options(&self, client_ca: Option<&str>) -> HubOptions {
        let tls = ServerTls {
            certificate: self.path("hub.pem"),
            key: self.path("hub.key"),
            client_ca: client_ca.map(|name| self.path(name)),
        };
        HubOptions { tls: Some(tls), ..options() }
    }
}

fn one(worker: gatewright_worker::Worker) -> Running {
    run(worker, service_fn(async |request: Request| Ok(request.input::<String>()?.len())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_trusts_the_hub_whose_root_it_knows() {
    let papers = Papers::new();
    let hub = hub(papers.options(None)).await;
    let tls = Tls::ca(papers.path("ca.pem")).unwrap();
    let worker = one(worker(hub.address()).tls(tls));
    assert_eq!(ask(&hub, "\"four\"").await.unwrap(), "4");
    // More than sockets hold, in both directions.
    let long = "x".repeat(8 << 20);
    assert_eq!(ask(&hub, &format!("\"{long}\"")).await.unwrap(), (8 << 20).to_string());
    worker.stop().await.unwrap();
    until(&hub, |status| status.workers == 0).await;
    assert_eq!(hub.status().workers_lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_as_the_hub_does_is_no_worker_and_hurts_nobody() {
    let papers = Papers::new();
    let (secure, plain) = (hub(papers.options(None)).await, hub(options()).await);
    let trusted = Tls::ca(papers.path("ca.pem")).unwrap();
    let strangers = Tls::ca(Papers::new().path("ca.pem")).unwrap();
    let plain_at_secure = one(worker(secure.address()));
    let distrustful = one(worker(secure.address()).tls(strangers));
    let secure_at_plain = one(worker(plain.address()).tls(trusted.clone()));
    let good = [one(worker(secure.address()).tls(trusted)), one(worker(plain.address()))];
    for hub in [&secure, &plain] {
        assert_eq!(ask(hub, "\"four\"").await.unwrap(), "4");
        assert_eq!(hub.status().workers, 1);
    }
    for worker in good.into_iter().chain([plain_at_secure, distrustful, secure_at_plain]) {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_may_ask_for_the_workers_certificate() {
    let papers = Papers::new();
    let hub = hub(papers.options(Some("ca.pem"))).await;
    let (ca, own) = (papers.path("ca.pem"), papers.path("worker.pem"));
    let without = one(worker(hub.address()).tls(Tls::ca(&ca).unwrap()));
    let tls = Tls::with_certificate(&ca, own, papers.path("worker.key")).unwrap();
    let with = one(worker(hub.address()).tls(tls));
    assert_eq!(ask(&hub, "\"four\"").await.unwrap(), "4");
    assert_eq!(hub.status().workers, 1);
    with.stop().await.unwrap();
    until(&hub, |status| status.workers == 0).await;
    without.stop().await.unwrap();
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let papers = Papers::new();
    let missing = Tls::ca(papers.path("nothing.pem")).unwrap_err();
    assert!(missing.to_string().contains("nothing.pem"), "{missing}");
    assert!(matches!(Tls::ca(papers.path("hub.key")), Err(TlsError::NoRoots)));
}
