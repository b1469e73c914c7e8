//! Values of flags that are more than a word.

use std::time::Duration;

use gatewright_bench::Amount;
use gatewright_workload::Step;
use gatewright_workload::constraint::{PhaseMode, Transient};
use serde::de::DeserializeOwned;

/// `30s`, `1m 30s`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|fault| fault.to_string())
}

/// `NAME: VALUE`.
pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or("write \"name: value\", such as \"accept: text/plain\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `KEY=VALUE`.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write key=value, such as version=1.4")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// `RATE:DURATION`.
pub(super) fn parse_step(text: &str) -> Result<Step, String> {
    let (rate, duration) = text.split_once(':').ok_or("write rate:duration, such as 10:30s")?;
    let rate = rate.trim().parse().map_err(|_| format!("\"{rate}\" is no rate"))?;
    Ok(Step { rate, duration: parse_span(duration)? })
}

/// A name as configuration spells it.
pub(super) fn parse_named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|fault| fault.to_string())
}

/// A table as configuration spells it: `{ rate = 3 }`.
pub(super) fn parse_table<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let text = text.trim();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.ok_or("write it as a table of TOML, such as { name = \"a\", weight = 2 }")?;
    #[derive(serde::Deserialize)]
    struct Holder<T> {
        value: T,
    }
    toml::from_str::<Holder<T>>(&format!("value = {{{inner}}}"))
        .map(|holder| holder.value)
        .map_err(|fault| fault.message().to_owned())
}

/// A number, or a table of how it varies.
pub(crate) fn parse_amount(text: &str) -> Result<Amount, String> {
    match text.trim().parse() {
        Ok(count) => Ok(Amount::Fixed(count)),
        Err(_) => parse_table(text),
    }
}

/// A part of a run: `10s` (time), `10%` (of its limit) or `100` (requests); with `:MODE`, as in configuration.
pub(super) fn parse_part(text: &str) -> Result<Transient, String> {
    let (value, mode) = match text.split_once(':') {
        Some((value, mode)) => (value.trim(), Some(parse_named::<PhaseMode>(mode.trim())?)),
        None => (text.trim(), None),
    };
    if let Some(percent) = value.strip_suffix('%') {
        let percent = percent.parse().map_err(|_| format!("\"{percent}\" is no percentage"))?;
        return Ok(Transient::Percent { percent, mode: mode.unwrap_or_default() });
    }
    if let Ok(value) = value.parse() {
        return Ok(Transient::Value { value, mode: mode.unwrap_or(PhaseMode::Requests) });
    }
    let value = parse_span(value)
        .map_err(|fault| format!("{fault}; write 10s, 10% or a number of requests"))?
        .as_secs_f64();
    Ok(Transient::Value { value, mode: mode.unwrap_or(PhaseMode::Duration) })
}

#[cfg(test)]
mod tests {
    use gatewright_bench::TargetSpec;

    use super::*;

    #[test]
    fn parts_are_times_percentages_or_requests() {
        let value = |value, mode| Ok(Transient::Value { value, mode });
        assert_eq!(parse_part("10s"), value(10.0, PhaseMode::Duration));
        assert_eq!(parse_part("100"), value(100.0, PhaseMode::Requests));
        let percent = |mode| Ok(Transient::Percent { percent: 10.0, mode });
        assert_eq!(parse_part("10%"), percent(PhaseMode::PreferDuration));
        assert_eq!(parse_part("10%:both"), percent(PhaseMode::Both));
        assert!(parse_part("10%:all").is_err() && parse_part("soon").is_err());
    }

    #[test]
    fn tables_are_those_of_a_file() {
        let target: TargetSpec = parse_table("{ url = \"http://a/\", weight = 2 }").unwrap();
        assert_eq!(target, TargetSpec { weight: 2.0, ..TargetSpec::of("http://a/") });
        let unknown = parse_table::<TargetSpec>("{ uri = \"\" }").unwrap_err();
        assert!(unknown.contains("unknown field `uri`"), "{unknown}");
        assert!(parse_table::<TargetSpec>("http://a/").is_err());
    }
}
