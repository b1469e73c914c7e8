//! What the operator of a route says about its cache.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::fields::lower_token;
use super::freshness::has_ttl;
use crate::config::HumanDuration;

/// How responses of a route are stored and used. Whatever is not set follows the response itself (RFC 9111).
///
/// Nothing here makes a response storable that says `no-store` or `private`, nor serves one that says
/// `no-cache`, or a stale one that says `must-revalidate` or `proxy-revalidate`, without asking its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CachePolicy {
    /// How long a successful or redirecting response is fresh after it was received, whatever it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
    /// How long one is fresh that says nothing about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<HumanDuration>,
    /// How long an error is fresh, by status: `{ 404 = "10s", 5xx = "1s" }`. Whatever it says itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub negative_ttl: BTreeMap<StatusPattern, HumanDuration>,
    /// Longest freshness guessed from `Last-Modified` (a tenth of the time since then) for a response that says
    /// nothing about it. No guessing unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heuristic: Option<HumanDuration>,
    /// How long a stale response is served while it is asked for anew, unless the response says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<HumanDuration>,
    /// How long a stale response is served when the upstream fails, unless the response says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<HumanDuration>,
    /// How long a stale response with a validator is kept, in order to be validated.
    pub keep: HumanDuration,
    /// How long it is remembered that a URL's responses cannot be stored, so that its requests do not wait for
    /// one another.
    pub remember_uncacheable: HumanDuration,
    /// Whether a client's `Cache-Control` and `Pragma` count. If not, a client cannot force a request upstream.
    pub client_directives: bool,
    /// What to do with `Set-Cookie`.
    pub set_cookie: SetCookie,
    /// Fields that speak to this cache, best first; the first well-formed one replaces `Cache-Control` and
    /// `Expires` (RFC 9213).
    pub targeted: Vec<String>,
    /// What makes two requests the same.
    pub key: KeyRules,
    /// Tags of every stored response of the route, to purge them by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Response fields with further tags, separated by spaces or commas.
    pub tag_fields: Vec<String>,
}

/// What makes two requests the same, beside scheme, host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyRules {
    /// Which query parameters count.
    pub query: QueryParts,
    /// Whether the order of query parameters does not count. Parameters of one name keep theirs.
    pub sort_query: bool,
    /// Names of request headers that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// Which query parameters count. A name may end in `*`, which stands for any rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryParts {
    /// All of them.
    #[default]
    All,
    /// None of them.
    None,
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// What to do with a response that sets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// Store it whole if it says itself how long it is fresh (RFC 9111 section 7.3); not at all if only the
    /// operator says so.
    #[default]
    Keep,
    /// Store it without the cookie.
    Strip,
    /// Do not store it.
    Refuse,
}

/// A status code, "404", or a class of them, "5xx".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusPattern {
    /// Codes of this hundred: 4 or 5.
    Class(u8),
    /// This code: 400 to 599.
    Code(u16),
}

/// A cache policy that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A header's name that is none.
    #[error("`{0}` is no header name: use letters, digits and dashes, like \"x-tenant\"")]
    HeaderName(String),
    /// More than is sensible of something.
    #[error("{what} has {count} entries: at most {LIST_MAX}")]
    TooMany {
        /// The key.
        what: &'static str,
        /// Entries given.
        count: usize,
    },
}

/// Most entries of any list of a policy.
const LIST_MAX: usize = 64;

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            ttl: None,
            default_ttl: None,
            negative_ttl: BTreeMap::new(),
            heuristic: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            keep: HumanDuration::from_secs(3_600),
            remember_uncacheable: HumanDuration::from_secs(120),
            client_directives: true,
            set_cookie: SetCookie::default(),
            targeted: vec!["cdn-cache-control".to_owned()],
            key: KeyRules::default(),
            tags: Vec::new(),
            tag_fields: vec!["cache-tag".to_owned(), "surrogate-key".to_owned()],
        }
    }
}

impl CachePolicy {
    /// Checks names and numbers of entries, and puts header names in lower case.
    ///
    /// # Errors
    /// A header name that is none, or a list that is too long.
    pub fn checked(mut self) -> Result<Self, PolicyError> {
        for (what, names) in [
            ("targeted", &mut self.targeted),
            ("tag_fields", &mut self.tag_fields),
            ("key.headers", &mut self.key.headers),
        ] {
            bounded(what, names.len())?;
            for name in names {
                *name = lower_token(name.as_bytes())
                    .ok_or_else(|| PolicyError::HeaderName(name.clone()))?;
            }
        }
        bounded("tags", self.tags.len())?;
        bounded("negative_ttl", self.negative_ttl.len())?;
        if let QueryParts::Only(names) | QueryParts::Except(names) = &self.key.query {
            bounded("key.query", names.len())?;
        }
        Ok(self)
    }

    /// The lifetime that the operator set for responses of this status.
    pub(super) fn ttl_of(&self, status: u16) -> Option<Duration> {
        let set = match status {
            _ if has_ttl(status) => self.ttl.as_ref(),
            400..=599 => self
                .negative_ttl
                .get(&StatusPattern::Code(status))
                .or_else(|| self.negative_ttl.get(&StatusPattern::Class((status / 100) as u8))),
            _ => None,
        };
        set.map(|ttl| ttl.get())
    }
}

fn bounded(what: &'static str, count: usize) -> Result<(), PolicyError> {
    if count > LIST_MAX { Err(PolicyError::TooMany { what, count }) } else { Ok(()) }
}

impl QueryParts {
    pub(super) fn counts(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(names) => names.iter().any(|pattern| fits(pattern, name)),
            Self::Except(names) => !names.iter().any(|pattern| fits(pattern, name)),
        }
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(hundred) => write!(f, "{hundred}xx"),
            Self::Code(code) => code.fmt(f),
        }
    }
}

impl FromStr for StatusPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "4xx" => return Ok(Self::Class(4)),
            "5xx" => return Ok(Self::Class(5)),
            _ => {}
        }
        match text.parse() {
            Ok(code) if (400..=599).contains(&code) => Ok(Self::Code(code)),
            _ => Err(format!(
                "`{text}` is no error status: use a code from 400 to 599, \"4xx\" or \"5xx\""
            )),
        }
    }
}

impl Serialize for StatusPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for StatusPattern {
    fn schema_name() -> Cow<'static, str> {
        "StatusPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([45][0-9][0-9]|[45]xx)$",
            "description": "An error status, \"404\", or a class of them, \"5xx\".",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_from_toml_and_writes_back() {
        let text = "ttl = \"1h\"\nnegative_ttl = { 404 = \"10s\", 5xx = \"1s\" }\nset_cookie = \"strip\"\n\
                    key = { query = { except = [\"utm_*\"] }, sort_query = true, headers = [\"X-Tenant\"] }\n";
        let policy: CachePolicy = toml::from_str(text).unwrap();
        let policy = policy.checked().unwrap();
        assert_eq!(policy.ttl_of(200), Some(Duration::from_secs(3_600)));
        assert_eq!(policy.ttl_of(404), Some(Duration::from_secs(10)));
        assert_eq!(policy.ttl_of(503), Some(Duration::from_secs(1)));
        assert_eq!((policy.ttl_of(410), policy.ttl_of(206)), (None, None));
        assert_eq!(policy.key.headers, ["x-tenant"]);
        assert!(policy.key.query.counts("page") && !policy.key.query.counts("utm_source"));
        let again: CachePolicy = toml::from_str(&toml::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
    }

    #[test]
    fn says_what_is_wrong() {
        let read = |text: &str| toml::from_str::<CachePolicy>(text).map_err(|e| e.to_string());
        assert!(read("negative_ttl = { 200 = \"1s\" }").unwrap_err().contains("no error status"));
        assert!(read("negative_tll = {}").unwrap_err().contains("negative_ttl"));
        let policy = read("key = { headers = [\"x tenant\"] }").unwrap();
        assert_eq!(policy.checked(), Err(PolicyError::HeaderName("x tenant".to_owned())));
        let tags = vec!["t".to_owned(); 65];
        let policy = CachePolicy { tags, ..CachePolicy::default() };
        assert_eq!(policy.checked(), Err(PolicyError::TooMany { what: "tags", count: 65 }));
    }

    #[test]
    fn query_parameters_count_as_told() {
        let only = QueryParts::Only(vec!["page".to_owned(), "f_*".to_owned()]);
        assert!(only.counts("page") && only.counts("f_x") && !only.counts("pages"));
        assert!(QueryParts::All.counts("x") && !QueryParts::None.counts("x"));
    }
}
