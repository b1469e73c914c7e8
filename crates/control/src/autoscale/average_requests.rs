use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};
use crate::config::HumanDuration;

/// Settings of scaling by average requests; the defaults are those of faas-sim's `AverageFaasRequestScaler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AverageRequests {
    /// Requests per second and replica that are aimed at, above 0.
    pub target: f64,
    /// How often it decides, and over which time requests are counted; at least 1 s.
    pub window: HumanDuration,
    /// Difference from the target, as a share of it, that is let pass, 0 to 1.
    pub tolerance: f64,
    /// Whether requests of the window count as if they were a second's, as faas-sim counts them: with the defaults it
    /// aims at 4 requests per second and replica.
    pub per_window: bool,
}

impl Default for AverageRequests {
    fn default() -> Self {
        Self {
            target: 200.0,
            window: HumanDuration::from_secs(50),
            tolerance: 0.1,
            per_window: false,
        }
    }
}

impl AverageRequests {
    pub(super) fn check(&self) -> Result<(), String> {
        let rules = [
            (self.target > 0.0 && self.target.is_finite(), "target: must be above 0"),
            (self.window.get() >= Duration::from_secs(1), "window: must be at least 1s"),
            ((0.0..=1.0).contains(&self.tolerance), "tolerance: must be 0 to 1"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(what.to_owned()),
            None => Ok(()),
        }
    }
}

/// desired = ceil(running x (requests per running replica) / target). Replicas that do not run yet count as idle when
/// that is more than there are; if they turn the decision round, or it is within the tolerance, nothing is done.
#[derive(Debug)]
pub(super) struct AverageScaler {
    settings: AverageRequests,
}

impl AverageScaler {
    pub(super) const fn new(settings: AverageRequests) -> Self {
        Self { settings }
    }
}

impl Autoscaler for AverageScaler {
    fn interval(&self) -> Duration {
        self.settings.window.get()
    }

    fn decide(&mut self, _: Time, sample: &Sample) -> Option<u32> {
        if sample.ready == 0 {
            return None;
        }
        let span =
            if self.settings.per_window { 1.0 } else { self.settings.window.get().as_secs_f64() };
        let total = sample.arrivals as f64 / span;
        let ready = f64::from(sample.ready);
        let ratio = total / ready / self.settings.target;
        let mut counted = ready;
        if ratio > 1.0 && sample.starting > 0 {
            counted += f64::from(sample.starting);
            if total / counted / self.settings.target < 1.0 {
                return None;
            }
        }
        let ratio = total / counted / self.settings.target;
        if (ratio - 1.0).abs() <= self.settings.tolerance {
            return None;
        }
        Some((ratio * counted).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn decide(per_window: bool, arrivals: u64, ready: u32, starting: u32) -> Option<u32> {
        let settings = AverageRequests { per_window, ..AverageRequests::default() };
        let sample = Sample {
            concurrency: 0.0,
            arrivals,
            queued: 0,
            ready,
            starting,
            replica_concurrency: None,
            scale: Scale { min: 0, max: 100 },
        };
        AverageScaler::new(settings).decide(Time::ZERO, &sample)
    }

    #[test]
    fn aims_at_so_many_requests_per_second_and_replica() {
        // 1,000 a second for 50 s on two replicas: ceil(1000 / 200).
        assert_eq!(decide(false, 50_000, 2, 0), Some(5));
        assert_eq!(decide(false, 50_000, 8, 0), Some(5));
        // 210 and 190 a second on one are within a tenth.
        assert_eq!(decide(false, 10_500, 1, 0), None);
        assert_eq!(decide(false, 9_500, 1, 0), None);
        // Four that start would carry it: the direction turns.
        assert_eq!(decide(false, 50_000, 2, 4), None);
        assert_eq!(decide(false, 50_000, 2, 1), Some(5));
        assert_eq!(decide(false, 50_000, 0, 1), None);
    }

    /// 50 requests a second for 50 s are 2,500 "a second": 13 replicas, as was seen of faas-sim.
    #[test]
    fn counts_a_window_as_a_second_if_told_to() {
        assert_eq!(decide(true, 2_500, 1, 0), Some(13));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = AverageRequests { target: 0.0, ..AverageRequests::default() };
        assert_eq!(wrong.check().unwrap_err(), "target: must be above 0");
    }
}
