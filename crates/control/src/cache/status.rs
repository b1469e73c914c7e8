//! What a cache did with a request, as data and as `Cache-Status` (RFC 9211).

use std::fmt;

use serde::Serialize;

/// What a cache did with a request. Write it with a name: `status.named("gatewright")`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheStatus {
    /// Answered from the store without going to the upstream.
    pub hit: bool,
    /// Why it went to the upstream.
    pub fwd: Option<ForwardReason>,
    /// Status of the upstream's response, where it is not the answer's.
    pub fwd_status: Option<u16>,
    /// Seconds that the answer stays fresh; negative if it is stale.
    pub ttl: Option<i64>,
    /// The upstream's response was stored.
    pub stored: bool,
    /// The answer is that to another request of the same key.
    pub collapsed: bool,
    /// A word more.
    pub detail: Option<&'static str>,
}

/// Why a request went to the upstream (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardReason {
    /// The cache was told not to handle it.
    Bypass,
    /// Its method is not answered from a cache.
    Method,
    /// Nothing is stored of its URL.
    UriMiss,
    /// Something is stored, but for other request fields.
    VaryMiss,
    /// What is stored would do, but the request does not want it.
    Request,
    /// What is stored is stale, or must be validated.
    Stale,
}

impl ForwardReason {
    /// The word of RFC 9211.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl CacheStatus {
    /// Answered from the store.
    #[must_use]
    pub const fn hit(ttl: i64) -> Self {
        Self { hit: true, ttl: Some(ttl), ..Self::NOTHING }
    }

    /// Sent to the upstream.
    #[must_use]
    pub const fn forwarded(why: ForwardReason) -> Self {
        Self { fwd: Some(why), ..Self::NOTHING }
    }

    const NOTHING: Self = Self {
        hit: false,
        fwd: None,
        fwd_status: None,
        ttl: None,
        stored: false,
        collapsed: false,
        detail: None,
    };

    /// The member of the `Cache-Status` list that a cache of this name adds. The name must be a token.
    #[must_use]
    pub const fn named(self, cache: &str) -> NamedStatus<'_> {
        NamedStatus { cache, status: self }
    }
}

/// A [`CacheStatus`] that is written with its cache's name.
#[derive(Clone, Copy, Debug)]
pub struct NamedStatus<'a> {
    cache: &'a str,
    status: CacheStatus,
}

impl fmt::Display for NamedStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        f.write_str(self.cache)?;
        if status.hit {
            f.write_str("; hit")?;
        }
        if let Some(fwd) = status.fwd {
            write!(f, "; fwd={}", fwd.as_str())?;
        }
        if let Some(code) = status.fwd_status {
            write!(f, "; fwd-status={code}")?;
        }
        if let Some(ttl) = status.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if status.stored {
            f.write_str("; stored")?;
        }
        if status.collapsed {
            f.write_str("; collapsed")?;
        }
        match status.detail {
            Some(detail) => write!(f, "; detail={detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_the_standard_says() {
        assert_eq!(
            CacheStatus::hit(376).named("gatewright").to_string(),
            "gatewright; hit; ttl=376"
        );
        let status = CacheStatus {
            fwd_status: Some(304),
            ttl: Some(-3),
            stored: true,
            collapsed: true,
            detail: Some("no-store"),
            ..CacheStatus::forwarded(ForwardReason::Stale)
        };
        assert_eq!(
            status.named("c").to_string(),
            "c; fwd=stale; fwd-status=304; ttl=-3; stored; collapsed; detail=no-store"
        );
    }
}
