use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConstraintError, check};

/// Which part of the last requests may fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRate {
    /// Ends when this part of them failed, more than 0 and less than 1.
    pub rate: f64,
    /// How many are looked at; before there are so many, nothing ends. 1 to 1,000,000.
    #[serde(default = "window")]
    pub window: u32,
}

/// Which part of all requests may fail.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GlobalErrorRate {
    /// Ends when this part of them failed, more than 0 and less than 1.
    pub rate: f64,
    /// Before there are so many, nothing ends.
    #[serde(default = "minimum")]
    pub minimum: u64,
}

const fn window() -> u32 {
    30
}

const fn minimum() -> u64 {
    30
}

impl ErrorRate {
    pub(super) fn check(&self) -> Result<(), ConstraintError> {
        let rule = "max_error_rate";
        check_rate(rule, self.rate)?;
        check(rule, "window", f64::from(self.window), 1.0, 1e6, "1 to 1000000 requests")
    }
}

impl GlobalErrorRate {
    pub(super) fn check(&self) -> Result<(), ConstraintError> {
        check_rate("max_global_error_rate", self.rate)
    }
}

fn check_rate(rule: &'static str, rate: f64) -> Result<(), ConstraintError> {
    let most = 1.0 - f64::EPSILON;
    check(rule, "rate", rate, f64::MIN_POSITIVE, most, "more than 0 and less than 1")
}

/// How the last requests ended.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    rule: ErrorRate,
    failed: VecDeque<bool>,
    failures: u32,
}

impl Recent {
    pub(super) const fn new(rule: ErrorRate) -> Self {
        Self { rule, failed: VecDeque::new(), failures: 0 }
    }

    pub(super) fn ended(&mut self, ok: bool) {
        if self.failed.len() >= self.rule.window as usize {
            let first = self.failed.pop_front().unwrap_or_default();
            self.failures -= u32::from(first);
        }
        self.failed.push_back(!ok);
        self.failures += u32::from(!ok);
    }

    pub(super) fn why(&self) -> Option<String> {
        let full = self.failed.len() >= self.rule.window as usize;
        let part = f64::from(self.failures) / f64::from(self.rule.window);
        (full && part >= self.rule.rate)
            .then(|| format!("{} of the last {} requests failed", self.failures, self.rule.window))
    }
}

/// How all requests ended.
#[derive(Clone, Debug)]
pub(super) struct All {
    rule: GlobalErrorRate,
    ended: u64,
    failures: u64,
}

impl All {
    pub(super) const fn new(rule: GlobalErrorRate) -> Self {
        Self { rule, ended: 0, failures: 0 }
    }

    pub(super) fn ended(&mut self, ok: bool) {
        self.ended += 1;
        self.failures += u64::from(!ok);
    }

    pub(super) fn why(&self) -> Option<String> {
        let part = self.failures as f64 / self.ended.max(1) as f64;
        (self.ended >= self.rule.minimum.max(1) && part >= self.rule.rate)
            .then(|| format!("{} of {} requests failed", self.failures, self.ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_long_ago() {
        let mut recent = Recent::new(ErrorRate { rate: 0.5, window: 4 });
        for ok in [false, false, false] {
            recent.ended(ok);
            assert_eq!(recent.why(), None, "too few to tell");
        }
        for (ok, ends) in [
            (true, true),
            (true, true),
            (true, false),
            (true, false),
            (false, false),
            (false, true),
        ] {
            recent.ended(ok);
            assert_eq!(recent.why().is_some(), ends, "{recent:?}");
        }
    }

    #[test]
    fn the_global_rate_forgets_nothing() {
        let mut all = All::new(GlobalErrorRate { rate: 0.1, minimum: 10 });
        (0..9).for_each(|_| all.ended(false));
        assert_eq!(all.why(), None, "too few to tell");
        all.ended(true);
        assert_eq!(all.why().as_deref(), Some("9 of 10 requests failed"));
        (0..90).for_each(|_| all.ended(true));
        assert_eq!(all.why(), None);
    }
}
