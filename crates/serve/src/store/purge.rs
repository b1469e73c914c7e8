use std::collections::VecDeque;

use gatewright_determinism::Time;

/// Purges that responses under way are compared with; before the oldest of them, all count as purged.
const RECENT: usize = 1024;

/// Which stored responses a purge is for.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The purges of late: a response that was asked for before one of them is not stored after it.
#[derive(Debug, Default)]
pub(crate) struct Purges {
    floor: Option<Time>,
    recent: VecDeque<(Time, Matcher)>,
}

impl Matcher {
    pub(crate) fn fits(&self, key: &str, tags: &[String]) -> bool {
        let url = key.split('\t').next().unwrap_or_default();
        match self {
            Self::Url(this) => url == this,
            Self::Path(path) => path_of(url) == path,
            Self::Prefix(start) if start.starts_with('/') => path_of(url).starts_with(&**start),
            Self::Prefix(start) => url.starts_with(&**start),
            Self::Tag(tag) => tags.iter().any(|this| this == tag),
        }
    }

    /// Whether it looks at tags alone, which only a response has.
    pub(crate) fn is_tag(&self) -> bool {
        matches!(self, Self::Tag(_))
    }
}

/// Path and query of a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

impl Purges {
    pub(crate) fn note(&mut self, at: Time, matcher: Matcher) {
        if self.recent.len() == RECENT {
            self.floor = self.recent.pop_front().map(|(at, _)| at);
        }
        self.recent.push_back((at, matcher));
    }

    /// Whether a response to a request that was sent at `sent` was purged meanwhile.
    pub(crate) fn hit(&self, key: &str, tags: &[String], sent: Time) -> bool {
        self.floor.is_some_and(|floor| sent <= floor)
            || self
                .recent
                .iter()
                .rev()
                .take_while(|(at, _)| *at >= sent)
                .any(|(_, matcher)| matcher.fits(key, tags))
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
        let at = |nanos| Time::from_nanos(nanos);
        purges.note(at(10), Matcher::Path("/a".to_owned()));
        assert!(purges.hit("http://h/a", &[], at(5)));
        assert!(!purges.hit("http://h/a", &[], at(11)));
        assert!(!purges.hit("http://h/b", &[], at(5)));
        for n in 0..RECENT as u64 {
            purges.note(at(20 + n), Matcher::Path("/c".to_owned()));
        }
        assert!(purges.hit("http://h/b", &[], at(5)), "too long ago to know");
        assert!(!purges.hit("http://h/b", &[], at(15)));
    }
}
