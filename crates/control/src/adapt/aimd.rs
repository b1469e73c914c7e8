use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Limiter, Sample};
use crate::config::HumanDuration;

/// Settings of additive increase, multiplicative decrease.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Aimd {
    /// Requests at a time at first.
    pub initial: u32,
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What is left of the limit after a drop; 0.5 to 1.
    pub backoff: f64,
    /// A request that takes longer counts as dropped.
    pub slow: HumanDuration,
}

impl Default for Aimd {
    /// Netflix'.
    fn default() -> Self {
        Self { initial: 20, min: 20, max: 200, backoff: 0.9, slow: HumanDuration::from_secs(5) }
    }
}

impl Aimd {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match () {
            () if !(0.5..1.0).contains(&self.backoff) => Err("backoff must be 0.5 to below 1"),
            () if self.min < 1 || self.initial < self.min || self.max < self.initial => {
                Err("1 <= min <= initial <= max must hold")
            }
            () => Ok(()),
        }
    }
}

/// Netflix' `AIMDLimit`: one more after each request that went well while at least half of the limit was used.
#[derive(Debug)]
pub(super) struct AimdLimiter {
    settings: Aimd,
    limit: u32,
}

impl AimdLimiter {
    pub(super) fn new(settings: &Aimd) -> Self {
        Self { settings: *settings, limit: settings.initial }
    }
}

impl Limiter for AimdLimiter {
    fn ended(&mut self, sample: &Sample) {
        if sample.dropped || sample.took > self.settings.slow.get() {
            self.limit = (f64::from(self.limit) * self.settings.backoff) as u32;
        } else if u64::from(sample.in_flight) * 2 >= u64::from(self.limit) {
            self.limit += 1;
        }
        self.limit = self.limit.clamp(self.settings.min, self.settings.max);
    }

    fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_more_when_used_and_a_share_fewer_when_dropped() {
        let settings = Aimd { min: 5, ..Aimd::default() };
        let mut limiter = AimdLimiter::new(&settings);
        let mut after = |ms: u64, in_flight: u32, dropped: bool| {
            limiter.ended(&Sample { took: Duration::from_millis(ms), in_flight, dropped });
            limiter.limit()
        };
        assert_eq!([after(1, 9, false), after(1, 10, false), after(1, 10, false)], [20, 21, 21]);
        assert_eq!([after(1, 1, true), after(5_001, 1, false)], [18, 16]);
        assert_eq!((0..50).map(|_| after(1, 1, true)).last(), Some(5));
        assert_eq!((0..500).map(|_| after(1, 200, false)).last(), Some(200));
    }
}
