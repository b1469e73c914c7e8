use std::io;
use std::net::SocketAddr;

/// Why a mock server did not start, or ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// A key of the configuration is wrong.
    #[error("mock.{key}: {what}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (mock.listen): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// A thread could not be started, or had no timer.
    #[error("cannot start a thread of the mock server: {0}")]
    Thread(io::Error),
    /// A thread ended by itself.
    #[error("a thread of the mock server ended by itself; this is a defect")]
    Died,
}

impl MockError {
    /// What to do about it, in a line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config { key, .. } if key == "listen" => {
                Some("write it as \"127.0.0.1:8000\"".to_owned())
            }
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "another program listens there; stop it or set mock.listen to another address"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
