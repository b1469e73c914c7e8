use std::num::NonZeroU32;

use gatewright_sim::Law;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_law, check_range};
use crate::MockError;

/// A server that answers any request with the same body after a random time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Status of the answer, 200 to 599.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Its body; without one, `body_bytes` bytes of filling.
    pub body: Option<String>,
    /// Length of the body in bytes where `body` is not given, up to 64 MiB.
    pub body_bytes: usize,
    /// How long an answer takes once it has a slot.
    pub latency: Law,
    /// Requests served at a time; the others wait in line. No limit if left out.
    pub slots: Option<NonZeroU32>,
    /// Requests that may wait; one more is answered 503 at once.
    pub queue: u32,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            status: 200,
            content_type: "text/plain".to_owned(),
            body: None,
            body_bytes: 64,
            latency: Law::Fixed(0.0),
            slots: None,
            queue: 10_000,
        }
    }
}

impl HttpConfig {
    pub(super) fn check(&self) -> Result<(), MockError> {
        check_range("http.status", f64::from(self.status), 200.0, 599.0)?;
        check_range("http.body_bytes", self.body_bytes as f64, 0.0, f64::from(64 << 20))?;
        if http::HeaderValue::from_str(&self.content_type).is_err() {
            let what = format!("\"{}\" cannot stand in a header", self.content_type);
            return Err(MockError::Config { key: "http.content_type".to_owned(), what });
        }
        check_law("http.latency", &self.latency)
    }
}
