use super::date::Moment;
use super::directives::RequestDirectives;
use super::fields::{Fields, elements};
use super::method::Method;
use super::policy::CachePolicy;

/// A request as a cache sees it: its fields are read once, in one pass.
#[derive(Debug)]
pub struct Request<'a, Q: ?Sized> {
    method: Method,
    fields: &'a Q,
    directives: RequestDirectives,
    credentials: bool,
    range: bool,
    conditional: bool,
    for_origin: bool,
}

impl<'a, Q: Fields + ?Sized> Request<'a, Q> {
    /// Reads a request. `policy` says whether its `Cache-Control` and `Pragma` count.
    #[must_use]
    pub fn read(method: &str, fields: &'a Q, policy: &CachePolicy) -> Self {
        let mut read = Self {
            method: Method::of(method),
            fields,
            directives: RequestDirectives::default(),
            credentials: false,
            range: false,
            conditional: false,
            for_origin: false,
        };
        let (mut cache_control, mut pragma) = (false, false);
        for (name, value) in fields.pairs() {
            match name {
                "cache-control" => {
                    cache_control = true;
                    elements(value).for_each(|element| read.directives.note(element));
                }
                "pragma" => {
                    pragma |= elements(value).any(|this| this.eq_ignore_ascii_case(b"no-cache"));
                }
                "authorization" => read.credentials = true,
                "range" => read.range = true,
                "if-none-match" | "if-modified-since" => read.conditional = true,
                "if-match" | "if-unmodified-since" => read.for_origin = true,
                _ => {}
            }
        }
        // `Pragma` only speaks where `Cache-Control` is silent (RFC 9111 section 5.4).
        read.directives.no_cache |= pragma && !cache_control;
        if !policy.client_directives {
            read.directives = RequestDirectives::default();
        }
        read
    }

    /// Its method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Its fields.
    #[must_use]
    pub const fn fields(&self) -> &'a Q {
        self.fields
    }

    /// Its `Cache-Control`.
    #[must_use]
    pub const fn directives(&self) -> &RequestDirectives {
        &self.directives
    }

    /// Whether it has `Authorization`.
    #[must_use]
    pub const fn has_credentials(&self) -> bool {
        self.credentials
    }

    /// Whether it has `Range`, and a method that `Range` means something for (RFC 9110 section 14.2).
    #[must_use]
    pub const fn has_range(&self) -> bool {
        self.range && matches!(self.method, Method::Get)
    }

    /// Whether it has preconditions that a cache may answer: `If-None-Match`, `If-Modified-Since`.
    #[must_use]
    pub const fn is_conditional(&self) -> bool {
        self.conditional
    }

    /// Whether it has preconditions that only the origin may answer: `If-Match`, `If-Unmodified-Since` (RFC 9111
    /// section 4.3.2).
    #[must_use]
    pub const fn is_for_origin(&self) -> bool {
        self.for_origin
    }

    /// Whether its response may be that of many requests: one to the plain URL, without credentials, part or
    /// preconditions for the origin.
    #[must_use]
    pub const fn is_shareable(&self) -> bool {
        matches!(self.method, Method::Get)
            && !self.credentials
            && !self.range
            && !self.for_origin
            && !self.directives.no_store
    }

    /// How a stored response answers its preconditions and its `Range`.
    #[must_use]
    pub fn shape_of(&self, stored: &super::StoredResponse, moment: Moment) -> super::Shape {
        if (200..300).contains(&stored.status)
            && self.is_conditional()
            && super::validation::is_not_modified(self.fields, stored, moment)
        {
            return super::Shape::NotModified;
        }
        if self.has_range() {
            super::ranges::shape(self.fields, stored, moment)
        } else {
            super::Shape::Whole
        }
    }
}
