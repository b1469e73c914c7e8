//! Connections that switch to another protocol: who may, to what, and the tunnel that they become.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_control::config;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use sha1_smol::Sha1;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::headers;
use crate::metrics::FunctionMetrics;

/// Bytes that a tunnel holds in each direction.
const BUFFER: usize = 16 * 1024;
const WEBSOCKET: &str = "websocket";
/// What a server puts behind a WebSocket's key before it hashes it (RFC 6455 section 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the connections of a route may switch to, and the tunnels that they have become.
#[derive(Debug)]
pub(crate) struct Upgrades {
    /// In lower case.
    protocols: Vec<String>,
    idle_timeout: Duration,
    slots: Arc<Semaphore>,
}

/// A switch that a client asks for and its route allows.
#[derive(Debug)]
pub(crate) struct Switch {
    protocol: HeaderValue,
    /// Asked for by an extended CONNECT (RFC 8441), and the key that stands for it in HTTP/1.1.
    key: Option<HeaderValue>,
    idle_timeout: Duration,
    /// Its place among the tunnels of the route.
    slot: OwnedSemaphorePermit,
}

impl Upgrades {
    pub(crate) fn new(described: &config::Upgrade) -> Self {
        let rules = described.rules();
        Self {
            protocols: rules.protocols.iter().map(|name| name.to_ascii_lowercase()).collect(),
            idle_timeout: rules.idle_timeout.get(),
            slots: Arc::new(Semaphore::new(rules.max as usize)),
        }
    }

    /// The switch that a request asks for, if it asks for one that is allowed. Where several are named, the first that
    /// is.
    pub(crate) fn asked(&self, parts: &Parts) -> Option<Result<Switch, Refusal>> {
        let allowed = |name: &str| {
            let name = name.to_ascii_lowercase();
            self.protocols.iter().find(|allowed| **allowed == name)
        };
        let extended = parts.extensions.get::<Protocol>();
        let protocol = match extended {
            Some(protocol) => allowed(protocol.as_str()).filter(|name| *name == WEBSOCKET)?,
            None if asks(&parts.headers, parts.version) => {
                headers::tokens(&parts.headers, &UPGRADE).find_map(allowed)?
            }
            None => return None,
        };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            let error = "the route has as many tunnels as it may";
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
            return Some(Err(refusal.hint("raise upgrade.max").come_back()));
        };
        Some(Ok(Switch {
            protocol: HeaderValue::from_str(protocol).ok()?,
            key: extended.map(|_| key()),
            idle_timeout: self.idle_timeout,
            slot,
        }))
    }
}

/// Whether a request wants its connection to switch to anything.
fn asks(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers::tokens(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Sixteen random bytes, as a WebSocket's key.
fn key() -> HeaderValue {
    let mut bytes = [0; 16];
    if crate::tls::provider().secure_random.fill(&mut bytes).is_err() {
        // It is no secret; it only has to differ from that of a cache on the way.
        tracing::debug!("no random bytes for a key");
    }
    HeaderValue::from_str(&STANDARD.encode(bytes)).expect("base64 is a header value")
}

impl Switch {
    /// Makes the head of a request to the upstream ask for it.
    pub(crate) fn ask(&self, method: &mut Method, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        if let Some(key) = &self.key {
            *method = Method::GET;
            headers.insert(SEC_WEBSOCKET_KEY, key.clone());
            headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        }
    }

    /// Whether the upstream has switched to what it was asked for.
    pub(crate) fn is_met(&self, headers: &HeaderMap) -> bool {
        let mut names = headers::tokens(headers, &UPGRADE);
        let named = names
            .next()
            .is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes()));
        let accepted = self.key.as_ref().is_none_or(|key| {
            let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
            accept == Some(accept_of(key).as_bytes())
        });
        named && names.next().is_none() && accepted
    }

    /// Makes the answer for the client of the upstream's: 101, or 200 to a CONNECT.
    pub(crate) fn answer(&self, headers: &mut HeaderMap) -> StatusCode {
        headers::strip_hop_by_hop(headers);
        if self.key.is_some() {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            return StatusCode::OK;
        }
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        StatusCode::SWITCHING_PROTOCOLS
    }

    /// Passes bytes both ways until both sides have ended, one breaks, or both are silent for too long.
    pub(crate) async fn carry(
        self,
        client: hyper::upgrade::Upgraded,
        upstream: hyper::upgrade::Upgraded,
        metrics: &FunctionMetrics,
    ) {
        let _slot = self.slot;
        let (client, client_in) = tokio::io::split(TokioIo::new(client));
        let (upstream, upstream_in) = tokio::io::split(TokioIo::new(upstream));
        let pulse = Pulse::new();
        let [there, back] = &metrics.tunnel_bytes;
        let both = async {
            tokio::try_join!(
                pour(client, upstream_in, &pulse, there),
                pour(upstream, client_in, &pulse, back),
            )
        };
        tokio::select! {
            poured = both => if let Err(error) = poured {
                tracing::debug!(%error, "a tunnel broke");
            },
            () = pulse.stopped(self.idle_timeout) => tracing::debug!("a tunnel was silent for too long"),
        }
    }
}

/// What a server answers to a WebSocket's key (RFC 6455 section 4.2.2).
fn accept_of(key: &HeaderValue) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(WEBSOCKET_GUID.as_bytes());
    STANDARD.encode(hash.digest().bytes())
}

/// When bytes last went through a tunnel.
struct Pulse {
    start: Instant,
    /// Nanoseconds since the start.
    last: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self { start: Instant::now(), last: 0.into() }
    }

    fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Returns when there was none for so long.
    async fn stopped(&self, limit: Duration) {
        let due = || self.start + Duration::from_nanos(self.last.load(Ordering::Relaxed)) + limit;
        while due() > Instant::now() {
            tokio::time::sleep_until(due()).await;
        }
    }
}

/// Passes bytes on until their end, which is passed on too.
async fn pour(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    pulse: &Pulse,
    count: &Counter,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        pulse.beat();
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        pulse.beat();
        count.inc_by(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_what_is_allowed_is_switched_to() {
        let upgrades = Upgrades::new(&config::Upgrade::Protocols(vec!["WebSocket".to_owned()]));
        let asked = |version, fields: &[(&'static str, &'static str)]| {
            let switch = upgrades.asked(&request(version, fields))?.unwrap();
            Some(switch.protocol.to_str().unwrap().to_owned())
        };
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "h2c, WEBSOCKET")];
        assert_eq!(asked(Version::HTTP_11, &both).as_deref(), Some("websocket"));
        assert_eq!(asked(Version::HTTP_10, &both), None);
        assert_eq!(asked(Version::HTTP_11, &both[1..]), None, "Connection does not name it");
        let h2c = [("connection", "upgrade"), ("upgrade", "h2c")];
        assert_eq!(asked(Version::HTTP_11, &h2c), None);
    }

    #[test]
    fn a_connect_becomes_a_websocket_or_nothing() {
        let names = ["websocket", "chat"].map(str::to_owned);
        let upgrades = Upgrades::new(&config::Upgrade::Protocols(names.into()));
        let asked = |protocol: &'static str| {
            let mut parts = request(Version::HTTP_2, &[]);
            parts.extensions.insert(Protocol::from_static(protocol));
            upgrades.asked(&parts).map(|switch| switch.unwrap().key.is_some())
        };
        assert_eq!(asked("websocket"), Some(true), "with a key of its own");
        assert_eq!(asked("chat"), None, "there is nothing in HTTP/1.1 that it would be");
    }

    #[test]
    fn an_upstream_has_switched_if_it_names_that_alone_and_has_read_the_key() {
        let switch = |key: Option<&'static str>| Switch {
            protocol: HeaderValue::from_static("websocket"),
            key: key.map(HeaderValue::from_static),
            idle_timeout: Duration::ZERO,
            slot: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        };
        let met = |switch: &Switch, upgrade: &'static str, accept: &'static str| {
            let fields = [(UPGRADE, upgrade), (SEC_WEBSOCKET_ACCEPT, accept)];
            let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
            switch.is_met(&fields.into_iter().collect())
        };
        let plain = switch(None);
        assert!(met(&plain, "WebSocket", "whatever the client asked for"));
        assert!(!met(&plain, "websocket, h2c", "") && !met(&plain, "h2c", ""));
        let made = switch(Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(met(&made, "websocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!met(&made, "websocket", "s3pPLMBiTxaQ9kYGzzhZRbK+xO0="));
        assert!(!met(&made, "h2c", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!made.is_met(&HeaderMap::new()));
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 section 1.3");
    }
}
