use std::collections::VecDeque;
use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaler, Sample, UNLIMITED_CONCURRENCY};
use crate::config::HumanDuration;

/// Settings of Knative's pod autoscaler; the defaults are those of `knative/serving` `pkg/autoscaler/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kpa {
    /// Share of a replica's concurrency that should be in use, in (0, 1]. A replica without a limit counts as
    /// 100 requests at a time.
    pub target: f64,
    /// Window of the average that decides in calm times; 6 s to 1 h.
    pub stable_window: HumanDuration,
    /// Panic window as a percentage of the stable window, in 1..=100.
    pub panic_window_percentage: f64,
    /// Percentage of the ready replicas' target at which panic begins, in 110..=1000.
    pub panic_threshold_percentage: f64,
    /// Most that one decision may multiply the ready replicas by; above 1.
    pub max_scale_up_rate: f64,
    /// Most that one decision may divide the ready replicas by; above 1.
    pub max_scale_down_rate: f64,
    /// How long the last replica stays after a stable window without requests.
    pub scale_to_zero_grace: HumanDuration,
}

impl Default for Kpa {
    fn default() -> Self {
        Self {
            target: 0.7,
            stable_window: HumanDuration::from_secs(60),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            max_scale_up_rate: 1_000.0,
            max_scale_down_rate: 2.0,
            scale_to_zero_grace: HumanDuration::from_secs(30),
        }
    }
}

impl Kpa {
    pub(super) fn check(&self) -> Result<(), String> {
        let window = self.stable_window.get().as_secs_f64();
        let rules = [
            (self.target > 0.0 && self.target <= 1.0, "target", "must be above 0 and at most 1"),
            ((6.0..=3_600.0).contains(&window), "stable_window", "must be 6s to 1h"),
            (
                (1.0..=100.0).contains(&self.panic_window_percentage),
                "panic_window_percentage",
                "must be 1 to 100",
            ),
            (
                (110.0..=1_000.0).contains(&self.panic_threshold_percentage),
                "panic_threshold_percentage",
                "must be 110 to 1000",
            ),
            (self.max_scale_up_rate > 1.0, "max_scale_up_rate", "must be above 1"),
            (self.max_scale_down_rate > 1.0, "max_scale_down_rate", "must be above 1"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, rule)) => Err(format!("{key}: {rule}")),
            None => Ok(()),
        }
    }
}

/// The decider of `knative/serving` `pkg/autoscaler/scaling/autoscaler.go`: metrics are scraped every second
/// into one-second buckets (`pkg/autoscaler/aggregation/bucketing.go`), a decision is made every two.
#[derive(Debug)]
pub(super) struct KpaScaler {
    settings: Kpa,
    stable: Window,
    panic: Window,
    /// Set while in panic: when the load was last over the threshold.
    panicked: Option<Time>,
    /// The most replicas wanted during this panic; it never scales down before the panic is over.
    panic_high: u32,
    idle_since: Option<Time>,
    scrapes: u64,
}

/// Averages of the last seconds, newest last.
#[derive(Debug)]
struct Window {
    seconds: usize,
    buckets: VecDeque<f64>,
}

/// `autoscaling.WindowMin` of Knative: one metric a second.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// `tickInterval` of `multiscaler.go`, in scrapes.
const SCRAPES_PER_DECISION: u64 = 2;
/// `TargetMin` of `resources/target.go`.
const TARGET_MIN: f64 = 0.01;

impl KpaScaler {
    pub(super) fn new(settings: Kpa) -> Self {
        let stable = settings.stable_window.get().as_secs_f64().round();
        let panic = (stable * settings.panic_window_percentage / 100.0).round().max(1.0);
        Self {
            settings,
            stable: Window::new(stable as usize),
            panic: Window::new(panic as usize),
            panicked: None,
            panic_high: 0,
            idle_since: None,
            scrapes: 0,
        }
    }

    fn target(&self, sample: &Sample) -> f64 {
        let total = f64::from(sample.replica_concurrency.unwrap_or(UNLIMITED_CONCURRENCY));
        (total * self.settings.target).max(TARGET_MIN)
    }

    /// `Scale` of `autoscaler.go`.
    fn scale(&mut self, now: Time, sample: &Sample) -> u32 {
        let target = self.target(sample);
        let ready = f64::from(sample.ready.max(1));
        let most = (self.settings.max_scale_up_rate * ready).ceil();
        let least = (ready / self.settings.max_scale_down_rate).floor();
        let stable = (self.stable.average() / target).ceil();
        let panic = (self.panic.average() / target).ceil();
        let over = panic / ready >= self.settings.panic_threshold_percentage / 100.0;
        let stable = stable.clamp(least, most) as u32;
        let panic = panic.clamp(least, most) as u32;

        if over {
            self.panicked = Some(now);
        } else if self.panicked.is_some_and(|at| at + self.settings.stable_window.get() < now) {
            self.panicked = None;
            self.panic_high = 0;
        }
        if self.panicked.is_none() {
            return stable;
        }
        self.panic_high = self.panic_high.max(stable).max(panic);
        self.panic_high
    }

    /// The last replica goes only after the grace period (`kpa/scaler.go`, `handleScaleToZero`).
    fn hold_last(&mut self, now: Time, wanted: u32) -> u32 {
        if wanted > 0 {
            self.idle_since = None;
            return wanted;
        }
        let since = *self.idle_since.get_or_insert(now);
        u32::from(now - since < self.settings.scale_to_zero_grace.get())
    }
}

impl Autoscaler for KpaScaler {
    fn interval(&self) -> Duration {
        SCRAPE_INTERVAL
    }

    fn decide(&mut self, now: Time, sample: &Sample) -> Option<u32> {
        self.stable.push(sample.concurrency);
        self.panic.push(sample.concurrency);
        self.scrapes += 1;
        if !self.scrapes.is_multiple_of(SCRAPES_PER_DECISION) {
            return None;
        }
        if sample.ready + sample.starting == 0 {
            // At zero: a request wakes the function without waiting for a decision.
            self.idle_since = None;
            return None;
        }
        let wanted = self.scale(now, sample);
        Some(self.hold_last(now, wanted))
    }
}

impl Window {
    fn new(seconds: usize) -> Self {
        Self { seconds, buckets: VecDeque::with_capacity(seconds) }
    }

    fn push(&mut self, value: f64) {
        if self.buckets.len() == self.seconds {
            self.buckets.pop_front();
        }
        self.buckets.push_back(value);
    }

    /// The mean of the buckets written so far, rounded to six digits as Knative rounds it.
    fn average(&self) -> f64 {
        let sum: f64 = self.buckets.iter().sum();
        (sum / self.buckets.len().max(1) as f64 * 1e6).round() / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scale;

    struct Rig {
        scaler: KpaScaler,
        now: Time,
        ready: u32,
    }

    impl Rig {
        fn new(ready: u32) -> Self {
            let settings = Kpa { target: 1.0, ..Kpa::default() };
            Self { scaler: KpaScaler::new(settings), now: Time::ZERO, ready }
        }

        /// Two scrapes at `concurrency`, then the decision; the replicas follow at once.
        fn decide(&mut self, concurrency: f64) -> u32 {
            let sample = Sample {
                concurrency,
                arrivals: 0,
                queued: 0,
                ready: self.ready,
                starting: 0,
                replica_concurrency: Some(10),
                scale: Scale { min: 0, max: 1_000 },
            };
            let mut decision = None;
            for _ in 0..2 {
                self.now += SCRAPE_INTERVAL;
                decision = self.scaler.decide(self.now, &sample);
            }
            self.ready = decision.unwrap_or(self.ready);
            self.ready
        }

        fn decide_for(&mut self, seconds: u64, concurrency: f64) -> u32 {
            (0..seconds / 2).map(|_| self.decide(concurrency)).last().unwrap_or(self.ready)
        }
    }

    #[test]
    fn holds_the_target() {
        let mut rig = Rig::new(10);
        assert_eq!(rig.decide_for(120, 100.0), 10);
        assert_eq!(rig.decide_for(120, 101.0), 11);
    }

    #[test]
    fn panics_in_a_burst_and_does_not_shrink_before_it_is_over() {
        let mut rig = Rig::new(1);
        rig.decide_for(60, 10.0);
        // 100 at once: the panic window of 6 s is full after three decisions.
        assert_eq!(rig.decide_for(6, 100.0), 10);
        // The load was last over at 62 s, when replicas were 1. Nothing goes for a stable window after that.
        assert_eq!(rig.decide_for(56, 10.0), 10);
        assert!(rig.decide_for(20, 10.0) < 10);
    }

    #[test]
    fn shrinks_by_half_at_most() {
        let mut rig = Rig::new(16);
        rig.decide_for(62, 160.0);
        rig.scaler.stable.buckets.clear();
        rig.scaler.panic.buckets.clear();
        assert_eq!(rig.decide(0.0), 8);
    }

    #[test]
    fn last_replica_stays_for_the_grace() {
        let mut rig = Rig::new(1);
        rig.decide_for(10, 5.0);
        // The stable window must empty (60 s), then 30 s of grace.
        assert_eq!(rig.decide_for(88, 0.0), 1);
        assert_eq!(rig.decide_for(10, 0.0), 0);
        assert_eq!(rig.decide_for(10, 0.0), 0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = Kpa { target: 1.5, ..Kpa::default() };
        assert_eq!(wrong.check().unwrap_err(), "target: must be above 0 and at most 1");
    }
}
