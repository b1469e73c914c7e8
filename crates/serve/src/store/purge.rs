use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Purges that responses under way, or from another tier, are compared with; before the oldest of them, all count
/// as purged.
pub(super) const RECENT: usize = 8 * 1024;

/// Which stored responses a purge is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Matcher {
    /// All variants of this URL, as [`PrimaryKey::url`](gatewright_control::cache::PrimaryKey::url) writes it.
    Url(String),
    /// All variants of this path and query at any host.
    Path(String),
    /// All URLs that begin so; with a slash at its beginning, all paths at any host.
    Prefix(String),
    /// All that carry this tag.
    Tag(String),
}

/// What was wished for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purge {
    pub(crate) matcher: Matcher,
    /// It only makes stale.
    pub(crate) soft: bool,
}

/// What became of a response that was asked for before some purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    /// It counts as stale.
    Expired,
    Purged,
}

/// The purges of late, in the order of their marks: a response that was asked for before one of them is not stored
/// after it, nor taken from another tier.
#[derive(Debug)]
pub(crate) struct Purges<M> {
    floor: Option<M>,
    recent: VecDeque<(M, Purge)>,
}

impl<M> Default for Purges<M> {
    fn default() -> Self {
        Self { floor: None, recent: VecDeque::new() }
    }
}

impl Matcher {
    pub(crate) fn fits(&self, key: &str, tags: &[String]) -> bool {
        match self {
            Self::Tag(tag) => tags.iter().any(|this| this == tag),
            _ => self.fits_key(key),
        }
    }

    /// Whether it is for all responses of a key.
    pub(super) fn fits_key(&self, key: &str) -> bool {
        let url = url_of(key);
        match self {
            Self::Url(this) => url == this,
            Self::Path(path) => path_of(url) == path,
            Self::Prefix(start) if start.starts_with('/') => path_of(url).starts_with(&**start),
            Self::Prefix(start) => url.starts_with(&**start),
            Self::Tag(_) => false,
        }
    }
}

/// URL of a key.
pub(super) fn url_of(key: &str) -> &str {
    key.split('\t').next().unwrap_or_default()
}

/// Path and query of a URL.
pub(super) fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

impl<M: Copy + Ord> Purges<M> {
    /// Notes a purge. Its mark is not below those before.
    pub(crate) fn note(&mut self, at: M, purge: Purge) {
        if self.recent.len() == RECENT {
            self.floor = self.recent.pop_front().map(|(at, _)| at);
        }
        self.recent.push_back((at, purge));
    }

    /// Mark of the last one.
    pub(crate) fn last(&self) -> Option<M> {
        self.recent.back().map(|(at, _)| *at)
    }

    /// All that was asked for up to this mark counts as purged.
    pub(crate) fn forget_until(&mut self, floor: M) {
        self.floor = self.floor.max(Some(floor));
    }

    /// What became of a response to a request that was sent when `sent` was the mark of the last purge.
    pub(crate) fn fate(&self, key: &str, tags: &[String], sent: M) -> Fate {
        if self.floor.is_some_and(|floor| sent < floor) {
            return Fate::Purged;
        }
        let mut fate = Fate::Kept;
        for (_, purge) in self.recent.iter().rev().take_while(|(at, _)| *at > sent) {
            if purge.matcher.fits(key, tags) {
                if !purge.soft {
                    return Fate::Purged;
                }
                fate = Fate::Expired;
            }
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fit_by_url_path_prefix_and_tag() {
        let key = "http://host:1/a/b?c\tx=1";
        let tags = ["t".to_owned()];
        let fits = |matcher: Matcher| matcher.fits(key, &tags);
        assert!(fits(Matcher::Url("http://host:1/a/b?c".to_owned())));
        assert!(!fits(Matcher::Url("http://host:1/a/b".to_owned())));
        assert!(fits(Matcher::Path("/a/b?c".to_owned())));
        assert!(!fits(Matcher::Path("/a/b".to_owned())));
        assert!(fits(Matcher::Prefix("/a/".to_owned())));
        assert!(fits(Matcher::Prefix("http://host:1/a".to_owned())));
        assert!(!fits(Matcher::Prefix("/b".to_owned())));
        assert!(fits(Matcher::Tag("t".to_owned())) && !fits(Matcher::Tag("x".to_owned())));
    }

    #[test]
    fn what_was_asked_for_before_is_purged_too() {
        let mut purges = Purges::default();
        let of = |path: &str, soft| Purge { matcher: Matcher::Path(path.to_owned()), soft };
        purges.note(10, of("/a", false));
        purges.note(11, of("/b", true));
        assert_eq!(purges.fate("http://h/a", &[], 5), Fate::Purged);
        assert_eq!(purges.fate("http://h/b", &[], 5), Fate::Expired);
        assert_eq!(purges.fate("http://h/a", &[], 10), Fate::Kept);
        assert_eq!(purges.fate("http://h/c", &[], 5), Fate::Kept);
        for n in 0..RECENT as u64 {
            purges.note(20 + n, of("/c", false));
        }
        assert_eq!(purges.fate("http://h/d", &[], 5), Fate::Purged, "too long ago to know");
        assert_eq!(purges.fate("http://h/d", &[], 15), Fate::Kept);
    }
}
