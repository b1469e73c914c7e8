use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};
use crate::config::HumanDuration;

/// Settings of scaling by queue length, as KEDA scales the consumers of a message queue; the defaults are KEDA's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueLength {
    /// Requests, waiting or in service, that one replica is meant to have; above 0.
    pub target: f64,
    /// How often it decides; at least 1 s.
    pub polling_interval: HumanDuration,
    /// How long without requests before the last replica goes, where `replicas.min` is 0; and how long a higher
    /// number, once wanted, holds off a lower one.
    pub cooldown: HumanDuration,
    /// How far the length may be from the target, as a share of it, before anything is done; in 0..1.
    pub tolerance: f64,
}

impl Default for QueueLength {
    fn default() -> Self {
        Self {
            target: 5.0,
            polling_interval: HumanDuration::from_secs(30),
            cooldown: HumanDuration::from_secs(300),
            tolerance: 0.1,
        }
    }
}

impl QueueLength {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.target.is_nan() || self.target <= 0.0 {
            Err("target: must be above 0".to_owned())
        } else if !(0.0..1.0).contains(&self.tolerance) {
            Err("tolerance: must be at least 0 and below 1".to_owned())
        } else if self.polling_interval.get() < Duration::from_secs(1) {
            Err("polling_interval: must be at least 1s".to_owned())
        } else {
            Ok(())
        }
    }
}

/// KEDA's scaled object with an average-value trigger: `desired = ceil(length / target)` (Kubernetes'
/// `GetExternalPerPodMetricReplicas`), from zero on activity, to zero after the cool-down
/// (`pkg/scaling/executor/scale_scaledobjects.go`).
#[derive(Debug)]
pub(super) struct QueueScaler {
    settings: QueueLength,
    recommendations: VecDeque<(Time, u32)>,
    active: Time,
}

impl QueueScaler {
    pub(super) const fn new(settings: QueueLength) -> Self {
        Self { settings, recommendations: VecDeque::new(), active: Time::ZERO }
    }
}

impl Autoscaler for QueueScaler {
    fn interval(&self) -> Duration {
        self.settings.polling_interval.get()
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        let current = sample.ready + sample.starting;
        let length = sample.concurrency;
        if length > 0.0 || sample.arrivals > 0 {
            self.active = now;
        }
        if current == 0 {
            return None;
        }
        let cooldown = self.settings.cooldown.get();
        let ratio = length / (self.settings.target * f64::from(current));
        let calm = (1.0 - ratio).abs() <= self.settings.tolerance;
        let wanted =
            if calm { current } else { (length / self.settings.target).ceil().max(1.0) as u32 };
        self.recommendations.retain(|(at, _)| *at + cooldown > now);
        let held = self.recommendations.iter().map(|(_, n)| *n).fold(wanted, u32::max);
        self.recommendations.push_back((now, wanted));
        let idle = length == 0.0 && self.active + cooldown <= now;
        Some(if idle { 0 } else { held.min(current.max(wanted)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    struct Rig(QueueScaler, Time);

    impl Rig {
        fn decide(&mut self, length: f64, ready: u32) -> u32 {
            self.1 += Duration::from_secs(30);
            let sample = Sample {
                concurrency: length,
                arrivals: 0,
                queued: 0,
                ready,
                starting: 0,
                replica_concurrency: Some(1),
                scale: Scale { min: 0, max: 100 },
            };
            self.0.decide(self.1, &sample).unwrap()
        }
    }

    /// KEDA's documentation of `queueLength`: with a value of 10 and 30 messages there are 3 replicas.
    #[test]
    fn follows_the_length() {
        let settings = QueueLength { target: 10.0, ..QueueLength::default() };
        assert_eq!(Rig(QueueScaler::new(settings), Time::ZERO).decide(30.0, 1), 3);
    }

    #[test]
    fn goes_down_after_the_cooldown_and_to_zero() {
        let mut rig = Rig(QueueScaler::new(QueueLength::default()), Time::ZERO);
        assert_eq!(rig.decide(50.0, 10), 10);
        for _ in 0..9 {
            assert_eq!(rig.decide(5.0, 10), 10);
        }
        assert_eq!(rig.decide(5.0, 10), 1);
        for _ in 0..9 {
            assert_eq!(rig.decide(0.0, 1), 1);
        }
        assert_eq!(rig.decide(0.0, 1), 0);
    }
}
