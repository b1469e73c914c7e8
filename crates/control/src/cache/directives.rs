use std::time::Duration;

/// The directives of `Cache-Control` that a shared cache heeds (RFC 9111 section 5.2). Names are compared without
/// regard to case; what is not known is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Store nothing of this exchange.
    pub no_store: bool,
    /// Do not serve without asking the origin.
    pub no_cache: bool,
    /// For one user only.
    pub private: bool,
    /// For everyone, even where the request had credentials.
    pub public: bool,
    /// Once stale, never without asking the origin.
    pub must_revalidate: bool,
    /// Seconds it stays fresh.
    pub max_age: Option<Duration>,
    /// Seconds it stays fresh in a shared cache.
    pub s_maxage: Option<Duration>,
}

/// Larger numbers count as this one (RFC 9111 section 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

impl Directives {
    /// Reads the values of all `Cache-Control` lines of a message.
    ///
    /// A number that is none counts as 0: who meant to set a lifetime and failed is not cached. Of a directive
    /// given twice, the stricter one counts.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for directive in lines.into_iter().flat_map(split_outside_quotes) {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (directive.trim(), None),
            };
            found.note(&name.to_ascii_lowercase(), value);
        }
        found
    }

    fn note(&mut self, name: &str, value: Option<&str>) {
        match name {
            "no-store" => self.no_store = true,
            // With field names, they only cover those fields (sections 5.2.2.4 and 5.2.2.7); a cache may treat
            // them as if they covered everything, which is the safe reading.
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "max-age" => self.max_age = stricter(self.max_age, value),
            "s-maxage" => self.s_maxage = stricter(self.s_maxage, value),
            _ => {}
        }
    }
}

fn stricter(known: Option<Duration>, value: Option<&str>) -> Option<Duration> {
    let value = value.unwrap_or_default().trim_matches('"');
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if digits { value.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX) } else { 0 };
    let lifetime = Duration::from_secs(seconds);
    Some(known.map_or(lifetime, |known| known.min(lifetime)))
}

/// Splits at the commas that are not within a quoted string.
fn split_outside_quotes(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    line.split(move |character: char| {
        let ends = character == ',' && !quoted;
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && quoted && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn reads_what_it_knows() {
        let found = Directives::parse(["Max-Age=10 , public,", " no-cache=\"a, no-store\"", "ext"]);
        assert_eq!(found.max_age, seconds(10));
        assert!(found.public && found.no_cache && !found.no_store && !found.private);
    }

    #[test]
    fn doubtful_numbers_are_strict() {
        assert_eq!(Directives::parse(["max-age=ten"]).max_age, seconds(0));
        assert_eq!(Directives::parse(["max-age=-1"]).max_age, seconds(0));
        assert_eq!(Directives::parse(["max-age"]).max_age, seconds(0));
        assert_eq!(Directives::parse(["max-age=\"7\""]).max_age, seconds(7));
        assert_eq!(Directives::parse(["max-age=9, max-age=3"]).max_age, seconds(3));
        assert_eq!(Directives::parse(["max-age=99999999999999999999"]).max_age, seconds(1 << 31));
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,200}") {
            let _found = Directives::parse([line.as_str()]);
        }
    }
}
