use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepAliveRule, Plan, Worth};
use crate::config::HumanDuration;

/// How long an idle replica stays; the default is what is measured of AWS Lambda, Azure Functions' is 20 min.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fixed {
    /// From the moment it has nothing to do.
    pub idle: HumanDuration,
}

#[derive(Debug)]
struct Rule(Fixed);

impl Default for Fixed {
    fn default() -> Self {
        Self { idle: HumanDuration::from_secs(600) }
    }
}

impl Fixed {
    pub(super) fn rule(&self) -> Box<dyn KeepAliveRule> {
        Box::new(Rule(self.clone()))
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as every policy's settings")]
    pub(super) const fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl KeepAliveRule for Rule {
    fn idle(&mut self) -> Plan {
        Plan::keep(Some(self.0.idle.get()))
    }

    fn worth(&self, used: Time, _: &Worth, _: f64) -> f64 {
        used.as_secs_f64()
    }
}
