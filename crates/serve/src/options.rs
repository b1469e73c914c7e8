use std::path::PathBuf;
use std::time::Duration;

/// What a run is told besides its system file.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where invocation records go, nowhere unless set: CSV if the name ends in `.csv`, else one JSON object a
    /// line. A name without an ending is a folder: `invocations.jsonl` is written there, and beside it the states of
    /// replicas (`replicas.jsonl`) and how many were wanted (`scaling.jsonl`).
    pub records: Option<PathBuf>,
    /// Secret that the admin API asks for. Needed when its address is not a loopback one.
    pub token: Option<String>,
    /// The file that `token` came from, if it is to be read anew with the rest on SIGHUP.
    pub token_file: Option<PathBuf>,
    /// Secret that workers from elsewhere must present. Needed when `hub.listen` is not a loopback address.
    pub worker_token: Option<String>,
    /// The file that `worker_token` came from, if it is to be read anew with the rest on SIGHUP.
    pub worker_token_file: Option<PathBuf>,
    /// The Python that runs workers; it must have the package `gatewright`.
    pub python: PathBuf,
    /// Names the run's random streams.
    pub seed: u64,
    /// How long a worker that was told to stop may take before it gets SIGTERM, and again before SIGKILL.
    pub grace: Duration,
    /// How long a connection to `hub.listen` may take to say hello, TLS handshake included.
    pub hello_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            records: None,
            token: None,
            token_file: None,
            worker_token: None,
            worker_token_file: None,
            python: PathBuf::from("python3"),
            seed: 1,
            grace: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(10),
        }
    }
}
