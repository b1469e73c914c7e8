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

/// Reads any file of settings with overrides applied in order; what the types alone do not hold is the caller's to
/// check.
///
/// # Errors
/// The first thing wrong: syntax, an unknown key, a wrong type, an override that leads nowhere.
pub fn read_with<T: DeserializeOwned>(
    text: &str,
    overrides: &[Override],
) -> Result<T, ConfigError> {
    let mut table: toml::Table =
        toml::from_str(text).map_err(|fault| ConfigError::from_toml(text, &fault))?;
    let plain = table.clone();
    for change in overrides {
        apply(&mut table, change)?;
    }
    // Together: two keys of a table may only make sense with one another.
    T::deserialize(table).map_err(|fault| at_fault::<T>(text, plain, overrides, &fault))
}

/// Names the first override that `fault` comes with, if it comes with one.
fn at_fault<T: DeserializeOwned>(
    text: &str,
    mut table: toml::Table,
    overrides: &[Override],
    fault: &toml::de::Error,
) -> ConfigError {
    let mut error = ConfigError::from_toml(text, fault);
    let same = |table: &toml::Table| {
        T::deserialize(table.clone()).err().is_some_and(|one| one.message() == fault.message())
    };
    if same(&table) {
        return error;
    }
    for change in overrides {
        if apply(&mut table, change).is_ok() && same(&table) {
            error.position = None;
            error.at = Some(format!("{} `{}`", change.source, change.key));
            break;
        }
    }
    error
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
    let mut place = Place::Table(table);
    for part in parts {
        place = match place.enter(part) {
            Ok(inner) => inner,
            Err(what) => return fault(&what),
        };
    }
    place.put(last, change.value.clone()).or_else(|what| fault(&what))
}

/// Where a part of a key leads: into a table by name, or into a list by number from 0 (`route.0.cache.ttl`).
enum Place<'a> {
    Table(&'a mut toml::Table),
    List(&'a mut Vec<toml::Value>),
}

impl<'a> Place<'a> {
    fn enter(self, part: &str) -> Result<Self, String> {
        let value = match self {
            Self::Table(table) => {
                table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()))
            }
            Self::List(list) => item(list, part)?,
        };
        match value {
            toml::Value::Table(table) => Ok(Self::Table(table)),
            toml::Value::Array(list) => Ok(Self::List(list)),
            _ => Err(format!("`{part}` is no table")),
        }
    }

    fn put(self, part: &str, value: toml::Value) -> Result<(), String> {
        match self {
            Self::Table(table) => drop(table.insert(part.to_owned(), value)),
            Self::List(list) => *item(list, part)? = value,
        }
        Ok(())
    }
}

fn item<'a>(list: &'a mut [toml::Value], part: &str) -> Result<&'a mut toml::Value, String> {
    let length = list.len();
    let place = part.parse().ok().and_then(|index: usize| list.get_mut(index));
    place.ok_or_else(|| format!("`{part}` is no place in a list of {length}, counted from 0"))
}
