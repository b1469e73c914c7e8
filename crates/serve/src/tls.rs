//! TLS of listeners and towards upstreams: rustls with ring, versions 1.2 and 1.3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatewright_control::config::{ClientTls, ServerTls};
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Why TLS cannot be spoken as the system file describes it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or a key cannot be read.
    #[error("{path}: {}", unreadable(.reason))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: pem::Error,
    },
    /// A file has no certificate that can be trusted.
    #[error("{path}: it holds no certificate of a root")]
    NoRoots {
        /// The file.
        path: PathBuf,
    },
    /// The system has no roots.
    #[error("this system's trusted certificates cannot be found")]
    NoSystemRoots,
    /// Certificate and key cannot be used.
    #[error("{certificate}: {reason}")]
    Certificate {
        /// The file with the certificate.
        certificate: PathBuf,
        /// What is wrong.
        reason: rustls::Error,
    },
}

fn unreadable(reason: &pem::Error) -> String {
    match reason {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds no such item in PEM".to_owned(),
        other => format!("it is not PEM: {other}"),
    }
}

/// The certificate of a listener, which can be read anew: connections that are there go on with what they have.
pub(crate) struct Identity {
    /// The table in the system file.
    at: &'static str,
    settings: ServerTls,
    base: PathBuf,
    acceptor: RwLock<TlsAcceptor>,
}

/// What HTTP listeners offer, the best first.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

impl Identity {
    pub(crate) fn read(
        at: &'static str,
        settings: &ServerTls,
        base: &Path,
    ) -> Result<Arc<Self>, TlsError> {
        let acceptor = RwLock::new(TlsAcceptor::from(server(settings, base, &ALPN)?));
        Ok(Arc::new(Self { at, settings: settings.clone(), base: base.to_owned(), acceptor }))
    }

    /// What the next connection is accepted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().clone()
    }

    /// Reads its files anew; if they cannot be used, what was there stays.
    pub(crate) fn reload(&self) {
        match server(&self.settings, &self.base, &ALPN) {
            Ok(config) => {
                *self.acceptor.write() = TlsAcceptor::from(config);
                tracing::info!(listener = self.at, "the certificate was read anew");
            }
            Err(error) => {
                tracing::error!(listener = self.at, %error, "the certificate is not read anew");
            }
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("at", &self.at).finish_non_exhaustive()
    }
}

/// What a listener speaks. `alpn` are the protocols that it offers, the best first; files are looked for from
/// `base`.
pub(crate) fn server(
    tls: &ServerTls,
    base: &Path,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity(&base.join(&tls.certificate), &base.join(&tls.key))?;
    let wrong = |reason| TlsError::Certificate { certificate: base.join(&tls.certificate), reason };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let builder = match &tls.client_ca {
        Some(roots) => builder.with_client_cert_verifier(clients_of(&base.join(roots))?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// What is spoken towards a server: its certificate is always verified, against the system's roots unless others
/// are named.
pub(crate) fn client(tls: Option<&ClientTls>, base: &Path) -> Result<ClientConfig, TlsError> {
    let roots = match tls.and_then(|tls| tls.ca.as_ref()) {
        Some(path) => roots(&base.join(path))?,
        None => system_roots()?,
    };
    let certificate = tls.and_then(|tls| tls.certificate.as_ref()).map(|path| base.join(path));
    let key = tls.and_then(|tls| tls.key.as_ref()).map(|path| base.join(path));
    let wrong = |reason| TlsError::Certificate {
        certificate: certificate.clone().unwrap_or_default(),
        reason,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots);
    match (&certificate, key) {
        (Some(certificate), Some(key)) => {
            let (chain, key) = identity(certificate, &key)?;
            builder.with_client_auth_cert(chain, key).map_err(wrong)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A certificate with those between it and its root, and its key.
fn identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|reason| TlsError::File { path: key.to_owned(), reason })?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason| TlsError::File { path: path.to_owned(), reason };
    let items = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let chain: Vec<_> = items.collect::<Result<_, _>>().map_err(wrong)?;
    if chain.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() { Err(TlsError::NoRoots { path: path.to_owned() }) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn clients_of(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(path)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    verifier.map_err(|_| TlsError::NoRoots { path: path.to_owned() })
}
