//! A part of a stored whole (RFC 9110 section 14).

use super::date::{self, Moment};
use super::fields::{Fields, digits, elements};
use super::plan::Shape;
use super::stored::StoredResponse;
use super::validation::same_strongly;

/// Bytes of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub first: u64,
    /// Last byte, inclusive.
    pub last: u64,
    /// Bytes of the whole.
    pub length: u64,
}

impl Part {
    /// Value of `Content-Range`.
    #[must_use]
    pub fn content_range(&self) -> String {
        format!("bytes {}-{}/{}", self.first, self.last, self.length)
    }
}

/// How the `Range` of a request is answered from what is stored: with one part if it asks for one and the whole
/// is there; with the whole if it asks for several parts, in other units, is not well-formed, or is meant for
/// another representation (`If-Range`).
pub(super) fn shape<Q: Fields + ?Sized>(
    request: &Q,
    stored: &StoredResponse,
    moment: Moment,
) -> Shape {
    let mut lines = request.values("range");
    let (Some(value), None) = (lines.next(), lines.next()) else { return Shape::Whole };
    let (200, Some(length)) = (stored.status, stored.length) else { return Shape::Whole };
    if request.first("if-range").is_some_and(|value| !is_for(value, stored, moment)) {
        return Shape::Whole;
    }
    part(value, length).unwrap_or(Shape::Whole)
}

/// `If-Range` (RFC 9110 section 13.1.5): the same strong entity tag, or exactly the date of a last change that was
/// over for a second when the response was made.
fn is_for(value: &[u8], stored: &StoredResponse, moment: Moment) -> bool {
    if let Some(etag) = stored.etag.as_deref().filter(|etag| same_strongly(etag, value)) {
        return etag == value;
    }
    let date = date::parse(value, moment.unix_seconds());
    date.is_some() && date == stored.modified && stored.modified < Some(stored.date)
}

fn part(value: &[u8], length: u64) -> Option<Shape> {
    let value = value.trim_ascii();
    let (unit, set) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = elements(set);
    let (Some(spec), None) = (specs.next(), specs.next()) else { return None };
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    let (first, last) = if first.is_empty() {
        let suffix = digits(last, u64::MAX)?.min(length);
        (length - suffix, length)
    } else {
        let first = digits(first, u64::MAX)?;
        let last = if last.is_empty() { u64::MAX } else { digits(last, u64::MAX)? };
        if last < first {
            return None;
        }
        (first, last)
    };
    if first >= length {
        return Some(Shape::NotSatisfiable { length });
    }
    Some(Shape::Part(Part { first, last: last.min(length - 1), length }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(value: &str) -> Option<(u64, u64)> {
        match part(value.as_bytes(), 10)? {
            Shape::Part(part) => Some((part.first, part.last)),
            _ => Some((10, 10)),
        }
    }

    #[test]
    fn one_part_of_ten_bytes() {
        for (value, expected) in [
            ("bytes=0-1", Some((0, 1))),
            ("Bytes= 3-3 ", Some((3, 3))),
            ("bytes=1-", Some((1, 9))),
            ("bytes=-1", Some((9, 9))),
            ("bytes=-99", Some((0, 9))),
            ("bytes=8-99999999999999999999999", Some((8, 9))),
            ("bytes=10-", Some((10, 10))),
            ("bytes=-0", Some((10, 10))),
            ("bytes=99999999999999999999999-", Some((10, 10))),
            ("bytes=2-1", None),
            ("bytes=0-1,3-4", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("lines=0-1", None),
            ("bytes", None),
        ] {
            assert_eq!(bytes(value), expected, "{value}");
        }
        assert_eq!(part(b"bytes=0-", 0), Some(Shape::NotSatisfiable { length: 0 }));
        let part = Part { first: 2, last: 4, length: 9 };
        assert_eq!(part.content_range(), "bytes 2-4/9");
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_whole(value in "(bytes=)?[0-9]{0,3}-?[0-9]{0,3}(, ?[0-9-]{0,3})?", length in 0_u64..500) {
            match part(value.as_bytes(), length) {
                Some(Shape::Part(part)) => prop_assert!(part.first <= part.last && part.last < length),
                Some(Shape::NotSatisfiable { length: whole }) => prop_assert_eq!(whole, length),
                _ => {}
            }
        }

        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..30), length: u64) {
            let _shape = part(&value, length);
        }
    }
}
