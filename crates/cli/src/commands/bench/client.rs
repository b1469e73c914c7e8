//! The flags that say how the load generator goes about it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gatewright_bench::Scenario;
use gatewright_control::config::Override;

use super::request::absolute;
use super::values::parse_span;
use crate::failure::Outcome;
use crate::settings::parse_set;

/// The load generator itself.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Generator")]
pub(super) struct ClientFlags {
    /// Ask each target once before the run, and begin only if it answers well; of --check=60s, it may take so long to.
    #[arg(long, value_name = "DURATION", value_parser = parse_span, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "0s", hide_short_help = true)]
    check: Option<Duration>,

    /// Ask a target that is redirected where that leads to: found out once, before the run.
    #[arg(long, hide_short_help = true)]
    follow_redirects: bool,

    /// How long a connection may take to be made [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    connect_timeout: Option<Duration>,

    /// How long a request may take [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = parse_span, hide_short_help = true)]
    timeout: Option<Duration>,

    /// Speak HTTP/2: over TLS as agreed there, else without asking.
    #[arg(long, hide_short_help = true)]
    http2: bool,

    /// Requests at a time on a connection of HTTP/2 [default: 100].
    #[arg(long, value_name = "N", hide_short_help = true)]
    streams_per_connection: Option<u32>,

    /// Unix socket on which the server listens.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    unix_socket: Option<PathBuf>,

    /// How often a request is made once more whose connection broke or which was answered with 429, 502, 503 or 504
    /// [default: 0]. Its times go on from the first attempt.
    #[arg(long, value_name = "N", hide_short_help = true)]
    retries: Option<u32>,

    /// File of certificates (PEM) that are trusted instead of the system's.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    cacert: Option<PathBuf>,

    /// The server need not prove who it is: whoever is in between can read along.
    #[arg(long, hide_short_help = true)]
    insecure: bool,

    /// Threads that make the load [default: as many as the load needs].
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<u32>,

    /// Connections at most in an open loop [default: 512].
    #[arg(long, value_name = "N", hide_short_help = true)]
    max_connections: Option<u32>,

    /// The same seed asks at the same moments [default: 1].
    #[arg(long, value_name = "N", hide_short_help = true)]
    seed: Option<u64>,

    /// Set any key of the scenario, such as client.request_ids=false; may be given again. The variable
    /// GATEWRIGHT_BENCH__CLIENT__REQUEST_IDS does the same.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set, hide_short_help = true)]
    pub(super) set: Vec<Override>,
}

impl ClientFlags {
    /// Puts what the flags say over the scenario.
    pub(super) fn apply(&self, scenario: &mut Scenario) -> Outcome<()> {
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let client = &mut scenario.client;
        client.check = self.check.or(client.check);
        client.follow_redirects |= self.follow_redirects;
        client.connect_timeout = self.connect_timeout.unwrap_or(client.connect_timeout);
        client.timeout = self.timeout.unwrap_or(client.timeout);
        client.threads = self.threads.or(client.threads);
        client.max_connections = self.max_connections.unwrap_or(client.max_connections);
        client.http2 |= self.http2;
        client.streams_per_connection =
            self.streams_per_connection.unwrap_or(client.streams_per_connection);
        client.retries = self.retries.unwrap_or(client.retries);
        client.insecure |= self.insecure;
        if let Some(path) = &self.cacert {
            client.ca = Some(absolute(path)?);
        }
        if let Some(path) = &self.unix_socket {
            client.unix_socket = Some(absolute(path)?);
        }
        Ok(())
    }
}
