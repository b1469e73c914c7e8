use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limiter, Sample};

/// Settings of the limit by the gradient of response times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gradient2 {
    /// Requests at a time at first.
    pub initial: u32,
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Requests that may wait at the upstream: how fast the limit grows.
    pub queue: u32,
    /// How much longer than on average requests may take before the limit falls; at least 1.
    pub tolerance: f64,
    /// How much of each change is taken at once, in (0, 1].
    pub smoothing: f64,
    /// Over how many requests the average goes.
    pub window: u32,
}

impl Default for Gradient2 {
    /// Netflix'.
    fn default() -> Self {
        Self {
            initial: 20,
            min: 20,
            max: 200,
            queue: 4,
            tolerance: 1.5,
            smoothing: 0.2,
            window: 600,
        }
    }
}

impl Gradient2 {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match () {
            () if !(1.0..=100.0).contains(&self.tolerance) => Err("tolerance must be 1 to 100"),
            () if !(self.smoothing > 0.0 && self.smoothing <= 1.0) => {
                Err("smoothing must be above 0 and at most 1")
            }
            () if self.window == 0 => Err("window must be at least 1"),
            () if self.min < 1 || self.initial < self.min || self.max < self.initial => {
                Err("1 <= min <= initial <= max must hold")
            }
            () => Ok(()),
        }
    }
}

/// Samples of which the average is plain, before it is an exponential one.
const WARM_UP: u32 = 10;

/// Netflix' `Gradient2Limit`: the limit follows the ratio of the average response time to the last one, and grows by
/// `queue` while that is 1.
#[derive(Debug)]
pub(super) struct Gradient2Limiter {
    settings: Gradient2,
    limit: f64,
    /// Average response time in seconds.
    average: f64,
    samples: u32,
}

impl Gradient2Limiter {
    pub(super) fn new(settings: &Gradient2) -> Self {
        let limit = f64::from(settings.initial);
        Self { settings: *settings, limit, average: 0.0, samples: 0 }
    }

    fn average_with(&mut self, sample: f64) -> f64 {
        if self.samples < WARM_UP {
            self.samples += 1;
            self.average += (sample - self.average) / f64::from(self.samples);
        } else {
            let share = 2.0 / (f64::from(self.settings.window) + 1.0);
            self.average += (sample - self.average) * share;
        }
        self.average
    }
}

impl Limiter for Gradient2Limiter {
    fn ended(&mut self, sample: &Sample) {
        let short = sample.took.as_secs_f64().max(1e-9);
        let long = self.average_with(short);
        // After a long time of overload the average is too high: it comes down faster.
        if long / short > 2.0 {
            self.average *= 0.95;
        }
        if f64::from(sample.in_flight) < self.limit / 2.0 {
            return;
        }
        let settings = &self.settings;
        let gradient = (settings.tolerance * long / short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + f64::from(settings.queue);
        let smooth = self.limit * (1.0 - settings.smoothing) + wanted * settings.smoothing;
        self.limit = smooth.clamp(f64::from(settings.min), f64::from(settings.max));
    }

    fn limit(&self) -> u32 {
        self.limit as u32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn feed(limiter: &mut Gradient2Limiter, count: u32, ms: u64) -> u32 {
        for _ in 0..count {
            let in_flight = limiter.limit();
            let took = Duration::from_millis(ms);
            limiter.ended(&Sample { took, in_flight, dropped: false });
        }
        limiter.limit()
    }

    #[test]
    fn it_grows_while_response_times_stay_and_falls_when_they_rise() {
        let mut limiter = Gradient2Limiter::new(&Gradient2 { min: 4, ..Gradient2::default() });
        assert_eq!(feed(&mut limiter, 1, 10), 20, "20 + 0.2 * 4 = 20.8");
        assert_eq!(feed(&mut limiter, 4, 10), 24);
        assert_eq!(feed(&mut limiter, 500, 10), 200);
        let slow = feed(&mut limiter, 50, 100);
        assert!(slow < 40, "ten times as slow: {slow}");
    }

    #[test]
    fn a_limit_that_is_not_used_says_nothing() {
        let mut limiter = Gradient2Limiter::new(&Gradient2::default());
        for _ in 0..100 {
            let took = Duration::from_millis(10);
            limiter.ended(&Sample { took, in_flight: 9, dropped: false });
        }
        assert_eq!(limiter.limit(), 20);
    }
}
