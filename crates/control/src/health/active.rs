use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::HumanDuration;

/// How an upstream is asked whether it is well: `GET path`, and a status of 200 to 399 is a yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActiveCheck {
    /// What is asked for, behind the upstream's own path.
    pub path: String,
    /// How often, give or take a tenth, so that gateways do not ask in step.
    pub interval: HumanDuration,
    /// How long the answer may take.
    pub timeout: HumanDuration,
    /// So many failures in a row, and it gets no more requests.
    pub unhealthy: u32,
    /// So many good answers in a row, and it gets them again.
    pub healthy: u32,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval: HumanDuration::from_secs(5),
            timeout: HumanDuration::from_secs(2),
            unhealthy: 3,
            healthy: 2,
        }
    }
}

impl ActiveCheck {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let rules = [
            (self.path.starts_with('/'), "path does not begin with `/`"),
            (self.interval.get() >= Duration::from_millis(10), "interval is below 10ms"),
            (!self.timeout.get().is_zero(), "timeout must be above 0"),
            (self.unhealthy >= 1, "unhealthy must be at least 1"),
            (self.healthy >= 1, "healthy must be at least 1"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

/// The checks of one upstream. It is taken for healthy until they say otherwise.
#[derive(Clone, Debug)]
pub struct Prober {
    check: ActiveCheck,
    healthy: bool,
    /// Results in a row that say the opposite.
    against: u32,
    due: Time,
}

impl Prober {
    /// The first check is due at once.
    #[must_use]
    pub fn new(check: ActiveCheck, now: Time) -> Self {
        Self { check, healthy: true, against: 0, due: now }
    }

    /// Whether it is healthy, as far as the checks say.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// When the next check is due.
    #[must_use]
    pub const fn next(&self) -> Time {
        self.due
    }

    /// Time has passed. Whether a check is due, which its caller makes; `jitter` is in [0, 1).
    pub fn wake(&mut self, now: Time, jitter: f64) -> bool {
        let due = self.due <= now;
        if due {
            self.due = now + self.check.interval.get().mul_f64(0.9 + 0.2 * jitter);
        }
        due
    }

    /// Takes in the result of a check.
    pub fn record(&mut self, well: bool) {
        self.against = if well == self.healthy { 0 } else { self.against + 1 };
        let needed = if self.healthy { self.check.unhealthy } else { self.check.healthy };
        if self.against >= needed {
            (self.healthy, self.against) = (well, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_results_in_a_row_to_change_its_mind() {
        let mut prober = Prober::new(ActiveCheck::default(), Time::ZERO);
        let mut after = |results: &[bool]| {
            results.iter().for_each(|&well| prober.record(well));
            prober.is_healthy()
        };
        assert!(after(&[false, false, true, false, false, true]));
        assert!(!after(&[false, false, false]));
        assert!(!after(&[true, false, true]));
        assert!(after(&[true]));
    }

    #[test]
    fn checks_come_at_their_interval_give_or_take_a_tenth() {
        let mut prober = Prober::new(ActiveCheck::default(), Time::ZERO);
        assert!(prober.wake(Time::ZERO, 0.0));
        assert_eq!(prober.next(), Time::from_secs_f64(4.5));
        assert!(!prober.wake(Time::from_secs_f64(4.4), 0.5), "not yet");
        assert!(prober.wake(Time::from_secs_f64(4.5), 1.0));
        assert_eq!(prober.next(), Time::from_secs_f64(10.0));
    }
}
