//! The primary key: what stored responses are found by (RFC 9111 section 2).

use super::fields::Fields;
use super::policy::{KeyRules, QueryParts};
use super::selecting::normalised;
use super::target::{Target, push_authority, push_path};

/// Longest key, in bytes. A request with a longer one is not answered from the store and stores nothing.
pub const KEY_MAX: usize = 16 * 1024;

/// What a request's stored responses are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimaryKey {
    text: String,
    url: usize,
}

impl PrimaryKey {
    /// The key of a request; `None` if it is longer than [`KEY_MAX`].
    ///
    /// The method is no part of it: a HEAD finds what a GET stored. Host and scheme are in lower case, the default
    /// port is left out, escapes that need not be are undone.
    #[must_use]
    pub fn of<F: Fields + ?Sized>(
        target: &Target<'_>,
        fields: &F,
        rules: &KeyRules,
    ) -> Option<Self> {
        let given = target.path.len() + target.authority.len() + target.query.map_or(0, str::len);
        if given > KEY_MAX {
            return None;
        }
        let mut text = String::with_capacity(given + target.scheme.len() + 8);
        text.push_str(target.scheme);
        text.make_ascii_lowercase();
        text.push_str("://");
        push_authority(&mut text, target.scheme, target.authority);
        push_path(&mut text, target.path);
        if let Some(query) = target.query {
            push_query(&mut text, query, rules);
        }
        let url = text.len();
        for name in &rules.headers {
            text.push('\t');
            text.push_str(name);
            text.push('=');
            if let Some(value) = normalised(fields, name) {
                push_escaped(&mut text, &value);
            }
        }
        (text.len() <= KEY_MAX).then_some(Self { text, url })
    }

    /// The whole key: the URL and, after tabs, the headers that count.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The normalised URL alone, as purges and invalidations name it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.text[..self.url]
    }
}

fn push_query(text: &mut String, query: &str, rules: &KeyRules) {
    if rules.query == QueryParts::All && !rules.sort_query {
        text.push('?');
        text.push_str(query);
        return;
    }
    let name = |part: &&str| part.split('=').next().unwrap_or_default().len();
    let mut parts: Vec<&str> = query
        .split('&')
        .filter(|part| !part.is_empty() && rules.query.counts(&part[..name(part)]))
        .collect();
    if rules.sort_query {
        // Stable: parameters of one name keep their order, which may mean something.
        parts.sort_by_key(|part| &part[..name(part)]);
    }
    for (index, part) in parts.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(part);
    }
}

/// Printable ASCII as it is but `%`; the rest escaped, so that no value can look like the end of another.
fn push_escaped(text: &mut String, value: &[u8]) {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for &byte in value {
        if (b'!'..=b'~').contains(&byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, query: Option<&str>, rules: &KeyRules) -> String {
        let target = Target { scheme: "HTTP", authority: "Example.org:80", path, query };
        let fields = [("x-tenant", "a\tb"), ("accept-language", "DE, en")];
        PrimaryKey::of(&target, &fields[..], rules).unwrap().as_str().to_owned()
    }

    #[test]
    fn the_url_is_normalised() {
        let rules = KeyRules::default();
        assert_eq!(key("", None, &rules), "http://example.org/");
        assert_eq!(key("/a%3f%41", Some("b=1&a=2"), &rules), "http://example.org/a%3FA?b=1&a=2");
        assert_ne!(key("/", Some("a=1"), &rules), key("/", Some("a=2"), &rules));
    }

    #[test]
    fn no_escape_is_made_by_undoing_one() {
        let rules = KeyRules::default();
        assert_eq!(key("/a/%%33D", None, &rules), "http://example.org/a/%%33D");
        assert_eq!(key("/a/%3d", None, &rules), "http://example.org/a/%3D");
        assert_eq!(key("/a/%", None, &rules), "http://example.org/a/%");
    }

    #[test]
    fn query_parameters_are_kept_dropped_and_sorted() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let rules =
            KeyRules { query: QueryParts::Only(names), sort_query: true, ..KeyRules::default() };
        let query = Some("b=2&c=3&a=1&&b=1");
        assert_eq!(key("/", query, &rules), "http://example.org/?a=1&b=2&b=1");
        let rules = KeyRules { query: QueryParts::None, ..KeyRules::default() };
        assert_eq!(key("/", query, &rules), "http://example.org/");
    }

    #[test]
    fn headers_count_after_the_url() {
        let headers = ["x-tenant", "accept-language", "none"].map(str::to_owned).to_vec();
        let rules = KeyRules { headers, ..KeyRules::default() };
        assert_eq!(
            key("/", None, &rules),
            "http://example.org/\tx-tenant=a%09b\taccept-language=de,en\tnone="
        );
        let target = Target { scheme: "http", authority: "h", path: "/p", query: None };
        let fields: [(&str, &str); 0] = [];
        let key = PrimaryKey::of(&target, &fields[..], &rules).unwrap();
        assert_eq!(key.url(), "http://h/p");
    }

    #[test]
    fn a_key_that_is_too_long_is_none() {
        let path = "/".repeat(KEY_MAX + 1);
        let target = Target { scheme: "http", authority: "h", path: &path, query: None };
        let fields: [(&str, &str); 0] = [];
        assert_eq!(PrimaryKey::of(&target, &fields[..], &KeyRules::default()), None);
    }
}
