//! What ends a step of a benchmark before its limits do, and which part of it is measured.
//!
//! A [`Constraint`] is a value in configuration; a [`Monitor`] watches a run with it. It is told what happens and
//! says when a constraint is broken, without a clock of its own.

mod backlog;
mod error_rate;
mod over_saturation;
mod window;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backlog::Backlog;
pub use error_rate::{ErrorRate, GlobalErrorRate};
pub use over_saturation::OverSaturation;
pub use window::{Measured, PhaseMode, Transient, Window, WindowError};

/// What ends a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// The rule.
    pub rule: Rule,
    /// What it ends.
    #[serde(default)]
    pub scope: Scope,
    /// Whether it only takes note.
    #[serde(default)]
    pub mode: Mode,
}

/// The rules that a [`Constraint`] may have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Ends when so many requests have been answered, well or not.
    MinRequests {
        /// How many.
        count: u64,
    },
    /// Ends when too many of the last requests failed.
    MaxErrorRate(ErrorRate),
    /// Ends when too many of all requests failed.
    MaxGlobalErrorRate(GlobalErrorRate),
    /// Ends when requests in flight and the time to the first token grow and grow.
    OverSaturation(OverSaturation),
    /// Ends when more is offered than is answered, by more than chance explains.
    Backlog(Backlog),
}

/// What a broken constraint ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The current step; the profile goes on.
    #[default]
    Current,
    /// The whole profile.
    All,
}

/// Whether a broken constraint ends anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It is only reported.
    Monitor,
}

/// A constraint that was broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Breach {
    /// Name of the rule.
    pub rule: String,
    /// What it ends.
    pub scope: Scope,
    /// Whether it ended anything.
    pub mode: Mode,
    /// When it was found, in nanoseconds since the start of the step.
    #[serde(rename = "at_ns")]
    #[schemars(with = "u64")]
    pub at: Time,
    /// Why, with its numbers.
    pub why: String,
}

/// Why a constraint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("constraint {rule}: {name} = {value} is not usable; give {wanted}")]
pub struct ConstraintError {
    /// Name of the rule.
    pub rule: &'static str,
    /// Name of its parameter.
    pub name: &'static str,
    /// What was given.
    pub value: f64,
    /// What is allowed.
    pub wanted: &'static str,
}

/// Watches one step with its constraints.
#[derive(Clone, Debug)]
pub struct Monitor {
    watches: Vec<(Constraint, Watch)>,
    breaches: Vec<Breach>,
}

#[derive(Clone, Debug)]
enum Watch {
    MinRequests { count: u64, answered: u64 },
    ErrorRate(error_rate::Recent),
    GlobalErrorRate(error_rate::All),
    OverSaturation(Box<over_saturation::Detector>),
    Backlog(backlog::Detector),
    Done,
}

impl Rule {
    /// Name of the rule, as configuration and command line spell it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MinRequests { .. } => "min_requests",
            Self::MaxErrorRate(_) => "max_error_rate",
            Self::MaxGlobalErrorRate(_) => "max_global_error_rate",
            Self::OverSaturation(_) => "over_saturation",
            Self::Backlog(_) => "backlog",
        }
    }

    fn watch(&self) -> Watch {
        match *self {
            Self::MinRequests { count } => Watch::MinRequests { count, answered: 0 },
            Self::MaxErrorRate(rule) => Watch::ErrorRate(error_rate::Recent::new(rule)),
            Self::MaxGlobalErrorRate(rule) => Watch::GlobalErrorRate(error_rate::All::new(rule)),
            Self::OverSaturation(rule) => {
                Watch::OverSaturation(Box::new(over_saturation::Detector::new(rule)))
            }
            Self::Backlog(rule) => Watch::Backlog(backlog::Detector::new(rule)),
        }
    }
}

impl Constraint {
    /// A rule that ends the current step.
    #[must_use]
    pub const fn new(rule: Rule) -> Self {
        Self { rule, scope: Scope::Current, mode: Mode::Enforce }
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn check(&self) -> Result<(), ConstraintError> {
        match &self.rule {
            Rule::MinRequests { count } => {
                check("min_requests", "count", *count as f64, 1.0, f64::MAX, "at least 1")
            }
            Rule::MaxErrorRate(rule) => rule.check(),
            Rule::MaxGlobalErrorRate(rule) => rule.check(),
            Rule::OverSaturation(rule) => rule.check(),
            Rule::Backlog(rule) => rule.check(),
        }
    }
}

pub(crate) fn check(
    rule: &'static str,
    name: &'static str,
    value: f64,
    least: f64,
    most: f64,
    wanted: &'static str,
) -> Result<(), ConstraintError> {
    let usable = (least..=most).contains(&value);
    usable.then_some(()).ok_or(ConstraintError { rule, name, value, wanted })
}

impl Monitor {
    /// A monitor at the start of a step.
    #[must_use]
    pub fn new(constraints: &[Constraint]) -> Self {
        let watch = |constraint: &Constraint| (*constraint, constraint.rule.watch());
        Self { watches: constraints.iter().map(watch).collect(), breaches: Vec::new() }
    }

    /// Whether it wants to be told of each request, rather than of their numbers alone.
    #[must_use]
    pub fn wants_requests(&self) -> bool {
        self.watches.iter().any(|(_, watch)| !matches!(watch, Watch::Backlog(_) | Watch::Done))
    }

    /// A request was sent at `now`; `in_flight` are now, itself included.
    pub fn sent(&mut self, now: Time, in_flight: u64) {
        for (_, watch) in &mut self.watches {
            if let Watch::OverSaturation(detector) = watch {
                detector.sent(now, in_flight);
            }
        }
    }

    /// A request has ended at `now`. `ttft`: its time to the first token in nanoseconds, if it was streamed.
    pub fn ended(&mut self, now: Time, ok: bool, ttft: Option<u64>) {
        for (_, watch) in &mut self.watches {
            match watch {
                Watch::MinRequests { answered, .. } => *answered += 1,
                Watch::ErrorRate(recent) => recent.ended(ok),
                Watch::GlobalErrorRate(all) => all.ended(ok),
                Watch::OverSaturation(detector) => detector.ended(now, ttft),
                Watch::Backlog(_) | Watch::Done => {}
            }
        }
    }

    /// How things stand at `now`: requests that were due so far, that have ended so far, and how long those
    /// that ended took in the mean, in nanoseconds. To be called several times a second.
    pub fn tick(&mut self, now: Time, offered: u64, ended: u64, mean_response: Option<f64>) {
        for (_, watch) in &mut self.watches {
            if let Watch::Backlog(detector) = watch {
                detector.tick(now, offered, ended, mean_response);
            }
        }
    }

    /// Whether a constraint ends the step now. Those that only take note are found in
    /// [`Monitor::breaches`].
    pub fn check(&mut self, now: Time) -> Option<&Breach> {
        for (constraint, watch) in &mut self.watches {
            let why = match watch {
                Watch::MinRequests { count, answered } => (*answered >= *count)
                    .then(|| format!("{answered} requests were answered, {count} are wanted")),
                Watch::ErrorRate(recent) => recent.why(),
                Watch::GlobalErrorRate(all) => all.why(),
                Watch::OverSaturation(detector) => detector.why(now),
                Watch::Backlog(detector) => detector.why(),
                Watch::Done => None,
            };
            let Some(why) = why else { continue };
            *watch = Watch::Done;
            let rule = constraint.rule.name().to_owned();
            let (scope, mode) = (constraint.scope, constraint.mode);
            self.breaches.push(Breach { rule, scope, mode, at: now, why });
            if mode == Mode::Enforce {
                return self.breaches.last();
            }
        }
        None
    }

    /// What was broken so far, the first one first.
    #[must_use]
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_takes_note_or_ends() {
        let rule = Rule::MinRequests { count: 2 };
        let noted = Constraint { mode: Mode::Monitor, scope: Scope::All, ..Constraint::new(rule) };
        let ends = Constraint::new(Rule::MinRequests { count: 3 });
        let mut monitor = Monitor::new(&[noted, ends]);
        assert!(monitor.wants_requests());
        for _ in 0..2 {
            monitor.ended(Time::ZERO, true, None);
            assert_eq!(monitor.check(Time::ZERO), None);
        }
        monitor.ended(Time::ZERO, false, None);
        let breach = monitor.check(Time::from_nanos(7)).unwrap();
        assert_eq!(
            (&*breach.rule, breach.scope, breach.at),
            ("min_requests", Scope::Current, Time::from_nanos(7))
        );
        assert_eq!(monitor.breaches().len(), 2);
        assert_eq!(monitor.breaches()[0].scope, Scope::All);
    }

    #[test]
    fn constraints_are_written_in_words() {
        let text = "scope = \"all\"\n[rule.max_error_rate]\nrate = 0.1";
        let constraint: Constraint = toml::from_str(text).unwrap();
        assert_eq!(constraint.rule, Rule::MaxErrorRate(ErrorRate { rate: 0.1, window: 30 }));
        assert_eq!((constraint.scope, constraint.mode), (Scope::All, Mode::Enforce));
        assert_eq!(constraint.check(), Ok(()));
        let again = toml::from_str(&toml::to_string(&constraint).unwrap()).unwrap();
        assert_eq!(constraint, again);
        let text = "rule.over_saturation = {}";
        let constraint: Constraint = toml::from_str(text).unwrap();
        assert_eq!(constraint.rule, Rule::OverSaturation(OverSaturation::default()));
        let bad = Constraint::new(Rule::MaxErrorRate(ErrorRate { rate: 1.5, window: 30 }));
        let message = bad.check().unwrap_err().to_string();
        assert_eq!(
            message,
            "constraint max_error_rate: rate = 1.5 is not usable; give more than 0 and less than 1"
        );
        assert!(toml::from_str::<Constraint>("rule.max_errors = {}").is_err());
    }
}
