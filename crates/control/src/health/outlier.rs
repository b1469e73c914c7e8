use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::config::HumanDuration;

/// When an upstream is left out because it does worse than the others: Envoy's outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectRules {
    /// So many server errors or failures in a row; 0 turns that off.
    pub consecutive_errors: u32,
    /// So many failures in a row: no connection, an answer that broke off or did not come in time, 502, 503, 504. 0
    /// turns that off.
    pub consecutive_failures: u32,
    /// How often the upstreams' shares of good answers are compared.
    pub interval: HumanDuration,
    /// How long the first time; so many times as long as it has been left out lately.
    pub base_ejection: HumanDuration,
    /// The longest.
    pub max_ejection: HumanDuration,
    /// The largest share of the upstreams that may be left out at a time, in percent.
    pub max_percent: u32,
    /// The fewest upstreams that must have had `success_volume` requests for their shares to be compared.
    pub success_upstreams: u32,
    /// The fewest requests within `interval` that an upstream's share of good answers is judged by.
    pub success_volume: u32,
    /// An upstream is left out if its share of good answers is so many standard deviations below the average; 0
    /// turns that off.
    pub success_deviations: f64,
}

impl Default for EjectRules {
    /// Envoy's, but for `max_percent`, which is 10 there.
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            consecutive_failures: 5,
            interval: HumanDuration::from_secs(10),
            base_ejection: HumanDuration::from_secs(30),
            max_ejection: HumanDuration::from_secs(300),
            max_percent: 50,
            success_upstreams: 5,
            success_volume: 100,
            success_deviations: 1.9,
        }
    }
}

impl EjectRules {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (!self.interval.get().is_zero(), "interval must be above 0"),
            (!self.base_ejection.get().is_zero(), "base_ejection must be above 0"),
            (self.max_ejection >= self.base_ejection, "max_ejection is below base_ejection"),
            (self.max_percent <= 100, "max_percent is above 100"),
            (
                (0.0..=100.0).contains(&self.success_deviations),
                "success_deviations must be 0 to 100",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }

    /// Whether one more of `all` may be left out while `out` are.
    #[must_use]
    pub fn allows(&self, out: u32, all: u32) -> bool {
        u64::from(out + 1) * 100 <= u64::from(self.max_percent) * u64::from(all)
    }
}

/// The record of one upstream beside the others.
#[derive(Clone, Debug)]
pub struct Outlier {
    rules: EjectRules,
    errors: u32,
    failures: u32,
    /// Requests and good answers since the last comparison.
    requests: u32,
    good: u32,
    /// Until when it is left out.
    ejected: Option<Time>,
    /// How often it was left out lately: one more each time, one fewer at each comparison that it was not.
    times: u32,
}

impl Outlier {
    /// One without a record.
    #[must_use]
    pub const fn new(rules: EjectRules) -> Self {
        Self { rules, errors: 0, failures: 0, requests: 0, good: 0, ejected: None, times: 0 }
    }

    /// Whether it is left out.
    #[must_use]
    pub const fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    /// When it is no longer left out.
    #[must_use]
    pub fn next(&self) -> Time {
        self.ejected.unwrap_or(Time::MAX)
    }

    /// Takes in how an attempt ended. Whether it should be left out now.
    pub fn record(&mut self, verdict: Verdict) -> bool {
        self.requests = self.requests.saturating_add(1);
        match verdict {
            Verdict::Good => {
                self.good = self.good.saturating_add(1);
                (self.errors, self.failures) = (0, 0);
            }
            Verdict::Error => {
                self.errors = self.errors.saturating_add(1);
                self.failures = 0;
            }
            Verdict::Gone => {
                self.errors = self.errors.saturating_add(1);
                self.failures = self.failures.saturating_add(1);
            }
        }
        let above = |count: u32, limit: u32| limit > 0 && count >= limit;
        !self.is_ejected()
            && (above(self.errors, self.rules.consecutive_errors)
                || above(self.failures, self.rules.consecutive_failures))
    }

    /// Leaves it out.
    pub fn eject(&mut self, now: Time) {
        self.times = self.times.saturating_add(1);
        let span = self.rules.base_ejection.get().saturating_mul(self.times);
        self.ejected = Some(now + span.min(self.rules.max_ejection.get()));
        (self.errors, self.failures) = (0, 0);
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Time) {
        self.ejected = self.ejected.filter(|until| *until > now);
    }

    /// Ends the time between two comparisons: its share of good answers, if it had requests enough.
    pub fn compare(&mut self) -> Option<f64> {
        if !self.is_ejected() {
            self.times = self.times.saturating_sub(1);
        }
        let (requests, good) = (std::mem::take(&mut self.requests), std::mem::take(&mut self.good));
        let enough = requests >= self.rules.success_volume.max(1) && !self.is_ejected();
        enough.then(|| f64::from(good) / f64::from(requests))
    }
}

/// The share of good answers below which an upstream is an outlier among those with these shares; `None` if they are
/// too few, or never: mean - deviations * standard deviation, as Envoy's `success_rate_stdev_factor`.
#[must_use]
pub fn success_rate_threshold(rules: &EjectRules, shares: &[f64]) -> Option<f64> {
    if rules.success_deviations <= 0.0
        || shares.is_empty()
        || shares.len() < rules.success_upstreams as usize
    {
        return None;
    }
    let count = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / count;
    let variance = shares.iter().map(|share| (share - mean) * (share - mean)).sum::<f64>() / count;
    Some(mean - rules.success_deviations * variance.sqrt())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    use Verdict::{Error, Gone, Good};

    #[test]
    fn errors_in_a_row_make_an_outlier() {
        let mut one = Outlier::new(EjectRules::default());
        let mut out = |verdicts: &[Verdict]| verdicts.iter().any(|&verdict| one.record(verdict));
        assert!(!out(&[Gone, Error, Gone, Error, Good, Error, Error, Error, Gone]));
        assert!(out(&[Error]));
    }

    #[test]
    fn each_time_it_is_left_out_for_longer_until_it_behaves() {
        let mut one = Outlier::new(EjectRules::default());
        let mut now = at(0);
        for span in [30, 60, 90] {
            one.eject(now);
            assert_eq!(one.next(), now + Duration::from_secs(span));
            one.compare();
            now = one.next();
            one.wake(now);
            assert!(!one.is_ejected());
        }
        let _shares = [one.compare(), one.compare()];
        one.eject(now);
        assert_eq!(one.next(), now + Duration::from_secs(60), "two good intervals count");
        (0..20).for_each(|_| one.eject(now));
        assert_eq!(one.next(), now + Duration::from_secs(300));
    }

    /// Envoy's own example: nine hosts at 1, one at 0.5.
    #[test]
    fn one_far_below_the_others_is_below_the_threshold() {
        let rules = EjectRules::default();
        let mut shares = [1.0; 10];
        shares[3] = 0.5;
        let threshold = success_rate_threshold(&rules, &shares).unwrap();
        assert!((threshold - (0.95 - 1.9 * 0.15)).abs() < 1e-12);
        assert!(shares[3] < threshold && shares[0] > threshold);
        assert_eq!(success_rate_threshold(&rules, &shares[..4]), None, "too few");
        let alike = success_rate_threshold(&rules, &[0.8; 6]).unwrap();
        assert!(alike <= 0.8, "nobody is an outlier among equals: {alike}");
    }

    #[test]
    fn no_more_than_a_share_may_be_left_out() {
        let rules = EjectRules { max_percent: 50, ..EjectRules::default() };
        assert_eq!([0, 1, 2].map(|out| rules.allows(out, 4)), [true, true, false]);
        assert!(!rules.allows(0, 1), "never the only one");
    }
}
