use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a run stops offering requests: at the first of these that is reached. Those in flight are still
/// awaited. Without any limit it goes on until it is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests offered at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
    /// Time during which requests are offered, such as `"30s"` or `"10m"`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::span")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Duration>,
    /// Requests that may fail; the run stops when this many did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub errors: Option<u64>,
}

/// Why [`Limits`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit {name} is zero, so nothing would be sent; give more, or leave it out")]
pub struct LimitsError {
    /// Name of the limit.
    pub name: &'static str,
}

impl Limits {
    /// Whether every limit that is set leaves something to do.
    ///
    /// # Errors
    /// A limit of zero.
    pub fn check(&self) -> Result<(), LimitsError> {
        let zero = [
            ("requests", self.requests == Some(0)),
            ("duration", self.duration == Some(Duration::ZERO)),
            ("errors", self.errors == Some(0)),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(LimitsError { name }),
            None => Ok(()),
        }
    }

    /// Whether the limits end a run by themselves, whatever the server does: errors alone do not.
    #[must_use]
    pub const fn are_finite(&self) -> bool {
        self.requests.is_some() || self.duration.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_read_and_written_in_words() {
        let limits: Limits = toml::from_str("requests = 10\nduration = \"1m 30s\"").unwrap();
        let expected =
            Limits { requests: Some(10), duration: Some(Duration::from_secs(90)), errors: None };
        assert_eq!(limits, expected);
        assert_eq!(toml::to_string(&limits).unwrap(), "requests = 10\nduration = \"1m 30s\"\n");
        assert_eq!(toml::from_str::<Limits>("").unwrap(), Limits::default());
    }

    #[test]
    fn refuse_what_they_do_not_know() {
        for text in ["duration = 30", "duration = \"soon\"", "request = 1", "requests = -1"] {
            assert!(toml::from_str::<Limits>(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn of_zero_are_refused() {
        let limits = Limits { errors: Some(0), ..Limits::default() };
        assert_eq!(limits.check(), Err(LimitsError { name: "errors" }));
        let limits = Limits { duration: Some(Duration::ZERO), ..Limits::default() };
        assert_eq!(limits.check(), Err(LimitsError { name: "duration" }));
        assert_eq!(Limits::default().check(), Ok(()));
        assert!(!Limits { errors: Some(1), ..Limits::default() }.are_finite());
    }
}
