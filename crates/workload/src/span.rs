//! A span of time in words (`"10m"`, `"1h 30m"`) for serde.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(
    span: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => serializer.collect_str(&humantime::format_duration(*span)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let span = humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!(
            "\"{text}\" is not a span of time ({error}); write for example \"30s\" or \"10m\""
        ))
    })?;
    Ok(Some(span))
}
