//! URLs made of whatever bytes come: a key is the same however often it is normalised, and a reference never leads to
//! another origin.
#![no_main]

use gatewright_control::cache::{KeyRules, PrimaryKey, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (authority, rest) = text.split_once('\n').unwrap_or(("h", text));
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let none: [(&str, &str); 0] = [];
    let rules = KeyRules { sort_query: true, ..KeyRules::default() };
    let target = Target { scheme: "http", authority, path, query };
    if let Some(key) = PrimaryKey::of(&target, &none[..], &rules) {
        assert!(key.as_str().starts_with("http://"));
    }
    let base = Target { scheme: "http", authority: "h:80", path: "/a/b", query: None };
    if let Some(found) = base.resolve(bytes) {
        let found = found.as_target();
        assert_eq!((found.scheme, found.authority), ("http", "h:80"));
        let once = PrimaryKey::of(&found, &none[..], &rules);
        let (again, query) = (once.as_ref().map_or("/", |key| &key.url()["http://h".len()..]), None);
        if !again.contains('?') {
            let again = Target { scheme: "http", authority: "h", path: again, query };
            assert_eq!(PrimaryKey::of(&again, &none[..], &rules), once, "normalised once and for all");
        }
    }
});
