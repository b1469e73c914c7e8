use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_range;
use crate::MockError;

/// What is too much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time, 1 to 1 million; one more is closed at once.
    pub connections: usize,
    /// Bytes of a request's body, up to 1 GiB; a longer one is answered 413.
    pub body_bytes: usize,
    /// Bytes of a request's head, 8 KiB to 1 MiB; a longer one is answered 431.
    pub head_bytes: usize,
    /// Seconds that a client may take for the head of a request, again for its body (408), or leave a connection
    /// idle; 0.1 to a day.
    pub head_seconds: f64,
    /// Requests at a time on one HTTP/2 connection, 1 to 1 million.
    pub streams: u32,
    /// Seconds that requests under way have to end once the server is told to stop, 0 to a day.
    pub grace_seconds: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            body_bytes: 16 << 20,
            head_bytes: 64 << 10,
            head_seconds: 75.0,
            streams: 1000,
            grace_seconds: 10.0,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), MockError> {
        check_range("limits.connections", self.connections as f64, 1.0, 1e6)?;
        check_range("limits.body_bytes", self.body_bytes as f64, 0.0, f64::from(1 << 30))?;
        check_range("limits.head_bytes", self.head_bytes as f64, 8192.0, f64::from(1 << 20))?;
        check_range("limits.head_seconds", self.head_seconds, 0.1, 86_400.0)?;
        check_range("limits.streams", f64::from(self.streams), 1.0, 1e6)?;
        check_range("limits.grace_seconds", self.grace_seconds, 0.0, 86_400.0)
    }
}
