use std::time::Duration;

use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::span;

/// Which part of a step is measured: without its beginning and its end. Requests outside are made as well, and
/// counted, but are in no number.
///
/// A request belongs to the window if it begins in it (is scheduled, or sent in a closed loop), so each request is
/// in or out as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Window {
    /// What is left out at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Transient>,
    /// What is left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Transient>,
}

/// A part of a step: a number below 1 is that part of its limit, other numbers are seconds or requests.
///
/// In configuration: `0.1`, `30`, `{ percent = 10 }`, `{ value = 30, mode = "requests" }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, { percent = 10 } or { value = 30, mode = \"requests\" }")]
pub enum Transient {
    /// A part, or seconds or requests, by [`PhaseMode::PreferDuration`].
    Number(f64),
    /// A part in per cent.
    Percent {
        /// 0 to 100.
        percent: f64,
        /// Of what.
        #[serde(default)]
        mode: PhaseMode,
    },
    /// Seconds or requests.
    Value {
        /// How many.
        value: f64,
        /// Of what.
        #[serde(default)]
        mode: PhaseMode,
    },
}

/// Of what a [`Transient`] is a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhaseMode {
    /// Of the duration, if the step has a limit of it, else of its requests.
    #[default]
    PreferDuration,
    /// Of the requests, if the step has a limit of them, else of its duration.
    PreferRequests,
    /// Of the duration.
    Duration,
    /// Of the requests.
    Requests,
    /// Of both: what either leaves out is left out.
    Both,
}

/// The part of a step that is measured, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// From this moment on.
    pub from: Time,
    /// Before this moment.
    pub until: Time,
    /// From the request with this number on.
    pub first: u64,
    /// Before the request with this number.
    pub last: u64,
}

/// Why a [`Window`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum WindowError {
    /// A number that means nothing.
    #[error("{name} {value} is not usable; give a number from 0 on, or percent from 0 to 100")]
    Number {
        /// Warm-up or cool-down.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// It is a part of something that has no end.
    #[error("{name} is a part of the {of}, which has no limit; limit it, or give it otherwise")]
    NoLimit {
        /// Warm-up or cool-down.
        name: &'static str,
        /// Duration or requests.
        of: &'static str,
    },
    /// Nothing is left to measure.
    #[error("warm-up and cool-down leave nothing to measure; make them shorter")]
    Nothing,
}

impl Default for Measured {
    fn default() -> Self {
        Self { from: Time::ZERO, until: Time::MAX, first: 0, last: u64::MAX }
    }
}

impl Measured {
    /// Whether request `number`, which begins at `start`, is measured.
    #[must_use]
    pub fn contains(&self, start: Time, number: u64) -> bool {
        (self.from..self.until).contains(&start) && (self.first..self.last).contains(&number)
    }
}

/// What is cut off at one end.
#[derive(Clone, Copy, Default)]
struct Cut {
    nanos: u64,
    requests: u64,
}

impl Transient {
    fn cut(self, name: &'static str, limits: &Limits) -> Result<Cut, WindowError> {
        let (value, is_part, mode) = match self {
            Self::Number(value) => (value, value < 1.0, PhaseMode::default()),
            Self::Percent { percent, mode } => (percent / 100.0, true, mode),
            Self::Value { value, mode } => (value, false, mode),
        };
        if !(0.0..1e15).contains(&value) || (is_part && value > 1.0) {
            return Err(WindowError::Number { name, value });
        }
        let of_duration = || -> Result<u64, WindowError> {
            let limit = limits.duration.map(span::nanos);
            match (limit, is_part) {
                (Some(limit), true) => Ok((limit as f64 * value) as u64),
                (None, true) => Err(WindowError::NoLimit { name, of: "duration" }),
                (_, false) => Ok((value * 1e9) as u64),
            }
        };
        let of_requests = || -> Result<u64, WindowError> {
            match (limits.requests, is_part) {
                (Some(limit), true) => Ok((limit as f64 * value) as u64),
                (None, true) => Err(WindowError::NoLimit { name, of: "requests" }),
                (_, false) => Ok(value as u64),
            }
        };
        let by_duration = match mode {
            PhaseMode::PreferDuration => limits.duration.is_some() || limits.requests.is_none(),
            PhaseMode::PreferRequests => limits.requests.is_none(),
            PhaseMode::Duration | PhaseMode::Both => true,
            PhaseMode::Requests => false,
        };
        let by_requests = !by_duration || mode == PhaseMode::Both;
        Ok(Cut {
            nanos: if by_duration { of_duration()? } else { 0 },
            requests: if by_requests { of_requests()? } else { 0 },
        })
    }
}

impl Window {
    /// The part that is measured of a step with these limits which begins at `start`.
    ///
    /// # Errors
    /// A number out of range, a part of something without a limit, or nothing left.
    pub fn measured(&self, start: Time, limits: &Limits) -> Result<Measured, WindowError> {
        let cut = |part: Option<Transient>, name| {
            part.map_or_else(|| Ok(Cut::default()), |part| part.cut(name, limits))
        };
        let warmup = cut(self.warmup, "warm-up")?;
        let cooldown = cut(self.cooldown, "cool-down")?;
        let end = match (limits.duration, cooldown.nanos) {
            (Some(span), _) => start + span,
            (None, 0) => Time::MAX,
            (None, _) => return Err(WindowError::NoLimit { name: "cool-down", of: "duration" }),
        };
        let last = match (limits.requests, cooldown.requests) {
            (Some(count), _) => count,
            (None, 0) => u64::MAX,
            (None, _) => return Err(WindowError::NoLimit { name: "cool-down", of: "requests" }),
        };
        let until = match cooldown.nanos {
            0 => Time::MAX,
            nanos => Time::from_nanos(end.as_nanos().saturating_sub(nanos)),
        };
        let measured = Measured {
            from: start.plus_nanos(warmup.nanos),
            until,
            first: warmup.requests,
            last: if cooldown.requests == 0 {
                u64::MAX
            } else {
                last.saturating_sub(cooldown.requests)
            },
        };
        let nothing =
            measured.from >= measured.until.min(end) || measured.first >= measured.last.min(last);
        if nothing { Err(WindowError::Nothing) } else { Ok(measured) }
    }

    /// A window that leaves out a time at the beginning.
    #[must_use]
    pub fn after(warmup: Duration) -> Self {
        let value = warmup.as_secs_f64();
        let warmup = Transient::Value { value, mode: PhaseMode::Duration };
        Self { warmup: Some(warmup), cooldown: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        toml::from_str(text).unwrap()
    }

    const MINUTE: Limits =
        Limits { requests: None, duration: Some(Duration::from_secs(60)), errors: None };
    const HUNDRED: Limits = Limits { requests: Some(100), duration: None, errors: None };
    const BOTH: Limits = Limits { requests: Some(100), ..MINUTE };

    fn seconds(window: &str, limits: &Limits) -> (f64, f64, u64, u64) {
        let measured = self::window(window).measured(Time::ZERO, limits).unwrap();
        let until = if measured.until == Time::MAX { 0.0 } else { measured.until.as_secs_f64() };
        let last = if measured.last == u64::MAX { 0 } else { measured.last };
        (measured.from.as_secs_f64(), until, measured.first, last)
    }

    #[test]
    fn every_mode_cuts_its_part() {
        let cases = [
            ("", MINUTE, (0.0, 0.0, 0, 0)),
            ("warmup = 0.1\ncooldown = 0.2", MINUTE, (6.0, 48.0, 0, 0)),
            ("warmup = 5\ncooldown = 10", MINUTE, (5.0, 50.0, 0, 0)),
            ("warmup = 5\ncooldown = 0.1", HUNDRED, (0.0, 0.0, 5, 90)),
            ("warmup = { percent = 10, mode = \"prefer_requests\" }", BOTH, (0.0, 0.0, 10, 0)),
            ("warmup = { percent = 10, mode = \"duration\" }", BOTH, (6.0, 0.0, 0, 0)),
            ("warmup = { value = 7, mode = \"requests\" }", MINUTE, (0.0, 0.0, 7, 0)),
            (
                "warmup = { percent = 10, mode = \"both\" }\ncooldown = { percent = 50, mode = \"both\" }",
                BOTH,
                (6.0, 30.0, 10, 50),
            ),
        ];
        for (text, limits, expected) in cases {
            assert_eq!(seconds(text, &limits), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, limits, start) in [
            ("warmup = -1", MINUTE, "warm-up -1 is not usable"),
            ("warmup = { percent = 120 }", MINUTE, "warm-up 1.2 is not usable"),
            (
                "warmup = { percent = 10, mode = \"requests\" }",
                MINUTE,
                "warm-up is a part of the requests",
            ),
            ("cooldown = 10", Limits::default(), "cool-down is a part of the duration"),
            ("warmup = 0.6\ncooldown = 0.5", MINUTE, "warm-up and cool-down leave nothing"),
            ("warmup = 100", HUNDRED, "warm-up and cool-down leave nothing"),
        ] {
            let error = window(text).measured(Time::ZERO, &limits).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn a_request_is_in_or_out_as_a_whole() {
        let text = "warmup = { percent = 10, mode = \"both\" }\ncooldown = 1";
        let measured = window(text).measured(Time::ZERO, &BOTH).unwrap();
        let at = |seconds: f64| Time::from_secs_f64(seconds);
        assert!(measured.contains(at(6.0), 10));
        assert!(!measured.contains(at(5.999), 10));
        assert!(!measured.contains(at(6.0), 9));
        assert!(!measured.contains(at(59.0), 50));
    }
}
