use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepAliveRule, Plan, Worth};

/// No settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoKeepAlive {}

#[derive(Debug)]
struct Rule;

impl NoKeepAlive {
    #[expect(clippy::unused_self, reason = "as every policy's settings")]
    pub(super) fn rule(&self) -> Box<dyn KeepAliveRule> {
        Box::new(Rule)
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as every policy's settings")]
    pub(super) const fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl KeepAliveRule for Rule {
    fn idle(&mut self) -> Plan {
        Plan::keep(Some(Duration::ZERO))
    }

    fn worth(&self, used: Time, _: &Worth, _: f64) -> f64 {
        used.as_secs_f64()
    }
}
