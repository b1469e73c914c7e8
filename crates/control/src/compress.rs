//! Content codings: which one an answer gets, and whether it gets one at all (RFC 9110 sections 8.4 and 12.5.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::Fields;
use crate::config::HumanSize;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

/// What of a route's answers is compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Compress {
    /// Whether it is, with the usual rules.
    Switch(bool),
    /// The codings to choose from, the best first.
    Codings(Vec<Coding>),
    /// All of the rules.
    Rules(CompressRules),
}

/// What is compressed, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompressRules {
    /// The codings to choose from, the best first.
    pub codings: Vec<Coding>,
    /// Shortest body that is compressed; one whose length is not known is compressed, too.
    pub min_size: HumanSize,
    /// Media types that are compressed: "application/json", "text/*", or "+json" for all that end so.
    pub types: Vec<String>,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

impl Default for CompressRules {
    fn default() -> Self {
        let types = ["text/*", "application/json", "application/javascript", "application/xml"];
        let more = ["application/wasm", "application/x-ndjson", "image/svg+xml", "+json", "+xml"];
        Self {
            codings: Coding::ALL.to_vec(),
            min_size: HumanSize::from_kib(1),
            types: types.into_iter().chain(more).map(str::to_owned).collect(),
        }
    }
}

impl Compress {
    /// The rules; `None` if nothing is compressed.
    #[must_use]
    pub fn rules(&self) -> Option<CompressRules> {
        match self {
            Self::Switch(false) => None,
            Self::Switch(true) => Some(CompressRules::default()),
            Self::Codings(codings) => {
                Some(CompressRules { codings: codings.clone(), ..CompressRules::default() })
            }
            Self::Rules(rules) => Some(rules.clone()),
        }
    }

    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let rules = self.rules()?;
        let wrong = |name: &String| !name.starts_with('+') && !name.contains('/');
        if rules.codings.is_empty() {
            return Some("compress names no coding");
        }
        rules
            .types
            .iter()
            .any(wrong)
            .then_some("compress.types are like \"text/html\", \"text/*\" or \"+json\"")
    }
}

impl CompressRules {
    /// The coding for a client that accepts these lines of `Accept-Encoding`: the one that it likes best, and of those
    /// that it likes alike, the first of the rules. `None` if it takes none, or likes the plain body better.
    #[must_use]
    pub fn choose<'a>(&self, accepted: impl IntoIterator<Item = &'a [u8]>) -> Option<Coding> {
        let mut named = [None::<u16>; 3];
        let (mut others, mut plain) = (0, 0);
        for line in accepted {
            for element in line.split(|byte| *byte == b',') {
                let (name, weight) = weighed(element);
                match name.to_ascii_lowercase().as_slice() {
                    b"*" => others = weight,
                    b"identity" => plain = weight,
                    b"x-gzip" => named[Coding::Gzip as usize] = Some(weight),
                    name => {
                        let coding =
                            Coding::ALL.into_iter().find(|it| it.name().as_bytes() == name);
                        coding.into_iter().for_each(|it| named[it as usize] = Some(weight));
                    }
                }
            }
        }
        let weight = |coding: Coding| named[coding as usize].unwrap_or(others);
        let taken = self.codings.iter().copied().filter(|coding| weight(*coding) > 0);
        // The first of the heaviest.
        let best = taken.rev().max_by_key(|coding| weight(*coding))?;
        (weight(best) >= plain).then_some(best)
    }

    /// Whether an answer is one that is compressed: it has not been already, nor is a part, it does not forbid it, and
    /// it is of a kind and length that it helps.
    #[must_use]
    pub fn fits<F: Fields + ?Sized>(&self, status: u16, fields: &F, length: Option<u64>) -> bool {
        if status < 200 || matches!(status, 204..=206 | 304 | 416) {
            return false;
        }
        if length.is_some_and(|length| length < self.min_size.bytes()) {
            return false;
        }
        let mut media = None;
        for (name, value) in fields.pairs() {
            match name {
                "content-encoding" if !value.eq_ignore_ascii_case(b"identity") => return false,
                "content-range" => return false,
                "cache-control" if forbids(value) => return false,
                "content-type" => media = std::str::from_utf8(value).ok(),
                _ => {}
            }
        }
        media.is_some_and(|media| self.takes(media))
    }

    fn takes(&self, media: &str) -> bool {
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.types.iter().any(|kind| match kind.strip_suffix('*') {
            Some(begin) => media.starts_with(begin),
            None if kind.starts_with('+') => media.ends_with(kind.as_str()),
            None => media == *kind,
        })
    }
}

fn forbids(cache_control: &[u8]) -> bool {
    let mut words = cache_control.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    words.any(|word| word.eq_ignore_ascii_case(b"no-transform"))
}

/// An element and its weight in thousandths; one whose weight cannot be read has none.
fn weighed(element: &[u8]) -> (&[u8], u16) {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let weight =
        parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    (name, weight.map_or(1_000, thousandths))
}

/// A weight: 0 to 1 with at most three digits behind the point.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, digits) = match text {
        [b'0' | b'1'] => (text[0], &text[1..]),
        [b'0' | b'1', b'.', digits @ ..] if digits.len() <= 3 => (text[0], digits),
        _ => return 0,
    };
    let mut value = 0;
    for place in 0..3 {
        let digit = match digits.get(place) {
            None => 0,
            Some(digit) if digit.is_ascii_digit() => u16::from(digit - b'0'),
            Some(_) => return 0,
        };
        value = value * 10 + digit;
    }
    (value + 1_000 * u16::from(whole - b'0')).min(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accepted: &str) -> Option<&'static str> {
        CompressRules::default().choose([accepted.as_bytes()]).map(Coding::name)
    }

    #[test]
    fn the_client_chooses_by_weight_and_the_rules_among_equals() {
        for (accepted, coding) in [
            ("", None),
            ("deflate", None),
            ("gzip", Some("gzip")),
            ("x-gzip;q=1", Some("gzip")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip;q=1.0, br;q=0.9", Some("gzip")),
            ("gzip;q=0, *", Some("zstd")),
            ("*;q=0, gzip;q=0.001", Some("gzip")),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some("gzip")),
            ("identity, gzip", Some("gzip")),
            ("GZIP ; q=0.5", Some("gzip")),
            ("gzip;q=0.0000", None),
            ("gzip;q=2", None),
            ("gzip;q=x", None),
            ("gzip;q=1.5", Some("gzip")),
            ("br;q=0, gzip;q=0", None),
        ] {
            assert_eq!(chosen(accepted), coding, "{accepted}");
        }
        let rules = CompressRules { codings: vec![Coding::Gzip, Coding::Br], ..Default::default() };
        assert_eq!(rules.choose([&b"br"[..], b"gzip"]), Some(Coding::Gzip));
        assert_eq!(rules.choose([&b"zstd"[..]]), None);
    }

    #[test]
    fn only_what_it_helps_is_compressed() {
        let rules = CompressRules::default();
        let fits = |status, fields: &[(&str, &str)], length| rules.fits(status, fields, length);
        let json = ("content-type", "application/json; charset=utf-8");
        assert!(fits(200, &[json], Some(5_000)) && fits(404, &[json], None));
        assert!(!fits(200, &[json], Some(100)), "too short");
        for status in [101, 204, 206, 304, 416] {
            assert!(!fits(status, &[json], None), "{status}");
        }
        assert!(fits(200, &[("content-type", "Text/HTML")], None));
        assert!(fits(200, &[("content-type", "application/problem+json")], None));
        assert!(!fits(200, &[("content-type", "image/png")], None) && !fits(200, &[], None));
        for field in [
            ("content-encoding", "gzip"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "max-age=1, No-Transform"),
        ] {
            assert!(!fits(200, &[json, field], None), "{field:?}");
        }
        assert!(fits(200, &[json, ("content-encoding", "identity")], None));
    }
}
