use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepAliveRule, Plan, Worth};

/// No settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GreedyDual {}

#[derive(Debug)]
struct Rule;

/// FaaSCache counts memory in MiB.
const MIB: f64 = 1024.0 * 1024.0;

impl GreedyDual {
    #[expect(clippy::unused_self, reason = "as every policy's settings")]
    pub(super) fn rule(&self) -> Box<dyn KeepAliveRule> {
        Box::new(Rule)
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as every policy's settings")]
    pub(super) const fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Greedy-Dual-Size-Frequency as in "FaaSCache: Keeping Serverless Computing Alive with Greedy-Dual Caching" (Fuerst
/// and Sharma, ASPLOS 2021), equation 1: clock + frequency x cost / size, the cost being what a cold start takes.
impl KeepAliveRule for Rule {
    fn idle(&mut self) -> Plan {
        Plan::keep(None)
    }

    fn worth(&self, _: Time, about: &Worth, pressure: f64) -> f64 {
        let size = (about.memory as f64 / MIB).max(1.0);
        pressure + about.requests as f64 * about.start_seconds / size
    }
}
