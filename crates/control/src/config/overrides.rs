use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::ConfigError;

/// One key of a file and the value it gets instead: `function.square.replicas.max=16`.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The key, its parts joined by dots.
    pub key: String,
    /// The value.
    pub value: toml::Value,
    /// Who says so, for messages: `--set`, the name of an environment variable, `[change]`.
    pub source: String,
}

impl Override {
    /// Reads `value` as TOML; what is no TOML is text, so that quotes are not needed.
    #[must_use]
    pub fn new(key: impl Into<String>, value: &str, source: impl Into<String>) -> Self {
        let parsed = toml::Value::from_str(value);
        let value = parsed.unwrap_or_else(|_| toml::Value::String(value.to_owned()));
        Self { key: key.into(), value, source: source.into() }
    }
}

/// Reads `text` with the overrides applied in order.
pub(super) fn read_with<T: DeserializeOwned>(
    text: &str,
    overrides: &[Override],
) -> Result<T, ConfigError> {
    let mut table: toml::Table =
        toml::from_str(text).map_err(|fault| ConfigError::from_toml(text, &fault))?;
    for change in overrides {
        apply(&mut table, change)?;
        // One at a time, so that the one at fault can be named.
        T::deserialize(table.clone()).map_err(|fault| {
            let mut error = ConfigError::from_toml(text, &fault);
            error.position = None;
            error.at = Some(format!("{} `{}`", change.source, change.key));
            error
        })?;
    }
    T::deserialize(table).map_err(|fault| ConfigError::from_toml(text, &fault))
}

fn apply(table: &mut toml::Table, change: &Override) -> Result<(), ConfigError> {
    let fault = |what: &str| {
        Err(ConfigError::new(format!("{} `{}`", change.source, change.key), what, None))
    };
    let mut parts: Vec<&str> = change.key.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return fault("is no key like `gateway.listen`");
    }
    let Some(last) = parts.pop() else { return fault("is empty") };
    let mut place = table;
    for part in parts {
        let entry = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(inner) = entry else {
            return fault(&format!("`{part}` is no table"));
        };
        place = inner;
    }
    place.insert(last.to_owned(), change.value.clone());
    Ok(())
}
