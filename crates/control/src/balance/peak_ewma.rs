use std::time::Duration;

use gatewright_determinism::{Stream, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::power_of_two::two;
use super::{Asks, Balancer, Pool, Position};
use crate::config::HumanDuration;

/// Settings of the balancer by recent response times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PeakEwma {
    /// How slowly a response time is forgotten: after this long, a slow one counts for 1/e (0.37) of what it did.
    pub decay: HumanDuration,
    /// What a replica is taken to need before it has answered anything.
    pub default_rtt: HumanDuration,
}

impl Default for PeakEwma {
    /// Linkerd's: 10 s and 30 ms.
    fn default() -> Self {
        Self {
            decay: HumanDuration::from_secs(10),
            default_rtt: HumanDuration::new(Duration::from_millis(30)),
        }
    }
}

impl PeakEwma {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match () {
            () if self.decay.get().is_zero() => Err("decay must be above 0"),
            () if self.default_rtt.get().is_zero() => Err("default_rtt must be above 0"),
            () => Ok(()),
        }
    }
}

/// Peak-EWMA with two random choices, as in Finagle (`com.twitter.finagle.loadbalancer.PeakEwma`) and tower
/// (`tower::load::PeakEwma`): of two replicas that are drawn, the one with the lower estimate times (requests in
/// flight + 1).
///
/// An estimate is an exponentially weighted moving average of response times that jumps to a higher one at once.
/// It decays towards zero while nothing is heard, so that a slow replica is tried again.
#[derive(Debug)]
pub(super) struct PeakEwmaBalancer {
    decay: f64,
    default_rtt: f64,
    /// By position.
    estimates: Vec<Estimate>,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// Nanoseconds.
    rtt: f64,
    updated: Time,
}

impl Estimate {
    /// Takes in a response time in nanoseconds that became known at `now`.
    fn update(&mut self, now: Time, rtt: f64, decay: f64) {
        if self.rtt < rtt {
            self.rtt = rtt;
        } else {
            let elapsed = now.nanos_since(self.updated) as f64;
            let kept = libm::exp(-elapsed / decay);
            self.rtt = self.rtt * kept + rtt * (1.0 - kept);
        }
        self.updated = self.updated.max(now);
    }

    /// What it has decayed to at `now`.
    fn at(mut self, now: Time, decay: f64) -> f64 {
        self.update(now, 0.0, decay);
        self.rtt
    }
}

impl PeakEwmaBalancer {
    pub(super) fn new(settings: &PeakEwma) -> Self {
        Self {
            decay: settings.decay.get().as_nanos() as f64,
            default_rtt: settings.default_rtt.get().as_nanos() as f64,
            estimates: Vec::new(),
        }
    }

    fn cost(&self, pool: &Pool, position: Position, now: Time) -> f64 {
        let estimate = self.estimates[position.index()].at(now, self.decay);
        estimate * f64::from(pool.load(position).saturating_add(1))
    }
}

impl Balancer for PeakEwmaBalancer {
    fn pick(&mut self, pool: &Pool, asks: Asks, stream: &mut Stream) -> Option<Position> {
        let (a, b) = two(pool, stream)?;
        if a == b {
            return Some(a);
        }
        Some(if self.cost(pool, b, asks.now) < self.cost(pool, a, asks.now) { b } else { a })
    }

    fn joined(&mut self, _: &Pool, position: Position, now: Time) {
        let fresh = Estimate { rtt: self.default_rtt, updated: now };
        self.estimates.resize(self.estimates.len().max(position.index() + 1), fresh);
        self.estimates[position.index()] = fresh;
    }

    fn ended(&mut self, position: Position, started: Time, now: Time) {
        let took = now.nanos_since(started) as f64;
        self.estimates[position.index()].update(now, took, self.decay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// tower's own cases: a peak counts at once; what is lower is approached by 1 - exp(-elapsed / decay); silence
    /// decays to zero.
    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let mut estimate = Estimate { rtt: 10.0, updated: at(0) };
        estimate.update(at(1), 100.0, 1e9);
        assert_eq!(estimate.rtt, 100.0);
        estimate.update(at(2), 50.0, 1e9);
        assert!(
            (estimate.rtt - (100.0 * 0.367_879_441_171 + 50.0 * 0.632_120_558_829)).abs() < 1e-9
        );
        let before = estimate.rtt;
        assert!((estimate.at(at(5), 1e9) - before * 0.049_787_068_368).abs() < 1e-9);
        assert_eq!(estimate.rtt, before, "looking does not change it");
    }
}
