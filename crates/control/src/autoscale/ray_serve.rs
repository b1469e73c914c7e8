use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample};
use crate::config::HumanDuration;

/// Settings of Ray Serve's autoscaling; the names and defaults are those of its `AutoscalingConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RayServe {
    /// Requests, waiting or in service, that one replica is meant to have; above 0.
    pub target_ongoing_requests: f64,
    /// Over which time ongoing requests are averaged; 1 s to 1 h.
    pub look_back_period: HumanDuration,
    /// How long more replicas must be wanted without a break before they are made.
    pub upscale_delay: HumanDuration,
    /// How long fewer replicas must be wanted without a break before they go.
    pub downscale_delay: HumanDuration,
    /// How much of the way up is gone at once; above 0.
    pub upscaling_factor: f64,
    /// How much of the way down is gone at once; above 0.
    pub downscaling_factor: f64,
}

impl Default for RayServe {
    fn default() -> Self {
        Self {
            target_ongoing_requests: 2.0,
            look_back_period: HumanDuration::from_secs(30),
            upscale_delay: HumanDuration::from_secs(30),
            downscale_delay: HumanDuration::from_secs(600),
            upscaling_factor: 1.0,
            downscaling_factor: 1.0,
        }
    }
}

impl RayServe {
    pub(super) fn check(&self) -> Result<(), String> {
        let above_zero = [
            (self.target_ongoing_requests, "target_ongoing_requests"),
            (self.upscaling_factor, "upscaling_factor"),
            (self.downscaling_factor, "downscaling_factor"),
        ];
        if let Some((_, key)) = above_zero.iter().find(|(value, _)| value.is_nan() || *value <= 0.0)
        {
            return Err(format!("{key}: must be above 0"));
        }
        if !(1..=3_600).contains(&self.look_back_period.get().as_secs()) {
            return Err("look_back_period: must be 1s to 1h".to_owned());
        }
        Ok(())
    }
}

/// `replica_queue_length_autoscaling_policy` of `python/ray/serve/autoscaling_policy.py`, once per control loop.
#[derive(Debug)]
pub(super) struct RayScaler {
    settings: RayServe,
    /// Ongoing requests of the last control loops, newest last.
    ongoing: VecDeque<f64>,
    /// Loops in a row that wanted more (above 0) or fewer (below 0).
    streak: i64,
}

/// `CONTROL_LOOP_INTERVAL_S`.
const LOOP: Duration = Duration::from_millis(100);

impl RayScaler {
    pub(super) const fn new(settings: RayServe) -> Self {
        Self { settings, ongoing: VecDeque::new(), streak: 0 }
    }

    /// `_calculate_desired_num_replicas`.
    fn wanted(&self, total: f64, current: u32) -> u32 {
        let now = f64::from(current);
        let raw = total / self.settings.target_ongoing_requests;
        let factor = if raw > now {
            self.settings.upscaling_factor
        } else {
            self.settings.downscaling_factor
        };
        let smoothed = (now + factor * (raw - now)).ceil();
        // A small factor must not keep a replica for ever.
        let stuck = raw.ceil() < now && smoothed >= now;
        (if stuck { now - 1.0 } else { smoothed }) as u32
    }
}

fn loops(delay: Duration) -> i64 {
    (delay.as_nanos() / LOOP.as_nanos()) as i64
}

impl Autoscaler for RayScaler {
    fn interval(&self) -> Duration {
        LOOP
    }

    fn decide(&mut self, _: Time, sample: &Sample) -> Option<u32> {
        if self.ongoing.len() as i64 == loops(self.settings.look_back_period.get()) {
            self.ongoing.pop_front();
        }
        self.ongoing.push_back(sample.concurrency);
        let current = sample.ready + sample.starting;
        if current == 0 {
            self.streak = 0;
            return None;
        }
        let average = self.ongoing.iter().sum::<f64>() / self.ongoing.len() as f64;
        let wanted = self.wanted(average, current).clamp(sample.scale.min, sample.scale.max);
        if wanted > current {
            self.streak = self.streak.max(0) + 1;
            if self.streak > loops(self.settings.upscale_delay.get()) {
                self.streak = 0;
                return Some(wanted);
            }
        } else if wanted < current {
            self.streak = self.streak.min(0) - 1;
            if self.streak < -loops(self.settings.downscale_delay.get()) {
                self.streak = 0;
                return Some(wanted);
            }
        } else {
            self.streak = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn scaler(target: f64, factor: f64) -> RayScaler {
        RayScaler::new(RayServe {
            target_ongoing_requests: target,
            upscaling_factor: factor,
            downscaling_factor: factor,
            ..RayServe::default()
        })
    }

    /// (ongoing, replicas, target, factor, wanted): the arithmetic of `test_autoscaling_policy.py`.
    #[test]
    fn follows_the_formula() {
        let cases = [
            (40.0, 10, 2.0, 1.0, 20),
            (10.0, 10, 2.0, 1.0, 5),
            (20.0, 10, 1.0, 0.5, 15),
            (5.0, 10, 1.0, 0.5, 8),
            (9.0, 10, 1.0, 0.01, 9),
            (0.0, 1, 1.0, 1.0, 0),
        ];
        for (ongoing, replicas, target, factor, wanted) in cases {
            assert_eq!(
                scaler(target, factor).wanted(ongoing, replicas),
                wanted,
                "{ongoing} at {replicas}"
            );
        }
    }

    #[test]
    fn waits_for_its_delays_without_a_break() {
        let mut scaler = scaler(1.0, 1.0);
        let mut decide = |ongoing: f64| {
            let sample = Sample {
                concurrency: ongoing,
                arrivals: 0,
                queued: 0,
                ready: 2,
                starting: 0,
                replica_concurrency: Some(1),
                scale: Scale { min: 1, max: 10 },
            };
            scaler.decide(Time::ZERO, &sample)
        };
        let up: Vec<_> = (0..301).map(|_| decide(4.0)).collect();
        assert!(up[..300].iter().all(Option::is_none));
        assert_eq!(up[300], Some(4));
    }
}
