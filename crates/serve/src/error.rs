use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::tls::TlsError;

/// Why a gateway did not start, or ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address of the system file is none.
    #[error("{key} = \"{address}\" is not an address: {source}")]
    Address {
        /// The key in the system file.
        key: &'static str,
        /// What it says.
        address: String,
        /// What is wrong.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind {
        /// The key in the system file.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The admin API would be open to the network.
    #[error("gateway.admin = \"{address}\" is not a loopback address and there is no token")]
    TokenMissing {
        /// The address.
        address: SocketAddr,
    },
    /// Anybody on the network could be a worker.
    #[error(
        "workers are listened for on \"{address}\", which is not a loopback address, and there is no worker token"
    )]
    WorkerTokenMissing {
        /// The address.
        address: SocketAddr,
    },
    /// A host that may connect is none.
    #[error("hub.allow: `{entry}` is neither an address nor a network")]
    Allow {
        /// The entry.
        entry: String,
    },
    /// TLS cannot be spoken as it is described.
    #[error("{at}: {source}")]
    Tls {
        /// The table in the system file.
        at: String,
        /// What is wrong.
        source: TlsError,
    },
    /// A route cannot be served.
    #[error("route `{path}`: {what}")]
    Route {
        /// Its path.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A function cannot be served as it is described.
    #[error("function `{function}`: {what}")]
    Function {
        /// Its name.
        function: String,
        /// What is wrong.
        what: String,
    },
    /// A function's first replicas did not start.
    #[error("function `{function}` did not start: {failure}")]
    Start {
        /// Its name.
        function: String,
        /// What it runs, such as "models:Square".
        runs: String,
        /// What happened.
        failure: StartFailure,
    },
    /// The file for the records cannot be written.
    #[error("cannot write records to {path}: {source}")]
    Records {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The secret of an API key cannot be had.
    #[error("key `{key}`: {what}")]
    Key {
        /// Its name.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The cache's folder cannot be used.
    #[error("cache.disk {path}: {source}")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The cache's shared tier cannot be used, whether it is there or not.
    #[error("cache.shared at {server}: {what}")]
    Shared {
        /// Host and port.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// A folder or program cannot be found from here.
    #[error("{path}: {source}")]
    Folder {
        /// The path as it was given.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Another process of this machine has the hub, and does not share it.
    #[error("the hub at {address} does not take this process: {reason}")]
    Share {
        /// Where it is.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The hub's socket cannot be made.
    #[error("cannot make the socket for the workers: {0}")]
    Hub(io::Error),
    /// The gateway was told to stop before it had started.
    #[error("stopped before every function had started")]
    Interrupted,
}

/// Why a replica did not start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartFailure {
    /// The operating system did not start the process.
    #[error("cannot run {program}: {reason}")]
    Spawn {
        /// The program.
        program: String,
        /// What the operating system says.
        reason: String,
    },
    /// The operating system did not start a program of a `process` function.
    #[error("cannot run {program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// What the operating system says.
        reason: String,
    },
    /// There is no port for a program to listen on.
    #[error("no port can be had for it: {0}")]
    Port(String),
    /// The class could not be constructed.
    #[error("{kind}: {message}")]
    Init {
        /// Type of the exception.
        kind: String,
        /// What it says.
        message: String,
    },
    /// The process ended before it was ready.
    #[error("its process ended ({status}) before it was ready{}", last_words(.words))]
    Exited {
        /// Its exit status in words.
        status: String,
        /// The last line it wrote to stderr, if any.
        words: String,
    },
    /// It took longer than the function's `start_timeout`.
    #[error("it was not ready after {seconds} s")]
    TimedOut {
        /// The limit in seconds.
        seconds: f64,
    },
    /// It did not speak the protocol.
    #[error("its worker does not speak the protocol: {0}")]
    Protocol(String),
}

fn last_words(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl ServeError {
    /// What to do about it, in a line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Address { .. } => Some("write it as \"127.0.0.1:8080\"".to_owned()),
            Self::Bind { key, source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                format!("another program listens there; stop it or set {key} to another address"),
            ),
            Self::TokenMissing { .. } => {
                Some("set GATEWRIGHT_TOKEN, or let gateway.admin be on 127.0.0.1".to_owned())
            }
            Self::WorkerTokenMissing { .. } => {
                Some("set GATEWRIGHT_WORKER_TOKEN, or let hub.listen be on 127.0.0.1".to_owned())
            }
            Self::Tls { source: TlsError::File { .. }, .. } => {
                Some("paths of PEM files are relative to the system file".to_owned())
            }
            Self::Tls { source: TlsError::NoSystemRoots, .. } => Some(
                "install the package ca-certificates, or name a file of roots as `tls.ca`"
                    .to_owned(),
            ),
            Self::Allow { .. } => Some("write it as \"192.168.1.7\" or \"10.0.0.0/8\"".to_owned()),
            Self::Hub(_) => Some(
                "it is made in TMPDIR, which must be a directory to write to, with a path of at most 80 bytes"
                    .to_owned(),
            ),
            Self::Start { runs, failure, .. } => failure.hint(runs),
            _ => None,
        }
    }
}

impl StartFailure {
    fn hint(&self, runs: &str) -> Option<String> {
        let (module, class) = runs.split_once(':').unwrap_or((runs, ""));
        match self {
            Self::Spawn { .. } => Some("set GATEWRIGHT_PYTHON to a Python that exists".to_owned()),
            Self::Program { .. } => Some(
                "a path is looked for from the folder of the system file, a name in PATH; is it executable?"
                    .to_owned(),
            ),
            Self::Init { kind, .. } if kind == "ModuleNotFoundError" => Some(format!(
                "python = \"{runs}\" looks for {module}.py beside the system file, and imports what it \
                 imports from the Python that runs it"
            )),
            Self::Init { kind, .. } if kind == "AttributeError" => {
                Some(format!("python = \"{runs}\" asks {module}.py for a class named {class}"))
            }
            Self::Init { .. } => Some(format!("the exception comes from constructing {runs}")),
            Self::Exited { words, .. } if words.contains("gatewright") => {
                Some("install the package `gatewright` for the Python that runs workers".to_owned())
            }
            Self::TimedOut { .. } => Some("raise start_timeout if it needs more time".to_owned()),
            Self::Exited { .. } | Self::Protocol(_) | Self::Port(_) => None,
        }
    }
}
