use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};

/// Settings of scaling per request; the defaults are AWS Lambda's ("Understanding Lambda function scaling").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerRequest {
    /// Replicas that may be started at once, 1 to 1,000,000.
    pub burst: u32,
    /// Replicas that may be started per second once those are used up, above 0.
    pub rate: f64,
}

impl Default for PerRequest {
    fn default() -> Self {
        Self { burst: 1_000, rate: 100.0 }
    }
}

impl PerRequest {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(1..=1_000_000).contains(&self.burst) {
            Err("burst: must be 1 to 1000000".to_owned())
        } else if !(self.rate > 0.0 && self.rate <= 1e9) {
            Err("rate: must be above 0".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Starts a replica for every request that finds none free and none on its way to be. What is started goes by the
/// function's keep-alive policy.
#[derive(Debug)]
pub(super) struct RequestScaler {
    settings: PerRequest,
    /// Replicas that may be started now; refilled all the time up to the burst.
    tokens: f64,
    filled: Time,
}

impl RequestScaler {
    pub(super) fn new(settings: PerRequest) -> Self {
        Self { tokens: f64::from(settings.burst), settings, filled: Time::ZERO }
    }

    fn want(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        let span = now.nanos_since(self.filled) as f64 / 1e9;
        let most = f64::from(self.settings.burst);
        self.tokens = (self.tokens + span * self.settings.rate).min(most);
        self.filled = now;
        let slots = sample.replica_concurrency.unwrap_or(u32::MAX).max(1);
        let missing = sample.queued.div_ceil(slots).saturating_sub(sample.starting);
        let alive = sample.ready + sample.starting;
        let room = sample.scale.max.saturating_sub(alive);
        let started = missing.min(room).min(self.tokens as u32);
        self.tokens -= f64::from(started);
        (started > 0).then_some(alive + started)
    }
}

impl Autoscaler for RequestScaler {
    /// Requests that were held up by the rate are looked after as soon as it allows.
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn only_while_waiting(&self) -> bool {
        true
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        self.want(now, sample)
    }

    fn waiting(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        self.want(now, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn sample(queued: u32, ready: u32, starting: u32) -> Sample {
        Sample {
            concurrency: 0.0,
            arrivals: 0,
            queued,
            ready,
            starting,
            replica_concurrency: Some(1),
            scale: Scale { min: 0, max: 5_000 },
        }
    }

    /// One for each that waits and has none coming; 1,000 at once, then 1,000 in ten seconds.
    #[test]
    fn starts_one_for_each_that_waits_as_fast_as_lambda() {
        let mut scaler = RequestScaler::new(PerRequest::default());
        let now = Time::ZERO;
        assert_eq!(scaler.waiting(now, &sample(1, 3, 0)), Some(4));
        assert_eq!(scaler.waiting(now, &sample(2, 3, 1)), Some(5));
        assert_eq!(scaler.waiting(now, &sample(2, 3, 2)), None);
        assert_eq!(scaler.waiting(now, &sample(3_000, 5, 0)), Some(5 + 998));
        assert_eq!(scaler.waiting(now, &sample(3_000, 5, 998)), None);
        let later = now + Duration::from_secs(10);
        assert_eq!(scaler.waiting(later, &sample(3_000, 5, 998)), Some(5 + 998 + 1_000));
        assert_eq!(scaler.decide(later + Duration::from_secs(1), &sample(9, 5, 9)), None);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = PerRequest { rate: 0.0, ..PerRequest::default() };
        assert_eq!(wrong.check().unwrap_err(), "rate: must be above 0");
    }
}
