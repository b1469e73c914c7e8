//! The URL of a request, and of what a response names beside it.

/// Where a request goes, as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// "http" or "https".
    pub scheme: &'a str,
    /// Host, and port if one is given.
    pub authority: &'a str,
    /// Path, starting with a slash.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
}

/// A URL that a response named, of the same origin as its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTarget {
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
}

/// Longest reference that is resolved, in bytes.
const REFERENCE_MAX: usize = 8 * 1024;

impl OwnedTarget {
    /// A view of it.
    #[must_use]
    pub fn as_target(&self) -> Target<'_> {
        Target {
            scheme: &self.scheme,
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
        }
    }
}

impl Target<'_> {
    /// A copy of it.
    #[must_use]
    pub fn to_owned(&self) -> OwnedTarget {
        OwnedTarget {
            scheme: self.scheme.to_owned(),
            authority: self.authority.to_owned(),
            path: self.path.to_owned(),
            query: self.query.map(str::to_owned),
        }
    }

    /// Whether both are the same URL after the normalisations that are safe for every server.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.same_origin(other.scheme, other.authority)
            && path_of(self.path) == path_of(other.path)
            && self.query == other.query
    }

    /// Resolves a reference from a response to this target (RFC 3986 section 5.2), such as its `Location`.
    /// `None` if it leads to another origin, where this response has no say, or is no reference.
    #[must_use]
    pub fn resolve(&self, reference: &[u8]) -> Option<OwnedTarget> {
        let reference = std::str::from_utf8(reference).ok()?.trim_ascii();
        if reference.len() > REFERENCE_MAX
            || reference.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
        {
            return None;
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let rest = match scheme_of(reference) {
            Some(scheme) if !scheme.eq_ignore_ascii_case(self.scheme) => return None,
            Some(scheme) => {
                let rest = &reference[scheme.len() + 1..];
                rest.starts_with("//").then_some(rest)?
            }
            None => reference,
        };
        let (rest, absolute) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                if !self.same_origin(self.scheme, &rest[..end]) {
                    return None;
                }
                (&rest[end..], true)
            }
            None => (rest, false),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let keeps_query = path.is_empty() && query.is_none() && !absolute;
        let path = if path.is_empty() && !absolute {
            self.path.to_owned()
        } else if path.is_empty() || path.starts_with('/') {
            without_dots(path)
        } else {
            let folder = self.path.rfind('/').map_or("", |end| &self.path[..end]);
            without_dots(&format!("{folder}/{path}"))
        };
        let query = if keeps_query { self.query } else { query };
        Some(OwnedTarget { path, query: query.map(str::to_owned), ..self.to_owned() })
    }

    fn same_origin(&self, scheme: &str, authority: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
            && authority_of(self.scheme, self.authority) == authority_of(scheme, authority)
    }
}

/// The scheme that a reference starts with.
fn scheme_of(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let starts = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let fits = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (starts && fits).then_some(scheme)
}

/// Adds host and port in lower case, without the port that the scheme has anyway.
pub(super) fn push_authority(text: &mut String, scheme: &str, authority: &str) {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = authority.strip_suffix(port).or_else(|| authority.strip_suffix(':'));
    let start = text.len();
    text.push_str(host.unwrap_or(authority));
    text[start..].make_ascii_lowercase();
}

/// Adds a path with escapes in capitals and without those that need not be (RFC 3986 section 6.2.2). Dots stay,
/// escaped or not: a server may treat dot segments in its own way, and no path gains one here.
pub(super) fn push_path(text: &mut String, path: &str) {
    if path.is_empty() {
        text.push('/');
    }
    if !escapes_are_whole(path) {
        // A `%` that begins no escape could begin one with what follows it: such a path stays as it is.
        text.push_str(path);
        return;
    }
    let mut rest = path;
    while let Some((before, escape)) = rest.split_once('%') {
        text.push_str(before);
        let (code, behind) = escape.split_at(2);
        match code_of(code.as_bytes()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) => {
                text.push(char::from(byte));
            }
            _ => {
                text.push('%');
                text.extend(code.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        rest = behind;
    }
    text.push_str(rest);
}

/// Whether two hexadecimal digits follow every `%`.
fn escapes_are_whole(path: &str) -> bool {
    path.split('%').skip(1).all(|escape| code_of(escape.as_bytes()).is_some())
}

/// The byte that the two digits at the beginning stand for.
fn code_of(escape: &[u8]) -> Option<u8> {
    let &[high, low] = escape.first_chunk()?;
    Some(hex(high)? * 16 + hex(low)?)
}

fn authority_of(scheme: &str, authority: &str) -> String {
    let mut text = String::new();
    push_authority(&mut text, scheme, authority);
    text
}

fn path_of(path: &str) -> String {
    let mut text = String::new();
    push_path(&mut text, path);
    text
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Target<'_> =
        Target { scheme: "http", authority: "Host:80", path: "/a/b/c", query: Some("q") };

    #[test]
    fn references_resolve_within_the_origin() {
        for (reference, path, query) in [
            ("/x", "/x", None),
            ("x?y", "/a/b/x", Some("y")),
            ("../x", "/a/x", None),
            ("../../../../x/./y/..", "/x/", None),
            ("", "/a/b/c", Some("q")),
            ("?z", "/a/b/c", Some("z")),
            ("#f", "/a/b/c", Some("q")),
            ("http://host/x#f", "/x", None),
            ("HTTP://HOST:80", "/", None),
            ("//host?z", "/", Some("z")),
        ] {
            let found = BASE.resolve(reference.as_bytes()).expect(reference);
            assert_eq!((found.path.as_str(), found.query.as_deref()), (path, query), "{reference}");
        }
    }

    #[test]
    fn other_origins_and_no_references_lead_nowhere() {
        for reference in [
            "https://host/x",
            "//other/x",
            "http://host:8080/",
            "http:x",
            "mailto:a",
            "a b",
            "é\nb",
        ] {
            assert_eq!(BASE.resolve(reference.as_bytes()), None, "{reference}");
        }
        assert_eq!(BASE.resolve(b"\xff"), None);
        assert_eq!(BASE.resolve(&[b'a'; REFERENCE_MAX + 1]), None);
    }

    #[test]
    fn the_same_url_is_recognised() {
        let other = Target { authority: "host", path: "/%61/b/c", ..BASE };
        assert!(BASE.same_as(&other));
        assert!(!BASE.same_as(&Target { query: None, ..BASE }));
        assert_eq!(path_of("/%7euser%2fx%2e"), "/~user%2Fx%2E");
        assert_eq!(path_of("/%7euser%zz%"), "/%7euser%zz%");
        assert_eq!(authority_of("https", "Host:443"), "host");
    }

    proptest! {
        #[test]
        fn never_panics(reference in prop::collection::vec(any::<u8>(), 0..60)) {
            let _found = BASE.resolve(&reference);
        }

        #[test]
        fn what_resolves_is_absolute(reference in "[a-c./?#:%é]{0,20}") {
            if let Some(found) = BASE.resolve(reference.as_bytes()) {
                prop_assert!(found.path.starts_with('/'));
                prop_assert!(path_of(&found.path).starts_with('/'));
            }
        }
    }
}
