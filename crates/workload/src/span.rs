//! A span of time in words (`"10m"`, `"1h 30m"`) for serde.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes a span, if there is one.
///
/// # Errors
/// Those of the format.
pub fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => required::serialize(span, serializer),
        None => serializer.serialize_none(),
    }
}

/// Reads a span, if there is one.
///
/// # Errors
/// Those of the format, and text that is no span of time.
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    parse(&text).map(Some)
}

fn parse<E: serde::de::Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text).map_err(|error| {
        E::custom(format!(
            "\"{text}\" is not a span of time ({error}); write for example \"30s\" or \"10m\""
        ))
    })
}

/// The same for a span that must be there.
pub mod required {
    use super::{Deserializer, Duration, Serializer, parse};
    use serde::Deserialize as _;

    /// Writes a span.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*span))
    }

    /// Reads a span.
    ///
    /// # Errors
    /// Those of the format, and text that is no span of time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }
}

/// Whole nanoseconds; the longest span is u64::MAX of them.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
