//! How replicas and upstreams fail at requests, beyond answering with an error.

use gatewright_control::config::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection is refused: at once, and nothing was begun.
    Refused,
    /// The answer breaks off somewhere on its way, or is 502, 503 or 504.
    Unavailable,
    /// There are too many requests (429), at once.
    Busy,
    /// There is never an answer: it ends when somebody stops waiting for it.
    Hangs,
}

/// Shares of the attempts that fail at random, each by its own luck.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// See [`Fault::Refused`].
    pub refused: f64,
    /// See [`Fault::Unavailable`].
    pub unavailable: f64,
    /// See [`Fault::Busy`].
    pub busy: f64,
    /// See [`Fault::Hangs`].
    pub hangs: f64,
    /// Whether an attempt may be made again after the function may have begun its work, as with GET.
    pub repeatable: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { refused: 0.0, unavailable: 0.0, busy: 0.0, hangs: 0.0, repeatable: true }
    }
}

/// A time in which every attempt fails that is handed to some replicas, and every check of their health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// When it begins.
    pub at: HumanDuration,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub span: HumanDuration,
    /// How many replicas it hits, the oldest ones; all, those that start meanwhile too, unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How attempts fail.
    pub fault: Fault,
}

impl Outage {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// It lasts no time, or hits nothing.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.span.get().is_zero() {
            return Err("`for` must be above 0");
        }
        if self.replicas == Some(0) { Err("`replicas` must be at least 1") } else { Ok(()) }
    }
}

impl Faults {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// A share outside 0 to 1, or all of them together above 1.
    pub fn check(&self) -> Result<(), String> {
        let shares = [self.refused, self.unavailable, self.busy, self.hangs];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err("shares must be 0 to 1".to_owned());
        }
        let all: f64 = shares.iter().sum();
        if all > 1.0 { Err(format!("the shares add up to {all}, above 1")) } else { Ok(()) }
    }

    /// The fault of an attempt whose luck is `unit`, from 0 to 1.
    pub(crate) fn of(&self, unit: f64) -> Option<Fault> {
        let mut below = 0.0;
        let shares = [
            (self.refused, Fault::Refused),
            (self.unavailable, Fault::Unavailable),
            (self.busy, Fault::Busy),
            (self.hangs, Fault::Hangs),
        ];
        shares.into_iter().find_map(|(share, fault)| {
            below += share;
            (unit < below).then_some(fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_share() {
        let faults =
            Faults { refused: 0.2, unavailable: 0.3, busy: 0.1, hangs: 0.1, ..Faults::default() };
        let at = [0.0, 0.19, 0.21, 0.49, 0.51, 0.61, 0.69].map(|unit| faults.of(unit));
        let expected = [
            Fault::Refused,
            Fault::Refused,
            Fault::Unavailable,
            Fault::Unavailable,
            Fault::Busy,
            Fault::Hangs,
            Fault::Hangs,
        ];
        assert_eq!(at, expected.map(Some));
        assert_eq!([0.71, 0.99].map(|unit| faults.of(unit)), [None, None]);
    }
}
