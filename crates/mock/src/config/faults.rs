use gatewright_sim::Law;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_law, check_range};
use crate::MockError;

/// What goes wrong. At most one of error, reset and stall befalls a request; which is drawn from the seed and
/// the request's number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of requests that are answered with `error_status` at once, 0 to 1.
    pub error_rate: f64,
    /// Their status, 400 to 599.
    pub error_status: u16,
    /// Share of requests whose connection is reset (TCP RST), 0 to 1: a streamed answer at one of its tokens,
    /// another one when it is due. A reset ends whatever else the connection carries.
    pub reset_rate: f64,
    /// Share of requests that stall, 0 to 1: a streamed answer before one of its tokens, another one at its end.
    pub stall_rate: f64,
    /// How long a stall lasts.
    pub stall: Law,
    /// The number of requests that are served before every later one is answered with `error_status`.
    pub fail_after: Option<u64>,
    /// Everything takes longer while the server is new.
    pub slow_start: Option<SlowStart>,
}

/// Everything takes `factor` times as long when the server starts, and less and less, until after `seconds` it
/// takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// How long the server is slow, up to a day.
    pub seconds: f64,
    /// How slow it is at first, 1 to 1000.
    pub factor: f64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_rate: 0.0,
            error_status: 500,
            reset_rate: 0.0,
            stall_rate: 0.0,
            stall: Law::Fixed(1.0),
            fail_after: None,
            slow_start: None,
        }
    }
}

impl Faults {
    pub(super) fn check(&self) -> Result<(), MockError> {
        check_range("faults.error_rate", self.error_rate, 0.0, 1.0)?;
        check_range("faults.error_status", f64::from(self.error_status), 400.0, 599.0)?;
        check_range("faults.reset_rate", self.reset_rate, 0.0, 1.0)?;
        check_range("faults.stall_rate", self.stall_rate, 0.0, 1.0)?;
        let sum = self.error_rate + self.reset_rate + self.stall_rate;
        check_range("the sum of the rates in faults", sum, 0.0, 1.0)?;
        check_law("faults.stall", &self.stall)?;
        let Some(slow) = self.slow_start else { return Ok(()) };
        check_range("faults.slow_start.seconds", slow.seconds, 0.0, 86_400.0)?;
        check_range("faults.slow_start.factor", slow.factor, 1.0, 1000.0)
    }
}
