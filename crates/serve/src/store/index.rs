//! What is stored, by path and by tag: a purge costs what it finds, however much there is besides.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::Line;
use super::purge::{Matcher, path_of, url_of};

/// The keys of the store in two orders.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: BTreeSet<Place>,
    tags: HashMap<Box<str>, HashSet<Arc<str>>>,
}

/// A key in the order of paths, then of hosts.
#[derive(Debug, PartialEq, Eq)]
struct Place(Arc<str>);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        path_of(url_of(&self.0))
            .cmp(path_of(url_of(&other.0)))
            .then_with(|| self.0.as_bytes().cmp(other.0.as_bytes()))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Index {
    /// Notes a line that is stored now.
    pub(super) fn add(&mut self, key: &Arc<str>, line: &Line) {
        self.places.insert(Place(Arc::clone(key)));
        for tag in tags_of(line) {
            match self.tags.get_mut(tag) {
                Some(keys) => drop(keys.insert(Arc::clone(key))),
                None => {
                    self.tags.insert(tag.into(), HashSet::from([Arc::clone(key)]));
                }
            }
        }
    }

    /// Forgets a line that is stored no longer.
    pub(super) fn remove(&mut self, key: &Arc<str>, line: &Line) {
        self.places.remove(&Place(Arc::clone(key)));
        for tag in tags_of(line) {
            if let Some(keys) = self.tags.get_mut(tag) {
                keys.remove(key);
                if keys.is_empty() {
                    self.tags.remove(tag);
                }
            }
        }
    }

    /// The keys that may have what fits, at most `most`. Whether a response of theirs does is for the matcher to say.
    pub(super) fn find(&self, matcher: &Matcher, most: usize) -> Vec<Arc<str>> {
        if let Matcher::Tag(tag) = matcher {
            let keys = self.tags.get(&**tag).into_iter().flatten();
            return keys.take(most).cloned().collect();
        }
        let (path, whole) = match matcher {
            Matcher::Url(url) => (path_of(url), true),
            Matcher::Path(path) => (&**path, true),
            Matcher::Prefix(start) if start.starts_with('/') => (&**start, false),
            Matcher::Prefix(start) => (start_of_path(start), false),
            Matcher::Tag(_) => unreachable!("answered above"),
        };
        // Sorts before every key of this path: a colon comes before any scheme.
        let first = Place(format!("://{path}").into());
        let near = self.places.range(first..).map(|place| &place.0).take_while(|key| {
            let this = path_of(url_of(key));
            if whole { this == path } else { this.starts_with(path) }
        });
        near.filter(|key| matcher.fits_key(key)).take(most).cloned().collect()
    }
}

/// Path of the beginning of a URL: empty if it has none yet.
fn start_of_path(start: &str) -> &str {
    let rest = start.split_once("://").map_or(start, |(_, rest)| rest);
    rest.find('/').map_or("", |slash| &rest[slash..])
}

fn tags_of(line: &Line) -> impl Iterator<Item = &str> {
    line.variants.iter().flat_map(|variant| &variant.0.meta.tags).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_path_whatever_the_host_and_by_url() {
        let mut index = Index::default();
        let keys = [
            "http://a/x",
            "http://b/x\tlanguage=de",
            "http://a/x/y",
            "http://a/xy?q",
            "http://b/",
            "http://a/w",
        ];
        for key in keys {
            index.add(&key.into(), &Line::default());
        }
        let find = |matcher: Matcher| {
            let mut found = index.find(&matcher, usize::MAX);
            found.sort();
            found.iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(find(Matcher::Path("/x".to_owned())), ["http://a/x", "http://b/x\tlanguage=de"]);
        assert_eq!(find(Matcher::Url("http://b/x".to_owned())), ["http://b/x\tlanguage=de"]);
        assert_eq!(find(Matcher::Prefix("/x".to_owned())).len(), 4);
        assert_eq!(find(Matcher::Prefix("http://b".to_owned())).len(), 2);
        assert_eq!(find(Matcher::Prefix("http://a/x".to_owned())).len(), 3);
        index.remove(&"http://a/x".into(), &Line::default());
        assert_eq!(index.find(&Matcher::Prefix("http://a/x".to_owned()), usize::MAX).len(), 2);
        assert_eq!(index.find(&Matcher::Prefix("/".to_owned()), 2).len(), 2, "no more than asked");
    }
}
