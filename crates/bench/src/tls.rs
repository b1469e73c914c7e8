//! TLS on the engine's own sockets: rustls keeps the state, the engine reads and writes when the socket is ready.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};

use crate::BenchError;

/// The name of HTTP/2 in ALPN.
const HTTP2: &[u8] = b"h2";

/// How a server proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// File of certificates (PEM) that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// No proof is asked for: whoever is in between can read along.
    pub insecure: bool,
}

/// What connections to one server have in common.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    state: Box<ClientConnection>,
}

impl Tls {
    /// For the server `host`, which is asked to speak HTTP/2 or HTTP/1.1.
    pub(crate) fn new(host: &str, trust: &Trust, http2: bool) -> Result<Self, BenchError> {
        let fail = |what: String| BenchError::Tls { host: host.to_owned(), what };
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| fail(error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(error.to_string()))?;
        let mut config = if trust.insecure {
            let anybody = Arc::new(Anybody { provider });
            builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots(trust.ca.as_deref(), &fail)?).with_no_client_auth()
        };
        config.alpn_protocols = vec![if http2 { HTTP2.to_vec() } else { b"http/1.1".to_vec() }];
        Ok(Self { config: Arc::new(config), name })
    }

    pub(crate) fn session(&self) -> Result<Session, rustls::Error> {
        let mut state = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        // What is written is bounded by the request, which is in memory already.
        state.set_buffer_limit(None);
        Ok(Session { state: Box::new(state) })
    }

    /// A connection over a socket that blocks.
    pub(crate) fn stream<S: io::Read + io::Write>(
        &self,
        socket: S,
    ) -> Result<StreamOwned<ClientConnection, S>, String> {
        let session = self.session().map_err(|error| error.to_string())?;
        Ok(StreamOwned::new(*session.state, socket))
    }

    /// Shakes hands once over a socket that blocks, to learn what is wrong in words.
    pub(crate) fn check(&self, mut socket: impl io::Read + io::Write) -> Result<(), String> {
        let mut session = self.session().map_err(|error| error.to_string())?;
        while session.state.is_handshaking() {
            session.state.complete_io(&mut socket).map_err(|error| error.to_string())?;
        }
        if self.config.alpn_protocols[0] == HTTP2 && session.state.alpn_protocol() != Some(HTTP2) {
            return Err("the server does not offer HTTP/2".to_owned());
        }
        Ok(())
    }
}

fn roots(
    ca: Option<&Path>,
    fail: &dyn Fn(String) -> BenchError,
) -> Result<RootCertStore, BenchError> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        let what =
            "the system has no certificates that are trusted; give a file of them, or insecure";
        return if store.is_empty() { Err(fail(what.to_owned())) } else { Ok(store) };
    };
    let unreadable = |error: &dyn std::fmt::Display| fail(format!("{}: {error}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        store.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if store.is_empty() { Err(unreadable(&"it holds no certificate")) } else { Ok(store) }
}

/// A socket that is not waited for.
struct Socket<'a>(&'a OwnedFd);

impl io::Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0.as_fd(), &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self.0.as_fd(), bytes, SendFlags::NOSIGNAL) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Goes on with shaking hands as far as the socket allows; whether it is done.
    pub(crate) fn shake(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        loop {
            self.flush(socket)?;
            if !self.state.is_handshaking() {
                return Ok(true);
            }
            if !self.take(socket)? {
                return Ok(false);
            }
        }
    }

    /// Takes what is to be sent; all of it, since it is bounded.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.state.writer().write_all(bytes).map_err(|error| errno(&error))
    }

    /// Gives the socket as much as it takes; whether that is all.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        while self.state.wants_write() {
            match self.state.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(true)
    }

    /// Reads until `buffer` is full or nothing is there: none if nothing was, 0 at the end.
    pub(crate) fn read(
        &mut self,
        socket: &OwnedFd,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, Errno> {
        let mut count = 0;
        loop {
            match self.state.reader().read(&mut buffer[count..]) {
                Ok(0) if count == buffer.len() => return Ok(Some(count)),
                Ok(0) => return Ok(Some(count)),
                Ok(more) => {
                    count += more;
                    if count == buffer.len() {
                        return Ok(Some(count));
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The socket was closed without a last word.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Some(count));
                }
                Err(error) => return Err(errno(&error)),
            }
            if !self.take(socket)? {
                return Ok((count > 0).then_some(count));
            }
        }
    }

    /// Takes in what the socket has; whether it had anything, its end included.
    fn take(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        match self.state.read_tls(&mut Socket(socket)) {
            Ok(count) => {
                if let Err(error) = self.state.process_new_packets() {
                    tracing::warn!(%error, "TLS");
                    return Err(Errno::PROTO);
                }
                self.flush(socket)?;
                if count == 0 && self.state.is_handshaking() {
                    return Err(Errno::CONNRESET);
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(errno(&error)),
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::PROTO, Errno::from_raw_os_error)
}

/// Whoever answers is believed.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
