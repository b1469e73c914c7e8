use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};
use crate::config::HumanDuration;

/// Settings of OpenFaaS' scaling by requests per second; the defaults are those of its labels
/// `com.openfaas.scale.*`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestsPerSecond {
    /// Requests per second that one replica is meant to take; above 0.
    pub target: f64,
    /// Share of the target at which another replica is added; in (0, 1].
    pub proportion: f64,
    /// Over which time the rate is measured; at least 1 s.
    pub window: HumanDuration,
    /// How long without requests before the last replica goes, where `replicas.min` is 0.
    pub zero_duration: HumanDuration,
}

impl Default for RequestsPerSecond {
    fn default() -> Self {
        Self {
            target: 50.0,
            proportion: 0.9,
            window: HumanDuration::from_secs(10),
            zero_duration: HumanDuration::from_secs(15 * 60),
        }
    }
}

impl RequestsPerSecond {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.target.is_nan() || self.target <= 0.0 {
            Err("target: must be above 0".to_owned())
        } else if !(self.proportion > 0.0 && self.proportion <= 1.0) {
            Err("proportion: must be above 0 and at most 1".to_owned())
        } else if !(1..=3_600).contains(&self.window.get().as_secs()) {
            Err("window: must be 1s to 1h".to_owned())
        } else {
            Ok(())
        }
    }
}

/// `desired = ceil(rate / (target * proportion))`, from the documentation of OpenFaaS' autoscaler, once a second.
#[derive(Debug)]
pub(super) struct RateScaler {
    settings: RequestsPerSecond,
    /// Arrivals of the last seconds, newest last.
    arrivals: VecDeque<u64>,
    busy: Time,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl RateScaler {
    pub(super) const fn new(settings: RequestsPerSecond) -> Self {
        Self { settings, arrivals: VecDeque::new(), busy: Time::ZERO }
    }
}

impl Autoscaler for RateScaler {
    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        let window = self.settings.window.get().as_secs() as usize;
        if self.arrivals.len() == window {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(sample.arrivals);
        if sample.arrivals > 0 || sample.concurrency > 0.0 {
            self.busy = now;
        }
        if sample.ready + sample.starting == 0 {
            return None;
        }
        let rate = self.arrivals.iter().sum::<u64>() as f64 / self.arrivals.len() as f64;
        let wanted = (rate / (self.settings.target * self.settings.proportion)).ceil() as u32;
        let idle = now - self.busy >= self.settings.zero_duration.get();
        Some(wanted.max(u32::from(!idle)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn run(scaler: &mut RateScaler, now: &mut Time, seconds: u32, rate: u64) -> Option<u32> {
        let mut last = None;
        for _ in 0..seconds {
            *now += INTERVAL;
            let sample = Sample {
                concurrency: 0.0,
                arrivals: rate,
                queued: 0,
                ready: 1,
                starting: 0,
                replica_concurrency: None,
                scale: Scale { min: 0, max: 20 },
            };
            last = scaler.decide(*now, &sample);
        }
        last
    }

    /// 50 per replica at 90 %: 45/s are one replica's work, 90/s two, 91/s three.
    #[test]
    fn follows_the_rate() {
        let mut scaler = RateScaler::new(RequestsPerSecond::default());
        let mut now = Time::ZERO;
        assert_eq!(run(&mut scaler, &mut now, 10, 45), Some(1));
        assert_eq!(run(&mut scaler, &mut now, 10, 90), Some(2));
        assert_eq!(run(&mut scaler, &mut now, 10, 91), Some(3));
    }

    #[test]
    fn the_last_one_goes_after_a_quarter_of_an_hour() {
        let mut scaler = RateScaler::new(RequestsPerSecond::default());
        let mut now = Time::ZERO;
        run(&mut scaler, &mut now, 10, 5);
        assert_eq!(run(&mut scaler, &mut now, 899, 0), Some(1));
        assert_eq!(run(&mut scaler, &mut now, 1, 0), Some(0));
    }
}
