//! How often requests may be made, and by whom.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::HumanDuration;
use crate::limit::Limiter;

/// How often each client may ask. A request beyond it is answered with 429 and `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in each `every`: 1 to 1000000000. They come evenly, apart from a `burst`.
    pub requests: u64,
    /// A second unless set; at most 30 days.
    #[serde(default = "one_second")]
    pub every: HumanDuration,
    /// Requests that a client which has not asked for a while may make at once. As many as `requests` unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// What tells clients apart: "address" (of IPv6, its first 64 bits), "key" (the name of the API key), "all" for a
    /// limit that all clients share, or "header:NAME". A request without the key or the header counts by its address.
    #[serde(default)]
    pub by: LimitBy,
    /// Clients that are told apart at a time, 16 bytes of memory each. More than that, and new ones share what is
    /// left to others.
    #[serde(default = "many_clients")]
    pub clients: u32,
}

/// What tells clients apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LimitBy {
    /// Their address.
    #[default]
    Address,
    /// The name of their API key.
    Key,
    /// Nothing.
    All,
    /// What this header says; its name is in lower case.
    Header(String),
}

const fn one_second() -> HumanDuration {
    HumanDuration::from_secs(1)
}

const fn many_clients() -> u32 {
    65_536
}

impl RateLimit {
    /// Requests that may be made at once.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst.unwrap_or(self.requests)
    }

    /// The limit, which nobody has used yet.
    #[must_use]
    pub fn limiter(&self) -> Limiter {
        let clients = if self.by == LimitBy::All { 1 } else { self.clients as usize };
        Limiter::new(self.requests, self.every.get(), self.burst(), clients)
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let month = Duration::from_secs(30 * 86_400);
        let rules = [
            ((1..=1_000_000_000).contains(&self.requests), "requests must be 1 to 1000000000"),
            (
                !self.every.get().is_zero() && self.every.get() <= month,
                "every must be above 0, at most 30 days",
            ),
            ((1..=1_000_000_000).contains(&self.burst()), "burst must be 1 to 1000000000"),
            ((1..=16_777_216).contains(&self.clients), "clients must be 1 to 16777216"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
    }
}

impl Serialize for LimitBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address => serializer.serialize_str("address"),
            Self::Key => serializer.serialize_str("key"),
            Self::All => serializer.serialize_str("all"),
            Self::Header(name) => serializer.collect_str(&format_args!("header:{name}")),
        }
    }
}

impl<'de> Deserialize<'de> for LimitBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        match &*text {
            "address" => Ok(Self::Address),
            "key" => Ok(Self::Key),
            "all" => Ok(Self::All),
            other => {
                let name =
                    other.strip_prefix("header:").map(str::trim).filter(|name| is_name(name));
                let name = name.ok_or_else(|| {
                    de::Error::custom(format!(
                        "`{other}` is none of \"address\", \"key\", \"all\", \"header:NAME\""
                    ))
                })?;
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(fits)
}

impl JsonSchema for LimitBy {
    fn schema_name() -> Cow<'static, str> {
        "LimitBy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(address|key|all|header:[A-Za-z0-9_-]+)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemFile;
    use super::*;

    fn read(limit: &str) -> Result<RateLimit, String> {
        let text = format!("[function.f]\nhttp = \"http://a\"\nlimit = {limit}\n");
        let file = SystemFile::parse(&text, &[]).map_err(|error| error.to_string())?;
        Ok(file.function["f"].limit.clone().unwrap())
    }

    #[test]
    fn a_limit_is_read_and_written_as_it_was() {
        let limit = read("{ requests = 5 }").unwrap();
        assert_eq!(
            (limit.burst(), limit.every.get(), &limit.by),
            (5, Duration::from_secs(1), &LimitBy::Address)
        );
        let limit = read("{ requests = 100, every = \"1m\", burst = 3, by = \"header:X-Tenant\" }")
            .unwrap();
        assert_eq!((limit.burst(), &limit.by), (3, &LimitBy::Header("x-tenant".to_owned())));
        let json = serde_json::to_value(&limit).unwrap();
        assert_eq!(json["by"], "header:x-tenant");
        assert_eq!(serde_json::from_value::<RateLimit>(json).unwrap(), limit);
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for (limit, wrong) in [
            ("{ requests = 0 }", "requests"),
            ("{ requests = 1, every = \"0s\" }", "every"),
            ("{ requests = 1, burst = 0 }", "burst"),
            ("{ requests = 1, clients = 0 }", "clients"),
            ("{ requests = 1, by = \"cookie\" }", "header:NAME"),
            ("{ requests = 1, by = \"header:a b\" }", "header:NAME"),
            ("{ every = \"1s\" }", "requests"),
        ] {
            let error = read(limit).unwrap_err();
            assert!(error.contains(wrong), "{limit}: {error}");
        }
    }
}
