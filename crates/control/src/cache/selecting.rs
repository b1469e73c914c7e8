//! Which stored response a request selects: `Vary` (RFC 9111 section 4.1).

use serde::{Deserialize, Serialize};

use super::fields::{Fields, elements, lower_token};

/// Most names in a `Vary`; a response with more fits no other request.
const NAMES_MAX: usize = 32;
/// Longest values of all selecting fields of a response together, in bytes; beyond, it fits no other request.
const VALUES_MAX: usize = 16 * 1024;

/// Longest line that is kept beside its normalised form, in bytes.
const LINE_MAX: usize = 512;

/// The fields of the request that a stored response was made for, as far as its `Vary` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selecting {
    /// Sorted by name.
    fields: Vec<Wanted>,
    /// The one language of the response, in lower case, if it varies by `Accept-Language`.
    language: Option<Box<[u8]>>,
}

/// A field that a request must have to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    /// Name in lower case.
    name: String,
    /// Normalised value; `None` if the request did not have it.
    value: Option<Box<[u8]>>,
    /// The one line that it came in, where that differs: most requests that fit have the same one, and then
    /// nothing needs to be normalised.
    as_sent: Option<Box<[u8]>>,
}

impl Selecting {
    /// What a request must have for this response to fit it. `None` if no other request can be known to fit:
    /// `Vary: *`, anywhere in the list, and what is no list of field names.
    #[must_use]
    pub fn of<Q: Fields + ?Sized, R: Fields + ?Sized>(request: &Q, response: &R) -> Option<Self> {
        let mut names: Vec<String> = Vec::new();
        for element in response.values("vary").flat_map(elements) {
            if element == b"*" {
                return None;
            }
            names.push(lower_token(element)?);
        }
        names.sort_unstable();
        names.dedup();
        if names.len() > NAMES_MAX {
            return None;
        }
        let language = names.iter().any(|name| name == "accept-language");
        let fields: Vec<_> = names.into_iter().map(|name| Wanted::of(request, name)).collect();
        let size: usize =
            fields.iter().map(|wanted| wanted.value.as_ref().map_or(0, |value| value.len())).sum();
        (size <= VALUES_MAX)
            .then(|| Self { fields, language: if language { language_of(response) } else { None } })
    }

    /// Whether a request selects the response.
    #[must_use]
    pub fn fits<Q: Fields + ?Sized>(&self, request: &Q) -> bool {
        self.fields.iter().all(|wanted| {
            wanted.is_in(request)
                || (wanted.name == "accept-language" && self.speaks_first_choice(request))
        })
    }

    /// Whether both were made for the same request, as far as they vary.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.fields.len() == other.fields.len()
            && self
                .fields
                .iter()
                .zip(&other.fields)
                .all(|(one, other)| (&one.name, &one.value) == (&other.name, &other.value))
    }

    /// Names of the fields that the response varies by, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|wanted| wanted.name.as_str())
    }

    /// Whether the response is in the one language that the request likes best: any server that has it would
    /// choose it.
    fn speaks_first_choice<Q: Fields + ?Sized>(&self, request: &Q) -> bool {
        let (Some(language), mut values) = (&self.language, request.values("accept-language"))
        else {
            return false;
        };
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        first_choice(value).is_some_and(|choice| choice.eq_ignore_ascii_case(language))
    }
}

impl Wanted {
    fn of<Q: Fields + ?Sized>(request: &Q, name: String) -> Self {
        let value = normalised(request, &name).map(Vec::into_boxed_slice);
        let lines = {
            let mut lines = request.values(&name);
            (lines.next(), lines.next())
        };
        let as_sent = match lines {
            (Some(line), None) if Some(line) != value.as_deref() && line.len() <= LINE_MAX => {
                Some(Box::from(line))
            }
            _ => None,
        };
        Self { name, value, as_sent }
    }

    fn is_in<Q: Fields + ?Sized>(&self, request: &Q) -> bool {
        let mut lines = request.values(&self.name);
        let (first, second) = (lines.next(), lines.next());
        match (first, self.value.as_deref()) {
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some(line), Some(value)) => {
                let line = Some(line).filter(|_| second.is_none());
                line == Some(value)
                    || (line.is_some() && line == self.as_sent.as_deref())
                    || normalised(request, &self.name).is_some_and(|other| *other == *value)
            }
        }
    }
}

/// A request field in the form in which values are compared: all its lines as one list, without optional white
/// space; where order and case mean nothing, sorted and in lower case. `None` if it is missing.
pub(super) fn normalised<F: Fields + ?Sized>(fields: &F, name: &str) -> Option<Vec<u8>> {
    let mut values = fields.values(name).peekable();
    values.peek()?;
    if !matches!(name, "accept-language" | "accept-encoding" | "accept-charset") {
        return Some(values.flat_map(elements).collect::<Vec<_>>().join(&b','));
    }
    let mut parts: Vec<Vec<u8>> = values
        .flat_map(elements)
        .map(|part| {
            let dense = part.iter().filter(|byte| !byte.is_ascii_whitespace());
            dense.map(u8::to_ascii_lowercase).collect()
        })
        .collect();
    parts.sort_unstable();
    Some(parts.join(&b','))
}

/// The language with the highest weight, if it is alone.
fn first_choice(value: &[u8]) -> Option<&[u8]> {
    let mut best: Option<(&[u8], u32)> = None;
    let mut alone = true;
    for element in elements(value) {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let language = parts.next()?;
        let weight = match parts.next() {
            None => 1_000,
            Some(weight) => thousandths(weight)?,
        };
        match best {
            Some((_, top)) if weight < top => {}
            Some((_, top)) if weight == top => alone = false,
            _ => (best, alone) = (Some((language, weight)), true),
        }
    }
    best.filter(|&(language, weight)| alone && weight > 0 && language != b"*")
        .map(|(language, _)| language)
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2).
fn thousandths(weight: &[u8]) -> Option<u32> {
    let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="))?;
    let (whole, part) = match value.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if part.len() > 3 || !matches!(whole, b"0" | b"1") || !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let scale = [100, 10, 1];
    let part: u32 =
        part.iter().zip(scale).map(|(digit, unit)| u32::from(digit - b'0') * unit).sum();
    Some((u32::from(whole[0] - b'0') * 1_000 + part).min(1_000))
}

fn language_of<R: Fields + ?Sized>(response: &R) -> Option<Box<[u8]>> {
    let mut languages = response.values("content-language").flat_map(elements);
    match (languages.next(), languages.next()) {
        (Some(language), None) => Some(language.to_ascii_lowercase().into_boxed_slice()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(vary: &[&str], stored: &[(&str, &str)], request: &[(&str, &str)]) -> bool {
        let response: Vec<_> = vary.iter().map(|value| ("vary", *value)).collect();
        Selecting::of(stored, &response).is_some_and(|selecting| selecting.fits(request))
    }

    #[test]
    fn a_star_anywhere_fits_no_request() {
        let lists: [&[&str]; 6] =
            [&["*"], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["foo, *, bar"]];
        for vary in lists {
            assert!(!fits(vary, &[("foo", "1")], &[("foo", "1")]), "{vary:?}");
        }
        assert!(!fits(&["foo bar"], &[], &[]), "no list of names");
    }

    #[test]
    fn the_named_fields_must_be_the_same() {
        let stored = [("foo", "1"), ("bar", "abc"), ("other", "2")];
        assert!(fits(&["Foo, Bar"], &stored, &[("bar", "abc"), ("foo", "1"), ("other", "3")]));
        assert!(!fits(&["foo", "bar"], &stored, &[("foo", "1"), ("bar", "abcde")]));
        assert!(!fits(&["foo"], &stored, &[]), "it misses in the request");
        assert!(!fits(&["foo"], &[], &stored), "it missed in the stored request");
        assert!(fits(&["foo"], &[], &[("bar", "1")]), "it misses in both");
    }

    #[test]
    fn lines_and_white_space_mean_nothing() {
        assert!(fits(&["foo"], &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]));
        assert!(fits(&["foo"], &[("foo", "1,2")], &[("foo", " 1, 2 ")]));
        assert!(!fits(&["foo"], &[("foo", "1,2")], &[("foo", "2,1")]), "order may");
        assert!(
            !fits(&["foo"], &[("foo", "\"1, 2\"")], &[("foo", "\"1,2\"")]),
            "within quotes too"
        );
        assert!(!fits(&["foo"], &[("foo", "a")], &[("foo", "A")]), "case may");
    }

    #[test]
    fn languages_have_neither_order_nor_case() {
        let stored = [("accept-language", "en, de")];
        for same in ["de, en", "eN, De", " en ,   de"] {
            assert!(fits(&["accept-language"], &stored, &[("accept-language", same)]), "{same}");
        }
        assert!(!fits(&["accept-language"], &stored, &[("accept-language", "en, de;q=0.5")]));
    }

    #[test]
    fn the_language_liked_best_is_taken() {
        let selecting = Selecting::of(
            &[("accept-language", "en, de")][..],
            &[("vary", "accept-language"), ("content-language", "de")][..],
        )
        .unwrap();
        let fits = |value: &str| selecting.fits(&[("accept-language", value)][..]);
        assert!(fits("fr;q=0.5, DE;q=1.0"));
        assert!(!fits("fr, de"), "liked as much as another");
        assert!(!fits("fr;q=0.9, de;q=0.8"));
        assert!(!fits("de;q=x"));
        assert!(!fits("de;q=0"));
    }

    #[test]
    fn sizes_are_bounded() {
        let names: Vec<_> = (0..=NAMES_MAX).map(|n| ("vary", format!("f{n}"))).collect();
        let none: [(&str, &str); 0] = [];
        assert_eq!(Selecting::of(&none[..], &names), None);
        let large = [("foo", "x".repeat(VALUES_MAX + 1))];
        assert_eq!(Selecting::of(&large[..], &[("vary", "foo")][..]), None);
    }

    proptest! {
        #[test]
        fn a_request_fits_what_was_stored_for_it(
            vary in "[a-c, *]{0,8}",
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 3),
        ) {
            let names = ["a", "b", "accept-language"];
            let request: Vec<_> = names.into_iter().zip(values).collect();
            if let Some(selecting) = Selecting::of(&request, &[("vary", vary), ("vary", "accept-language".to_owned())][..]) {
                prop_assert!(selecting.fits(&request));
            }
        }
    }
}
