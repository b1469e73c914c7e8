//! Whether an upstream is given requests: what its answers say (a circuit breaker, ejection of outliers), and what
//! asking it says (active checks).
//!
//! Each rule is a state machine of its own, told of results and of time; [`Health`] holds those of one replica and
//! says what they come to. Which share of a function's upstreams may be ejected at a time is decided in `system`,
//! which knows all of them.

mod active;
mod breaker;
mod outlier;

use std::time::Duration;

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

pub use active::{ActiveCheck, Prober};
pub use breaker::{Breaker, BreakerRules};
pub use outlier::{EjectRules, Outlier, success_rate_threshold};

/// The rules of a function; none holds unless set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthRules {
    /// Stops requests to an upstream that fails, and tries it again with a few.
    pub breaker: Option<BreakerRules>,
    /// Leaves out an upstream that does worse than the others.
    pub eject: Option<EjectRules>,
    /// Asks upstreams how they are.
    pub check: Option<ActiveCheck>,
}

/// What the end of an attempt says of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should, or with an error that is the client's.
    Good,
    /// It answered with an error of its own (500, 501, ...).
    Error,
    /// It is not there: no connection, an answer that broke off or did not come in time, 502, 503 or 504.
    Gone,
}

impl Verdict {
    /// Whether it speaks for the upstream.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Good)
    }
}

/// Whether a replica is given requests, and why not.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is given its share.
    #[default]
    Healthy,
    /// Its breaker lets a few through, to see whether it is back.
    HalfOpen,
    /// Its breaker is open.
    Open,
    /// It did worse than the others.
    Ejected,
    /// It did not answer its checks.
    Unhealthy,
}

/// What is known of one replica's health.
#[derive(Debug, Default)]
pub struct Health {
    /// Its breaker, if there is one.
    pub breaker: Option<Breaker>,
    /// Its record beside the others', if outliers are ejected.
    pub outlier: Option<Outlier>,
    /// Its checks, if there are any.
    pub prober: Option<Prober>,
}

impl Health {
    /// A replica that nothing is known of yet; `None` if there are no rules.
    #[must_use]
    pub fn new(rules: &HealthRules, now: Time) -> Option<Self> {
        if *rules == HealthRules::default() {
            return None;
        }
        Some(Self {
            breaker: rules.breaker.map(Breaker::new),
            outlier: rules.eject.map(Outlier::new),
            prober: rules.check.clone().map(|check| Prober::new(check, now)),
        })
    }

    /// Whether it is given requests.
    #[must_use]
    pub fn condition(&self) -> Condition {
        if self.prober.as_ref().is_some_and(|prober| !prober.is_healthy()) {
            return Condition::Unhealthy;
        }
        if self.outlier.as_ref().is_some_and(Outlier::is_ejected) {
            return Condition::Ejected;
        }
        self.breaker.as_ref().map_or(Condition::Healthy, Breaker::condition)
    }

    /// Requests that it may be given beside those that it has.
    #[must_use]
    pub fn allowance(&self) -> u32 {
        match self.condition() {
            Condition::Healthy => u32::MAX,
            Condition::HalfOpen => self.breaker.as_ref().map_or(u32::MAX, Breaker::probes),
            Condition::Open | Condition::Ejected | Condition::Unhealthy => 0,
        }
    }

    /// When [`Health::wake`] is due next.
    #[must_use]
    pub fn next(&self) -> Time {
        let breaker = self.breaker.as_ref().map_or(Time::MAX, Breaker::next);
        let outlier = self.outlier.as_ref().map_or(Time::MAX, Outlier::next);
        let prober = self.prober.as_ref().map_or(Time::MAX, Prober::next);
        breaker.min(outlier).min(prober)
    }

    /// Time has passed. Whether the replica is to be asked how it is; `jitter` is in [0, 1).
    pub fn wake(&mut self, now: Time, jitter: f64) -> bool {
        if let Some(breaker) = &mut self.breaker {
            breaker.wake(now);
        }
        if let Some(outlier) = &mut self.outlier {
            outlier.wake(now);
        }
        self.prober.as_mut().is_some_and(|prober| prober.wake(now, jitter))
    }

    /// How long until something may be better, if it is not good now.
    #[must_use]
    pub fn back_in(&self, now: Time) -> Option<Duration> {
        (self.condition() != Condition::Healthy && self.next() < Time::MAX)
            .then(|| self.next() - now)
    }
}
