/// What a cache needs to know of a request's method (RFC 9110 section 9.2, RFC 9111 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Answered from the store, and its response is stored.
    Get,
    /// Answered from a stored response to GET.
    Head,
    /// Unsafe, but its response may be stored for GET when it says so.
    Post,
    /// Changes nothing, and is not answered from a cache.
    Safe,
    /// May change what it is sent to: a success invalidates what is stored of it.
    Unsafe,
}

impl Method {
    /// The method of that name; one that is not known to be safe counts as unsafe.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" => Self::Safe,
            _ => Self::Unsafe,
        }
    }

    /// Whether it is answered from stored responses.
    #[must_use]
    pub const fn reads_store(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    /// Whether a success of it invalidates stored responses.
    #[must_use]
    pub const fn invalidates(self) -> bool {
        matches!(self, Self::Post | Self::Unsafe)
    }
}
