use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample, UNLIMITED_CONCURRENCY};
use crate::config::HumanDuration;

/// Settings of Kubernetes' horizontal pod autoscaler; the defaults are those of `pkg/controller/podautoscaler`
/// and of `autoscaling/v2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hpa {
    /// Share of the replicas' concurrency that should be in use, above 0. A replica without a limit counts as
    /// 100 requests at a time.
    pub target: f64,
    /// How often it decides; at least 1 s.
    pub period: HumanDuration,
    /// How far the use may be from the target, as a share of it, before anything is done; in 0..1.
    pub tolerance: f64,
    /// How long a higher number, once wanted, holds off a lower one.
    pub scale_down_stabilization: HumanDuration,
    /// How long a lower number, once wanted, holds off a higher one.
    pub scale_up_stabilization: HumanDuration,
}

impl Default for Hpa {
    fn default() -> Self {
        Self {
            target: 0.8,
            period: HumanDuration::from_secs(15),
            tolerance: 0.1,
            scale_down_stabilization: HumanDuration::from_secs(300),
            scale_up_stabilization: HumanDuration::from_secs(0),
        }
    }
}

impl Hpa {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.target.is_nan() || self.target <= 0.0 {
            Err("target: must be above 0".to_owned())
        } else if !(0.0..1.0).contains(&self.tolerance) {
            Err("tolerance: must be at least 0 and below 1".to_owned())
        } else if self.period.get() < Duration::from_secs(1) {
            Err("period: must be at least 1s".to_owned())
        } else {
            Ok(())
        }
    }
}

/// `horizontal.go` and `replica_calculator.go` with a pods metric (average use per replica), the stabilisation
/// windows and the default scaling policies of `autoscaling/v2`.
#[derive(Debug)]
pub(super) struct HpaScaler {
    settings: Hpa,
    /// Numbers wanted lately, oldest first.
    recommendations: VecDeque<(Time, u32)>,
    /// Changes made lately, oldest first.
    changes: VecDeque<(Time, i64)>,
}

/// Default scaling policies: in 15 s at most 4 replicas or 100 % more, whichever is more; down as far as wanted.
const POLICY_PERIOD: Duration = Duration::from_secs(15);
const POLICY_PODS: u32 = 4;

impl HpaScaler {
    pub(super) const fn new(settings: Hpa) -> Self {
        Self { settings, recommendations: VecDeque::new(), changes: VecDeque::new() }
    }

    /// `GetMetricReplicas`: replicas that do not run yet count as idle when there seem to be too few.
    fn wanted(&self, sample: &Sample) -> u32 {
        let current = sample.ready + sample.starting;
        let per_replica = f64::from(sample.replica_concurrency.unwrap_or(UNLIMITED_CONCURRENCY));
        let use_per = |replicas: u32| {
            sample.concurrency / f64::from(replicas.max(1)) / per_replica / self.settings.target
        };
        let calm = |ratio: f64| (1.0 - ratio).abs() <= self.settings.tolerance;
        let ratio = use_per(sample.ready);
        if sample.starting == 0 || ratio <= 1.0 {
            return if calm(ratio) { current } else { ceil(ratio * f64::from(sample.ready)) };
        }
        let ratio = use_per(current);
        if calm(ratio) || ratio < 1.0 {
            return current;
        }
        ceil(ratio * f64::from(current)).max(current)
    }

    /// `stabilizeRecommendationWithBehaviors`.
    fn stabilise(&mut self, now: Time, current: u32, wanted: u32) -> u32 {
        let up = self.settings.scale_up_stabilization.get();
        let down = self.settings.scale_down_stabilization.get();
        let longest = up.max(down);
        self.recommendations.retain(|(at, _)| *at + longest > now);
        let within = |window: Duration| {
            self.recommendations.iter().filter(move |(at, _)| *at + window > now)
        };
        let lowest = within(up).map(|(_, n)| *n).fold(wanted, u32::min);
        let highest = within(down).map(|(_, n)| *n).fold(wanted, u32::max);
        self.recommendations.push_back((now, wanted));
        current.max(lowest).min(highest)
    }

    /// `convertDesiredReplicasWithBehaviorRate`, with the default policies.
    fn limit_rate(&mut self, now: Time, current: u32, wanted: u32) -> u32 {
        self.changes.retain(|(at, _)| *at + POLICY_PERIOD > now);
        if wanted <= current {
            return wanted;
        }
        let added: i64 = self.changes.iter().map(|(_, change)| (*change).max(0)).sum();
        let start = u32::try_from(i64::from(current) - added).unwrap_or(0);
        wanted.min((start + POLICY_PODS).max(start.saturating_mul(2)))
    }
}

impl Autoscaler for HpaScaler {
    fn interval(&self) -> Duration {
        self.settings.period.get()
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        let current = sample.ready + sample.starting;
        if current == 0 {
            // "spec.replicas: 0" turns the autoscaler off; a request wakes the function.
            return None;
        }
        let wanted = self.wanted(sample).clamp(sample.scale.min.max(1), sample.scale.max);
        let stable = self.stabilise(now, current, wanted);
        let limited = self.limit_rate(now, current, stable);
        if limited != current {
            self.changes.push_back((now, i64::from(limited) - i64::from(current)));
        }
        Some(limited)
    }
}

fn ceil(replicas: f64) -> u32 {
    // Saturating; the caller clamps it to the function's bounds.
    replicas.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    fn sample(total: f64, ready: u32, starting: u32) -> Sample {
        Sample {
            concurrency: total,
            arrivals: 0,
            queued: 0,
            ready,
            starting,
            replica_concurrency: Some(1),
            scale: Scale { min: 1, max: 100 },
        }
    }

    fn scaler(target: f64) -> HpaScaler {
        HpaScaler::new(Hpa { target, ..Hpa::default() })
    }

    /// (values per replica, target, replicas expected): the pods-metric cases of `replica_calculator_test.go`
    /// and the example of the Kubernetes documentation (200m against 100m doubles, 50m halves).
    #[test]
    fn follows_the_worked_examples() {
        let cases: [(&[f64], f64, u32); 6] = [
            (&[20.0, 10.0, 30.0], 15.0, 4),
            (&[12.0, 12.0, 12.0, 12.0, 12.0], 20.0, 3),
            (&[20.0, 21.0, 21.0], 20.0, 3),
            (&[0.3, 0.5, 0.7], 0.3, 5),
            (&[0.2, 0.2], 0.1, 4),
            (&[0.05, 0.05, 0.05, 0.05], 0.1, 2),
        ];
        for (values, target, expected) in cases {
            let total = values.iter().sum();
            let sample = sample(total, values.len() as u32, 0);
            assert_eq!(scaler(target).wanted(&sample), expected, "{values:?} against {target}");
        }
    }

    #[test]
    fn starting_replicas_count_as_idle_when_scaling_up() {
        // 3 ready at 1.0 against 0.5 alone would want 6; with 2 more starting 5 in all are at 0.6: 6 again.
        assert_eq!(scaler(0.5).wanted(&sample(3.0, 3, 2)), 6);
        // With 3 more starting the average is at the target: nothing more.
        assert_eq!(scaler(0.5).wanted(&sample(3.0, 3, 3)), 6);
        assert_eq!(scaler(0.5).wanted(&sample(3.0, 3, 5)), 8);
    }

    #[test]
    fn scales_down_only_after_the_stabilisation_window() {
        let mut scaler = scaler(0.5);
        let mut now = Time::ZERO;
        let mut decide = |total: f64, ready| {
            now += Duration::from_secs(15);
            scaler.decide(now, &sample(total, ready, 0)).unwrap()
        };
        assert_eq!(decide(5.0, 10), 10);
        for _ in 0..19 {
            assert_eq!(decide(1.0, 10), 10);
        }
        assert_eq!(decide(1.0, 10), 2);
    }

    #[test]
    fn at_most_four_or_twice_as_many_in_a_period() {
        let decide = |ready| scaler(0.1).decide(Time::from_secs_f64(15.0), &sample(90.0, ready, 0));
        assert_eq!(decide(1), Some(5));
        assert_eq!(decide(10), Some(20));
    }
}
