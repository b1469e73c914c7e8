//! HTTPS in front of the gateway and behind it, with certificates made for the test.

use std::sync::Arc;

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::support::{Origin, folder, options, raw, serve_with, system, try_start};

/// Issues certificates for a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> String {
        self.0.pem()
    }

    /// Writes `name.pem` and `name.key` of a certificate for localhost, as a server and as a client.
    pub(crate) fn issue(&self, folder: &std::path::Path, name: &str) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        // OpenSSL takes a certificate whose issuer has the same name for one that is signed by itself.
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts `root` and shows the certificate of this name in the folder, if one is named.
fn client(root: &str, shows: Option<(&std::path::Path, &str)>) -> Https {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        None => config.with_no_client_auth(),
        Some((folder, name)) => {
            let file = |end| folder.join(format!("{name}.{end}"));
            let certificate = CertificateDer::from_pem_file(file("pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_all_versions()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn get(client: &Https, url: String) -> Result<(Version, String), String> {
    let answer = client.get(url.parse().unwrap()).await.map_err(|error| format!("{error:?}"))?;
    let version = answer.version();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok((version, String::from_utf8_lossy(&body).into_owned()))
}

const TLS: &str = r#"{ certificate = "own.pem", key = "own.key" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn https_in_front_and_behind_is_relayed_and_cached() {
    let authority = Authority::new();
    let folder = folder();
    authority.issue(folder.path(), "own");
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    let origin = Origin::start().await;
    let behind = format!(
        "[gateway]\ntls = {TLS}\nadmin_tls = {TLS}\n[function.o]\nhttp = \"http://{}\"\n\
         [[route]]\npath = \"/{{*rest}}\"\nto = \"o:/{{rest}}\"",
        origin.address
    );
    let behind = serve_with(&behind, folder, options()).await;
    let front = format!(
        "[gateway]\ntls = {TLS}\n[function.o]\nhttp = \"https://localhost:{}\"\n\
         tls = {{ ca = \"root.pem\" }}\n[[route]]\npath = \"/{{*rest}}\"\nto = \"o:/{{rest}}\"\n\
         cache = {{ ttl = \"1h\" }}",
        behind.gateway.address().port()
    );
    let system = system(&front);
    let path = behind.folder.path().to_owned();
    let front = gatewright_serve::Gateway::start(system, path, options()).await.unwrap();

    let client = client(&authority.root(), None);
    let url = format!("https://localhost:{}/a", front.address().port());
    let (version, text) = get(&client, url.clone()).await.unwrap();
    assert_eq!(version, Version::HTTP_2, "the client offers it");
    assert!(text.starts_with("GET /a "), "{text}");
    assert_eq!(get(&client, url).await.unwrap().1, text, "from the cache");
    assert_eq!(origin.requests(), 1);

    let admin = format!("https://127.0.0.1:{}/healthz", behind.gateway.admin_address().port());
    get(&client, admin).await.unwrap();
    let strangers = self::client(&Authority::new().root(), None);
    let other = format!("https://localhost:{}/b", front.address().port());
    assert!(get(&strangers, other).await.unwrap_err().contains("InvalidCertificate"));
    let plain = raw(front.address(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1 2"), "plain HTTP is not answered there: {plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_certificate_is_not_trusted_is_not_asked() {
    let authority = Authority::new();
    let own = folder();
    authority.issue(own.path(), "own");
    std::fs::write(own.path().join("other.pem"), Authority::new().root()).unwrap();
    let origin = Origin::start().await;
    let behind =
        format!("[gateway]\ntls = {TLS}\n[function.o]\nhttp = \"http://{}\"", origin.address);
    let behind = serve_with(&behind, own, options()).await;
    let port = behind.gateway.address().port();
    let text = format!(
        "[function.o]\nhttp = \"https://localhost:{port}/function/o\"\ntls = {{ ca = \"other.pem\" }}"
    );
    let path = behind.folder.path().to_owned();
    let front = gatewright_serve::Gateway::start(system(&text), path, options()).await.unwrap();
    let answer =
        raw(front.address(), b"GET /function/o HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_show_a_certificate_and_has_none_is_not_let_in() {
    let authority = Authority::new();
    let folder = folder();
    authority.issue(folder.path(), "own");
    authority.issue(folder.path(), "known");
    Authority::new().issue(folder.path(), "stranger");
    std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
    let text = "[gateway]\ntls = { certificate = \"own.pem\", key = \"own.key\", client_ca = \"root.pem\" }\n\
                [function.same]\npython = \"models:Same\"";
    let served = serve_with(text, folder, options()).await;
    let url = format!("https://localhost:{}/function/same", served.gateway.address().port());
    let path = served.folder.path();
    let of = |name| client(&authority.root(), Some((path, name)));
    assert!(get(&client(&authority.root(), None), url.clone()).await.is_err());
    assert!(get(&of("stranger"), url.clone()).await.is_err());
    get(&of("known"), url).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_at_the_start() {
    let folder = folder();
    let text = format!("[gateway]\ntls = {TLS}");
    let said = try_start(&folder, &text).await.unwrap_err();
    assert!(said.to_string().starts_with("gateway.listen: "), "{said}");
    assert!(said.to_string().contains("own.pem"), "{said}");
    Authority::new().issue(folder.path(), "own");
    std::fs::write(folder.path().join("own.key"), "no key").unwrap();
    let said = try_start(&folder, &text).await.unwrap_err();
    assert!(said.to_string().contains("own.key: it holds no such item in PEM"), "{said}");
    Authority::new().issue(folder.path(), "other");
    std::fs::rename(folder.path().join("other.key"), folder.path().join("own.key")).unwrap();
    let said = try_start(&folder, &text).await.unwrap_err();
    assert!(said.to_string().contains("own.pem"), "a key of another certificate: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_read_anew_and_connections_stay() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = folder();
    old.issue(folder.path(), "own");
    let text = format!("[gateway]\ntls = {TLS}\n[function.same]\npython = \"models:Same\"");
    let served = serve_with(&text, folder, options()).await;
    let url = format!("https://localhost:{}/function/same", served.gateway.address().port());
    let connected = client(&old.root(), None);
    get(&connected, url.clone()).await.unwrap();

    std::fs::write(served.file("own.key"), "no key").unwrap();
    served.gateway.reload();
    get(&client(&old.root(), None), url.clone())
        .await
        .expect("what cannot be used changes nothing");

    new.issue(served.folder.path(), "own");
    served.gateway.reload();
    get(&client(&new.root(), None), url.clone()).await.unwrap();
    assert!(get(&client(&old.root(), None), url.clone()).await.is_err());
    get(&connected, url).await.expect("the connection that was there goes on");
}
