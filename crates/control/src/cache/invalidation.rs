//! What a change at the origin makes of stored responses (RFC 9111 section 4.4).

use super::fields::Fields;
use super::method::Method;
use super::target::{OwnedTarget, Target};

/// The URLs whose stored responses are no longer to be served after a response to `method`: the request's own, and
/// those of the same origin that `Location` and `Content-Location` name. None after an error, and none after a
/// safe method.
///
/// All variants of each go, and all keys that share the URL ([`PrimaryKey::url`](super::PrimaryKey::url)). A
/// response to a request that was sent before must not be stored any more either.
#[must_use]
pub fn invalidated<R: Fields + ?Sized>(
    method: Method,
    status: u16,
    target: &Target<'_>,
    response: &R,
) -> Vec<OwnedTarget> {
    if !method.invalidates() || !(200..400).contains(&status) {
        return Vec::new();
    }
    let named = ["location", "content-location"]
        .into_iter()
        .filter_map(|name| response.first(name))
        .filter_map(|reference| target.resolve(reference))
        .filter(|named| !named.as_target().same_as(target));
    std::iter::once(target.to_owned()).chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'_> =
        Target { scheme: "http", authority: "host", path: "/a/b", query: Some("q") };

    fn paths(method: &str, status: u16) -> Vec<String> {
        let fields = [
            ("location", "/new"),
            ("content-location", "c?d"),
            ("content-location", "http://other/x"),
        ];
        invalidated(Method::of(method), status, &TARGET, &fields[..])
            .iter()
            .map(|url| url.as_target().path.to_owned())
            .collect()
    }

    #[test]
    fn a_success_of_an_unsafe_method_invalidates() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "post", "x"] {
            assert_eq!(paths(method, 200), ["/a/b", "/new", "/a/c"], "{method}");
            assert_eq!(paths(method, 303).len(), 3, "{method}");
            assert!(paths(method, 500).is_empty() && paths(method, 404).is_empty(), "{method}");
        }
    }

    #[test]
    fn a_safe_method_does_not() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"] {
            assert!(paths(method, 200).is_empty(), "{method}");
        }
    }

    #[test]
    fn other_origins_are_left_alone() {
        let fields = [("location", "https://host/new"), ("content-location", "//evil/x")];
        assert_eq!(invalidated(Method::Unsafe, 201, &TARGET, &fields[..]).len(), 1);
    }
}
