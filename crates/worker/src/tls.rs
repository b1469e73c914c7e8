use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom a worker trusts to be its hub. The hub's certificate must be for the host that the worker connects to.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or a key cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: pem::Error,
    },
    /// No certificate of a root was found.
    #[error("no trusted certificate was found")]
    NoRoots,
    /// The certificates cannot be used.
    #[error(transparent)]
    Unusable(#[from] rustls::Error),
}

impl Tls {
    /// Trusts this system's roots.
    ///
    /// # Errors
    /// If there are none.
    pub fn system() -> Result<Self, TlsError> {
        Self::new(rustls_native_certs::load_native_certs().certs, None)
    }

    /// Trusts the roots in a file, in PEM.
    ///
    /// # Errors
    /// If the file cannot be read or has none.
    pub fn ca(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::new(certificates(path.as_ref())?, None)
    }

    /// Trusts the roots in a file, and shows a certificate to a hub that asks for one (`client_ca`). All files are
    /// PEM.
    ///
    /// # Errors
    /// If a file cannot be read, or the certificates cannot be used.
    pub fn with_certificate(
        ca: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let key = key.as_ref();
        let wrong = |reason| TlsError::File { path: key.to_owned(), reason };
        let identity = (
            certificates(certificate.as_ref())?,
            PrivateKeyDer::from_pem_file(key).map_err(wrong)?,
        );
        Self::new(certificates(ca.as_ref())?, Some(identity))
    }

    fn new(
        trusted: Vec<CertificateDer<'static>>,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with `host`, a name or an address, the latter in brackets if it is one of IPv6.
    pub(crate) async fn connect(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, socket).await
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason| TlsError::File { path: path.to_owned(), reason };
    let items = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    items.collect::<Result<_, _>>().map_err(wrong)
}
