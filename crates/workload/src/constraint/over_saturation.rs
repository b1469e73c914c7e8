use std::collections::VecDeque;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConstraintError, check};

/// The test for over-saturation of guidellm: requests in flight and, where answers are streamed, the time to the
/// first token are regressed on time; a server is over-saturated if both slopes are positive and known well
/// enough. Without streaming it goes by the requests in flight alone; the rule `backlog` is the better one then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OverSaturation {
    /// Nothing ends before so many seconds.
    pub min_seconds: f64,
    /// What is older than so many seconds is forgotten.
    pub max_window_seconds: f64,
    /// A slope is known well enough if its margin of error, over itself, is below this.
    pub moe_threshold: f64,
    /// Seconds to the first token above which a request counts as slow: while fewer than half of them are,
    /// nothing ends.
    pub minimum_ttft: f64,
    /// Part of all requests that is looked at, the last ones; 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub maximum_window_ratio: f64,
    /// Seconds, and requests, without which a slope is not looked at.
    pub minimum_window_size: u32,
    /// Confidence of the margin of error, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence: f64,
}

impl Default for OverSaturation {
    fn default() -> Self {
        Self {
            min_seconds: 30.0,
            max_window_seconds: 120.0,
            moe_threshold: 2.0,
            minimum_ttft: 2.5,
            maximum_window_ratio: 0.75,
            minimum_window_size: 5,
            confidence: 0.95,
        }
    }
}

/// Points that are kept at most of either series; at more than 8,000 requests a second the window is shorter
/// than it might be.
const MAX_POINTS: usize = 1 << 20;
const TINY: f64 = 1e-12;

impl OverSaturation {
    pub(super) fn check(&self) -> Result<(), ConstraintError> {
        let rule = "over_saturation";
        let seconds = "a number of seconds from 0 on";
        let part = "0 to 1";
        check(rule, "min_seconds", self.min_seconds, 0.0, 1e9, seconds)?;
        check(rule, "max_window_seconds", self.max_window_seconds, 0.0, 1e9, seconds)?;
        check(rule, "minimum_ttft", self.minimum_ttft, 0.0, 1e9, seconds)?;
        check(rule, "moe_threshold", self.moe_threshold, 0.0, 1e9, "a number from 0 on")?;
        check(rule, "maximum_window_ratio", self.maximum_window_ratio, 0.0, 1.0, part)?;
        check(rule, "confidence", self.confidence, 0.0, 1.0, part)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Detector {
    rule: OverSaturation,
    in_flight: Series,
    ttft: Series,
    slow: u64,
}

/// Points in a window, and the sums of a straight line through them.
#[derive(Clone, Debug, Default)]
struct Series {
    points: VecDeque<(f64, f64)>,
    /// Points that ever came.
    ever: u64,
    x: f64,
    y: f64,
    xy: f64,
    xx: f64,
    yy: f64,
}

impl Detector {
    pub(super) fn new(rule: OverSaturation) -> Self {
        Self { rule, in_flight: Series::default(), ttft: Series::default(), slow: 0 }
    }

    pub(super) fn sent(&mut self, now: Time, in_flight: u64) {
        self.in_flight.push(now.as_secs_f64(), in_flight as f64);
    }

    pub(super) fn ended(&mut self, now: Time, ttft: Option<u64>) {
        let Some(ttft) = ttft.map(|nanos| nanos as f64 / 1e9) else { return };
        self.slow += u64::from(ttft > self.rule.minimum_ttft);
        self.ttft.push(now.as_secs_f64(), ttft);
    }

    fn forget(&mut self, now: f64) {
        let rule = self.rule;
        let since = now - rule.max_window_seconds;
        while self.in_flight.is_too_long(rule.maximum_window_ratio, since) {
            self.in_flight.pop();
        }
        while self.ttft.is_too_long(rule.maximum_window_ratio, since) {
            let ttft = self.ttft.pop();
            self.slow -= u64::from(ttft > rule.minimum_ttft);
        }
    }

    pub(super) fn why(&mut self, now: Time) -> Option<String> {
        let rule = self.rule;
        let seconds = now.as_secs_f64();
        self.forget(seconds);
        // Requests of one second are not independent: as many count as there are seconds.
        let in_flight_n = seconds.min(self.in_flight.points.len() as f64);
        let ttft_n = seconds.min(self.ttft.points.len() as f64);
        let least = f64::from(rule.minimum_window_size);
        if seconds < rule.min_seconds
            || self.ttft.points.len() as u64 > 2 * self.slow
            || seconds < rule.minimum_ttft
            || in_flight_n < least
        {
            return None;
        }
        let in_flight = self.in_flight.growth(in_flight_n, &rule)?;
        if ttft_n < least {
            return Some(format!("requests in flight grow by {in_flight:.3} a second"));
        }
        let ttft = self.ttft.growth(ttft_n, &rule)?;
        Some(format!(
            "requests in flight grow by {in_flight:.3} a second, the time to the first token by {ttft:.4} s"
        ))
    }
}

impl Series {
    fn push(&mut self, x: f64, y: f64) {
        self.points.push_back((x, y));
        self.ever += 1;
        self.sum(x, y, 1.0);
    }

    fn pop(&mut self) -> f64 {
        let Some((x, y)) = self.points.pop_front() else { return 0.0 };
        self.sum(x, y, -1.0);
        y
    }

    fn sum(&mut self, x: f64, y: f64, sign: f64) {
        self.x += sign * x;
        self.y += sign * y;
        self.xy += sign * x * y;
        self.xx += sign * x * x;
        self.yy += sign * y * y;
    }

    fn is_too_long(&self, ratio: f64, since: f64) -> bool {
        let most = ((self.ever as f64 * ratio) as usize).min(MAX_POINTS);
        self.points.len() > most || self.points.front().is_some_and(|&(x, _)| x < since)
    }

    /// The slope, if it is positive and known well enough. `n`: independent points that it is worth.
    fn growth(&self, n: f64, rule: &OverSaturation) -> Option<f64> {
        if n < 3.0 {
            return None;
        }
        let count = self.points.len() as f64;
        let xx = (self.xx - self.x * self.x / count).max(TINY);
        let xy = self.xy - self.x * self.y / count;
        let yy = self.yy - self.y * self.y / count;
        let slope = xy / xx;
        let residual = (yy - xy * xy / xx).max(0.0);
        let error = (residual / (n - 2.0) / xx).sqrt();
        let margin = quantile_of_t(0.5 + 0.5 * rule.confidence, n - 2.0) * error / slope.max(TINY);
        (slope > 0.0 && margin < rule.moe_threshold).then_some(slope)
    }
}

/// Student's t by the normal quantile (Abramowitz and Stegun 26.2.23) and two terms of the expansion in the
/// degrees of freedom (26.7.5), the second with powers one lower than there, as the test's authors have it: the
/// decisions shall be the same. `p` of 0.5 or more.
fn quantile_of_t(p: f64, freedom: f64) -> f64 {
    let t = (-2.0 * libm::log(1.0 - p)).sqrt();
    let numerator = (0.010_328 * t + 0.802_853) * t + 2.515_517;
    let denominator = ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0;
    let z = t - numerator / denominator;
    let first = (z * z * z + z) / 4.0;
    let second = z * z * (5.0 * z * z + 16.0 * z + 3.0) / 96.0;
    z + first / freedom + second / (freedom * freedom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_near_the_tables() {
        for (freedom, expected) in [(3.0, 3.182), (10.0, 2.228), (30.0, 2.042), (1e6, 1.960)] {
            let t = quantile_of_t(0.975, freedom);
            assert!((t - expected).abs() < 0.7 / freedom + 1e-3, "{freedom}: {t}");
        }
    }

    /// A run whose server answers `capacity` of the `rate` requests a second, one after the other; when the rule
    /// sees it.
    fn found_after(rate: f64, capacity: f64, seconds: u32, streams: bool) -> Option<f64> {
        let mut detector = Detector::new(OverSaturation::default());
        let (mut free_at, mut ended, mut in_flight) = (0.0f64, VecDeque::new(), 0u64);
        for i in 0..(rate * f64::from(seconds)) as u32 {
            let now = f64::from(i) / rate;
            while ended.front().is_some_and(|&(at, _)| at <= now) {
                let (at, ttft): (f64, f64) = ended.pop_front()?;
                in_flight -= 1;
                let ttft = streams.then_some((ttft * 1e9) as u64);
                detector.ended(Time::from_secs_f64(at), ttft);
            }
            free_at = free_at.max(now) + 1.0 / capacity;
            ended.push_back((free_at, free_at - now));
            in_flight += 1;
            detector.sent(Time::from_secs_f64(now), in_flight);
            if detector.why(Time::from_secs_f64(now)).is_some() {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn a_server_that_falls_behind_is_found_after_the_least_time() {
        for streams in [true, false] {
            let found = found_after(20.0, 15.0, 100, streams).unwrap();
            assert!((30.0..31.0).contains(&found), "{found}");
        }
        assert_eq!(found_after(14.0, 15.0, 100, true), None);
    }

    #[test]
    fn fast_first_tokens_forgive_growth() {
        // In flight grows, but more than half of the first tokens are there in time.
        let mut detector = Detector::new(OverSaturation::default());
        for second in 0..60 {
            let now = Time::from_secs_f64(f64::from(second));
            detector.sent(now, u64::from(second as u32));
            // They grow too, but stay far below what counts as slow.
            detector.ended(now, Some(100_000_000 + 1_000_000 * second as u64));
            assert_eq!(detector.why(now), None);
        }
    }
}
