//! `Cache-Control` and the fields aimed at caches like this one (RFC 9111 section 5.2, RFC 5861, RFC 9213).

use std::time::Duration;

use super::fields::{Fields, digits, elements, lower_token};
use super::structured::{self, Item};

/// Larger numbers of seconds count as this one (RFC 9111 section 1.2.2).
pub(super) const SECONDS_MAX: u64 = 1 << 31;

/// Most field names taken from `no-cache="..."` and `private="..."`; with more, the whole response is meant.
const NAMES_MAX: usize = 64;

/// What a response says about its storing and use in a shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Store nothing of it.
    pub no_store: bool,
    /// Never serve it without asking the origin.
    pub no_cache: bool,
    /// For one user only.
    pub private: bool,
    /// For everyone, even where the request had credentials.
    pub public: bool,
    /// Once stale, never without asking the origin.
    pub must_revalidate: bool,
    /// The same, said to shared caches only.
    pub proxy_revalidate: bool,
    /// Store it only if its status code is understood; then `no_store` does not count.
    pub must_understand: bool,
    /// How long it stays fresh.
    pub max_age: Option<Duration>,
    /// How long it stays fresh in a shared cache.
    pub s_maxage: Option<Duration>,
    /// How long after that it may be served while it is asked for anew (RFC 5861).
    pub stale_while_revalidate: Option<Duration>,
    /// How long after that it may be served when the origin fails (RFC 5861).
    pub stale_if_error: Option<Duration>,
    /// Names (lower case) of the fields that `no-cache="..."` or `private="..."` keep out of the store.
    pub withheld: Vec<String>,
}

/// What a request says about the stored responses that it would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Store nothing of this exchange.
    pub no_store: bool,
    /// Nothing stored without asking the origin.
    pub no_cache: bool,
    /// Nothing that is not stored.
    pub only_if_cached: bool,
    /// Nothing older.
    pub max_age: Option<Duration>,
    /// A response that has been stale for at most so long will do.
    pub max_stale: Option<Duration>,
    /// Only what stays fresh for at least so long.
    pub min_fresh: Option<Duration>,
    /// When the origin fails, a response that has been stale for at most so long will do (RFC 5861).
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// What a response says to this cache: the first of the `targeted` fields that it has and that is
    /// well-formed, alone (RFC 9213 section 2.2), or else its `Cache-Control`. Says too whether it was a targeted
    /// field; then `Expires` does not count.
    #[must_use]
    pub fn of<F: Fields + ?Sized>(fields: &F, targeted: &[impl AsRef<str>]) -> (Self, bool) {
        let target = targeted.iter().find_map(|name| Self::targeted(fields, name.as_ref()));
        match target {
            Some(directives) => (directives, true),
            None => (Self::parse(fields.values("cache-control")), false),
        }
    }

    /// Reads the values of all `Cache-Control` lines of a response.
    ///
    /// A number that is none counts as 0: who meant to set a lifetime and failed is not cached. Of a directive
    /// given twice, the stricter one counts.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::default();
        for element in lines.into_iter().flat_map(elements) {
            let (name, value) = directive(element);
            found.note(&name, &value);
        }
        found
    }

    /// A targeted field as a structured dictionary; `None` if it is missing, empty, not well-formed, or gives a
    /// directive a value of a wrong type.
    fn targeted<F: Fields + ?Sized>(fields: &F, name: &str) -> Option<Self> {
        let mut lines = fields.values(name).peekable();
        lines.peek()?;
        let whole = lines.collect::<Vec<_>>().join(&b','); // several lines are one list (RFC 9110 section 5.3)
        let members = structured::dictionary(&whole).filter(|members| !members.is_empty())?;
        let mut found = Self::default();
        for (key, item) in &members {
            let counted = matches!(
                key.as_str(),
                "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error"
            );
            let value = match item {
                Item::Integer(seconds) if counted => Value::Seconds(u64::try_from(*seconds).ok()),
                _ if counted => return None,
                Item::False => continue,
                Item::Text(names) => Value::Quoted(names.clone()),
                Item::True | Item::Integer(_) | Item::Other => Value::None,
            };
            found.note(key, &value);
        }
        Some(found)
    }

    fn note(&mut self, name: &str, value: &Value) {
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache |= !self.withhold(value),
            "private" => self.private |= !self.withhold(value),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => strictest(&mut self.max_age, value.seconds_or_zero()),
            "s-maxage" => strictest(&mut self.s_maxage, value.seconds_or_zero()),
            "stale-while-revalidate" => {
                strictest(&mut self.stale_while_revalidate, value.seconds_or_zero());
            }
            "stale-if-error" => strictest(&mut self.stale_if_error, value.seconds_or_zero()),
            _ => {}
        }
    }

    /// Takes the names of a qualified `no-cache` or `private`; false if there are none or one is no name, and so
    /// the whole response is meant.
    fn withhold(&mut self, value: &Value) -> bool {
        let Value::Quoted(names) = value else { return false };
        let names: Option<Vec<String>> = elements(names).map(lower_token).collect();
        match names {
            Some(names) if !names.is_empty() && self.withheld.len() + names.len() <= NAMES_MAX => {
                self.withheld.extend(names);
                true
            }
            _ => false,
        }
    }
}

impl RequestDirectives {
    /// Reads the values of all `Cache-Control` lines of a request. A `max-age` that is no number counts as 0;
    /// the other numbers, if they are none, do not count.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::default();
        for element in lines.into_iter().flat_map(elements) {
            found.note(element);
        }
        found
    }

    pub(super) fn note(&mut self, element: &[u8]) {
        let (name, value) = directive(element);
        match name.as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => strictest(&mut self.max_age, value.seconds_or_zero()),
            "max-stale" if matches!(value, Value::None) => self.max_stale = Some(Duration::MAX),
            "max-stale" => self.max_stale = value.seconds().or(self.max_stale),
            "min-fresh" => self.min_fresh = self.min_fresh.max(value.seconds()),
            "stale-if-error" => self.stale_if_error = value.seconds().or(self.stale_if_error),
            _ => {}
        }
    }
}

enum Value {
    None,
    Token(Vec<u8>),
    Quoted(Vec<u8>),
    Seconds(Option<u64>),
}

impl Value {
    fn seconds(&self) -> Option<Duration> {
        let seconds = match self {
            Self::None => None,
            Self::Token(bytes) | Self::Quoted(bytes) => digits(bytes, SECONDS_MAX),
            Self::Seconds(seconds) => seconds.map(|seconds| seconds.min(SECONDS_MAX)),
        };
        seconds.map(Duration::from_secs)
    }

    fn seconds_or_zero(&self) -> Duration {
        self.seconds().unwrap_or_default()
    }
}

/// Name in lower case and value of a directive. White space beside the `=` is no part of the grammar: it stays,
/// so that a number with it is none.
fn directive(element: &[u8]) -> (String, Value) {
    let Some(equals) = element.iter().position(|&byte| byte == b'=') else {
        return (String::from_utf8_lossy(element).to_ascii_lowercase(), Value::None);
    };
    let (name, value) = (&element[..equals], &element[equals + 1..]);
    let spaced = name.len() != name.trim_ascii().len();
    let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
    let value = match unquoted(value) {
        _ if spaced => Value::Token(Vec::new()),
        Some(text) => Value::Quoted(text),
        None => Value::Token(value.to_vec()),
    };
    (name, value)
}

/// The text of a quoted string, if the bytes are one.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut escaped = false;
    let mut text = Vec::with_capacity(inner.len());
    for &byte in inner {
        if byte == b'\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            text.push(byte);
        }
    }
    Some(text)
}

fn strictest(known: &mut Option<Duration>, new: Duration) {
    *known = Some(known.map_or(new, |known| known.min(new)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn response(line: &str) -> ResponseDirectives {
        ResponseDirectives::parse([line.as_bytes()])
    }

    #[test]
    fn reads_what_it_knows() {
        let lines = ["Max-Age=10 , public,", " no-cache=\"a, no-store\"", "ext"];
        let found = ResponseDirectives::parse(lines.map(str::as_bytes));
        assert_eq!(found.max_age, seconds(10));
        assert!(found.public && !found.no_cache && !found.no_store && !found.private);
        assert_eq!(found.withheld, ["a", "no-store"]);
    }

    #[test]
    fn doubtful_numbers_are_strict() {
        for (line, expected) in [
            ("max-age=ten", 0),
            ("max-age=-1", 0),
            ("max-age", 0),
            ("max-age=3600.0", 0),
            ("max-age='3600'", 0),
            ("max-age =3600", 0),
            ("max-age= 3600", 0),
            ("max-age=a100", 0),
            ("max-age=100a", 0),
            ("max-age=\"7\"", 7),
            ("max-age=007", 7),
            ("max-age=9, max-age=3", 3),
            ("max-age=3, max-age=9", 3),
            ("max-age=1, extension=\"max-age=3600\"", 1),
            ("extension=\"max-age=3600\", max-age=1", 1),
            ("max-age=99999999999999999999", 1 << 31),
        ] {
            assert_eq!(response(line).max_age, seconds(expected), "{line}");
        }
    }

    #[test]
    fn field_names_withhold_only_those_fields() {
        let found = response("no-cache=\"A, b\", private=\"c\"");
        assert_eq!(found.withheld, ["a", "b", "c"]);
        assert!(!found.no_cache && !found.private);
        assert!(response("no-cache=a").no_cache, "not in quotes: the whole response");
        assert!(response("private=\"\"").private);
        assert!(response("no-cache=\"a b\"").no_cache);
    }

    #[test]
    fn requests_say_what_they_would_take() {
        let read = |line: &str| RequestDirectives::parse([line.as_bytes()]);
        assert_eq!(read("max-stale").max_stale, Some(Duration::MAX));
        assert_eq!(read("max-stale=5").max_stale, seconds(5));
        assert_eq!(read("max-stale=x").max_stale, None);
        assert_eq!(read("min-fresh=3, min-fresh=5").min_fresh, seconds(5));
        assert_eq!(read("MAX-AGE=x").max_age, seconds(0));
        assert!(read("no-cache, no-store,only-if-cached").only_if_cached);
    }

    #[test]
    fn a_targeted_field_stands_alone() {
        let read = |fields: &[(&str, &str)]| {
            ResponseDirectives::of(fields, &["cdn-cache-control", "other"])
        };
        let plain = ("cache-control", "no-store");
        let (found, targeted) = read(&[plain, ("cdn-cache-control", "max-age=5, must-revalidate")]);
        assert!(targeted && !found.no_store && found.must_revalidate);
        assert_eq!(found.max_age, seconds(5));
        for ignored in ["max-age=5, &&&", "max-age=\"5\"", "Max-Age=5", "max-age =5", ""] {
            let (found, targeted) = read(&[("cdn-cache-control", ignored), plain]);
            assert!(!targeted && found.no_store, "{ignored}");
        }
        let (found, _) = read(&[("cdn-cache-control", "&"), ("other", "no-cache=\"x\""), plain]);
        assert_eq!(found.withheld, ["x"]);
        let (found, _) = read(&[("cdn-cache-control", "max-age=-5")]);
        assert_eq!(found.max_age, seconds(0));
        let (found, _) = read(&[("cdn-cache-control", "max-age=99999999999, private=?0")]);
        assert_eq!((found.max_age, found.private), (seconds(1 << 31), false));
    }

    proptest! {
        #[test]
        fn never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let fields = [("cache-control", line.clone()), ("cdn-cache-control", line.clone())];
            let _response = ResponseDirectives::of(&fields[..], &["cdn-cache-control"]);
            let _plain = ResponseDirectives::of::<[(&str, Vec<u8>)]>(&fields, &[""; 0]);
            let _request = RequestDirectives::parse([line.as_slice()]);
        }
    }
}
