/// The header fields of a message, whatever type holds them: names in lower case, values as bytes, in the order
/// in which they came.
///
/// A live gateway implements it for a reference to its header map, so nothing is copied; plain slices of pairs
/// have it already.
pub trait Fields {
    /// All lines, in order; a name that came several times comes several times.
    fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])>;

    /// The values of all lines called `name` (lower case), in order.
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.pairs().filter(move |(this, _)| *this == name).map(|(_, value)| value)
    }

    /// The value of the first line called `name`, without white space around it.
    fn first<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next().map(<[u8]>::trim_ascii)
    }

    /// Whether there is a line called `name`.
    fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Fields for [(N, V)] {
    fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Fields for Vec<(N, V)> {
    fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.as_slice().pairs()
    }
}

/// The elements of a comma-separated value, without white space around them and without the empty ones
/// (RFC 9110 section 5.6.1). A comma within a quoted string does not separate.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |&byte| {
            let separates = byte == b',' && !quoted;
            if byte == b'"' && !escaped {
                quoted = !quoted;
            }
            escaped = byte == b'\\' && quoted && !escaped;
            separates
        })
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// A token in lower case, if the bytes are one (RFC 9110 section 5.6.2).
pub(super) fn lower_token(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() || !bytes.iter().copied().all(is_token_byte) {
        return None;
    }
    std::str::from_utf8(bytes).ok().map(str::to_ascii_lowercase)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A whole number of decimal digits and nothing else; one that is too large counts as `max`.
pub(super) fn digits(bytes: &[u8], max: u64) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = bytes.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    });
    Some(number.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_do_not_separate() {
        let found: Vec<&[u8]> = elements(b" a , \"b, \\\", c\" ,, d=\"e,f\",g").collect();
        assert_eq!(found, [&b"a"[..], b"\"b, \\\", c\"", b"d=\"e,f\"", b"g"]);
    }

    #[test]
    fn numbers_are_digits_only_and_bounded() {
        assert_eq!(digits(b"007", 100), Some(7));
        assert_eq!(digits(b"99999999999999999999999", 100), Some(100));
        for wrong in [&b""[..], b"-1", b"+1", b"1.0", b" 1", b"a"] {
            assert_eq!(digits(wrong, 100), None);
        }
    }

    #[test]
    fn pairs_answer_by_name() {
        let fields = vec![("a", "1"), ("b", " 2 "), ("a", "3")];
        assert_eq!(fields.values("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(fields.first("b"), Some(&b"2"[..]));
        assert!(!fields.has("c"));
    }
}
