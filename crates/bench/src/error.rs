use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gatewright_workload::constraint::{ConstraintError, WindowError};
use gatewright_workload::profile::{ProfileError, SloError};
use gatewright_workload::{LimitsError, StrategyError};

use crate::DataError;

/// Why a run was not made, or was given up.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The URL cannot be used.
    #[error("URL \"{url}\": {problem}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The request cannot be sent as it is.
    #[error("request: {0}")]
    Request(String),
    /// The strategy is out of range.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// A limit is zero.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A constraint is out of range.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// Warm-up and cool-down do not fit.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The objective cannot be used.
    #[error(transparent)]
    Slo(#[from] SloError),
    /// The profile cannot be run.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Nothing would ever end the run.
    #[error("the run has no end; limit its duration or its number of requests")]
    Endless,
    /// A setting of the plan is out of range.
    #[error("{name}: {problem}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The name of the host is not known.
    #[error("cannot find host \"{host}\": {source}; check the name in the URL")]
    Resolve {
        /// Host and port.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No secure connection can be made.
    #[error("TLS with {host}: {what}")]
    Tls {
        /// The host.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// The server does not speak HTTP/2.
    #[error("{host} does not speak HTTP/2: {what}")]
    Http2 {
        /// Host and port.
        host: String,
        /// What it did instead.
        what: String,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}; is the server running there?")]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody listens on the Unix socket.
    #[error("cannot connect to {path}: {source}; is the server running there?")]
    ConnectUnix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The first request of a target, made before the run, did not go well.
    #[error("{url} {what}")]
    Check {
        /// What was asked for.
        url: String,
        /// What came of it.
        what: String,
    },
    /// The system did not give what the engine needs.
    #[error("the load engine could not go on: {0}")]
    System(#[from] io::Error),
    /// The records could not be written; the run was given up.
    #[error("cannot write the records, so the run was given up after {after:?}: {source}")]
    Records {
        /// Time since the start of the run.
        after: Duration,
        /// What the sink said.
        source: io::Error,
    },
}
