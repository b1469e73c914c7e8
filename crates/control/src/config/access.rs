//! Who may ask, and who is believed about who asks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Function, Route, SystemFile, nearest};
use crate::forwarded::Network;

/// An API key. Its secret never stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Where its secret is: "env:NAME" is a variable of the gateway's environment, "file:PATH" a file, from the folder
    /// of the system file.
    pub secret: String,
}

/// Where a secret is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretPlace<'a> {
    /// In this variable of the environment.
    Variable(&'a str),
    /// In this file.
    File(&'a str),
}

/// Which fields of a trusted proxy say where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyFields {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Which fields tell an upstream where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentFields {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both of them.
    Both,
    /// None.
    None,
}

/// Most keys of a file.
const KEYS: usize = 1_000;

impl ApiKey {
    /// Where its secret is, if that can be said.
    #[must_use]
    pub fn place(&self) -> Option<SecretPlace<'_>> {
        let (kind, at) = self.secret.split_once(':')?;
        match kind {
            _ if at.trim().is_empty() => None,
            "env" => Some(SecretPlace::Variable(at.trim())),
            "file" => Some(SecretPlace::File(at.trim())),
            _ => None,
        }
    }
}

impl SystemFile {
    /// Names of the keys of which a request to a function must present one, over a route or by the function's name.
    /// Nothing if anybody may ask.
    #[must_use]
    pub fn keys_for<'a>(
        &'a self,
        function: &'a Function,
        route: Option<&'a Route>,
    ) -> Option<&'a [String]> {
        let own = route.and_then(|route| route.keys.as_ref());
        let names = own.or(function.keys.as_ref()).or(self.gateway.keys.as_ref())?;
        (!names.is_empty()).then_some(names)
    }

    pub(super) fn check_access(&self) -> Result<(), ConfigError> {
        for entry in &self.gateway.trusted_proxies {
            if Network::parse(entry).is_none() {
                let what =
                    format!("`{entry}` is neither an address nor a network like \"10.0.0.0/8\"");
                return Err(ConfigError::new("gateway.trusted_proxies", &what, None));
            }
        }
        if self.key.len() > KEYS {
            let what = format!("there are {} keys: at most {KEYS}", self.key.len());
            return Err(ConfigError::new("key", &what, None));
        }
        for (name, key) in &self.key {
            let at = || format!("key `{name}`");
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
                let what = "its name must be 1 to 63 letters, digits, `-`, `_` or `.`";
                return Err(ConfigError::new(at(), what, None));
            }
            if key.place().is_none() {
                // What stands there may be the secret itself: it is not repeated.
                let what = "`secret` must say where the secret is, not what it is";
                let hint = Some(format!(
                    "write secret = \"env:{}\" or \"file:{name}.key\"",
                    variable(name)
                ));
                return Err(ConfigError::new(at(), what, hint));
            }
        }
        check_names(&self.key, "gateway", self.gateway.keys.as_deref())?;
        for (name, function) in &self.function {
            check_names(&self.key, &format!("function `{name}`"), function.keys.as_deref())?;
        }
        self.routes.iter().try_for_each(|route| self.check_keys_of(route))
    }

    fn check_keys_of(&self, route: &Route) -> Result<(), ConfigError> {
        let at = format!("route `{}`", route.path);
        check_names(&self.key, &at, route.keys.as_deref())?;
        let (name, _) = route.target();
        let Some(function) = self.function.get(name) else { return Ok(()) };
        let closed = route.keys.as_ref().is_some_and(|keys| !keys.is_empty());
        if closed && self.keys_for(function, None).is_none() {
            let what =
                format!("it asks for a key, but `/function/{name}` leads to the same without one");
            let hint = Some(format!("give function `{name}` the key `keys`, or [gateway]"));
            return Err(ConfigError::new(at, &what, hint));
        }
        Ok(())
    }
}

/// What a variable with a key of this name could be called.
fn variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_KEY", name.chars().map(plain).collect::<String>())
}

fn check_names(
    known: &BTreeMap<String, ApiKey>,
    at: &str,
    names: Option<&[String]>,
) -> Result<(), ConfigError> {
    for name in names.unwrap_or_default() {
        if name != "*" && !known.contains_key(name) {
            let hint = nearest(name, known.keys().map(String::as_str))
                .or_else(|| Some(format!("add [key.{name}]")));
            return Err(ConfigError::new(at, &format!("keys: there is no key `{name}`"), hint));
        }
        if name == "*" && known.is_empty() {
            let hint = Some("add [key.NAME]".to_owned());
            return Err(ConfigError::new(at, "keys: there are no keys at all", hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "[key.one]\nsecret = \"env:ONE\"\n[function.f]\nhttp = \"http://a\"\n";

    fn read(text: &str) -> Result<SystemFile, String> {
        SystemFile::parse(text, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_never_in_the_file() {
        let place = |secret: &str| read(&format!("[key.k]\nsecret = \"{secret}\"\n"));
        let file = place("file:a/b").unwrap();
        assert_eq!(file.key["k"].place(), Some(SecretPlace::File("a/b")));
        assert_eq!(place("env:K").unwrap().key["k"].place(), Some(SecretPlace::Variable("K")));
        for wrong in ["hunter2", "env:", "file: ", "vault:x"] {
            let error = place(wrong).unwrap_err();
            assert!(error.contains("not what it is") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_nearest_table_says_which_keys_are_asked_for() {
        let keys = |gateway: &str, function: &str, route: &str| {
            let text = format!(
                "[gateway]\n{gateway}\n[key.one]\nsecret = \"env:ONE\"\n[key.two]\nsecret = \"env:TWO\"\n\
                 [function.f]\nhttp = \"http://a\"\n{function}\n[[route]]\npath = \"/r\"\nto = \"f\"\n{route}\n"
            );
            let file = read(&text)?;
            let found = file.keys_for(&file.function["f"], file.routes.first());
            Ok::<_, String>(found.map(<[String]>::to_vec).unwrap_or_default())
        };
        assert_eq!(keys("", "", "").unwrap(), [""; 0]);
        assert_eq!(keys("keys = [\"*\"]", "", "").unwrap(), ["*"]);
        assert_eq!(keys("keys = [\"*\"]", "keys = [\"one\"]", "").unwrap(), ["one"]);
        assert_eq!(keys("keys = [\"one\"]", "", "keys = [\"two\"]").unwrap(), ["two"]);
        assert_eq!(keys("keys = [\"one\"]", "", "keys = []").unwrap(), [""; 0]);
        assert!(keys("", "", "keys = [\"one\"]").unwrap_err().contains("/function/f"));
        assert!(keys("", "keys = []", "keys = [\"one\"]").unwrap_err().contains("/function/f"));
        assert!(keys("keys = [\"three\"]", "", "").unwrap_err().contains("no key `three`"));
    }

    #[test]
    fn proxies_are_networks() {
        let read = |list: &str| read(&format!("[gateway]\ntrusted_proxies = [{list}]\n{BEGIN}"));
        assert!(read("\"10.0.0.0/8\", \"::1\"").is_ok());
        assert!(read("\"10.0.0.0/99\"").unwrap_err().contains("trusted_proxies"));
    }
}
