use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};
use crate::config::HumanDuration;

/// Settings of the idler; the defaults are those of OpenFaaS' `faas-idler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Idler {
    /// How long without requests before all replicas go; `replicas.min` must be 0.
    pub inactivity: HumanDuration,
    /// How often it looks; at least 1 s.
    pub reconcile: HumanDuration,
}

impl Default for Idler {
    fn default() -> Self {
        Self { inactivity: HumanDuration::from_secs(300), reconcile: HumanDuration::from_secs(30) }
    }
}

impl Idler {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.reconcile.get() < Duration::from_secs(1) {
            Err("reconcile: must be at least 1s".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Stops a function that nobody asks for, and leaves it alone otherwise.
#[derive(Debug)]
pub(super) struct IdleScaler {
    settings: Idler,
    busy: Time,
}

impl IdleScaler {
    pub(super) const fn new(settings: Idler) -> Self {
        Self { settings, busy: Time::ZERO }
    }
}

impl Autoscaler for IdleScaler {
    fn interval(&self) -> Duration {
        self.settings.reconcile.get()
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        if sample.arrivals > 0 || sample.concurrency > 0.0 {
            self.busy = now;
        }
        (now - self.busy >= self.settings.inactivity.get()).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    #[test]
    fn stops_what_nobody_asks_for() {
        let mut scaler = IdleScaler::new(Idler::default());
        let mut decide = |seconds: u64, arrivals| {
            let sample = Sample {
                concurrency: 0.0,
                arrivals,
                queued: 0,
                ready: 3,
                starting: 0,
                replica_concurrency: Some(1),
                scale: Scale { min: 0, max: 5 },
            };
            scaler.decide(Time::ZERO + Duration::from_secs(seconds), &sample)
        };
        assert_eq!(decide(30, 1), None);
        assert_eq!(decide(329, 0), None);
        assert_eq!(decide(330, 0), Some(0));
    }
}
