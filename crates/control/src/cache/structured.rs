//! Structured dictionaries (RFC 8941 section 4.2.2), as far as targeted fields need them: the whole value is
//! checked, parameters and inner lists are read over.

/// The value of a member of a dictionary, as far as a cache directive can have one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// A whole number.
    Integer(i64),
    /// `?1`, or a key alone.
    True,
    /// `?0`.
    False,
    /// Text in quotes.
    Text(Vec<u8>),
    /// Anything else that is well-formed.
    Other,
}

/// Most members read; a value with more is not taken.
const MEMBERS_MAX: usize = 64;

/// Reads a dictionary. `None` if it is not well-formed; of a key given twice, the last value counts.
pub(super) fn dictionary(value: &[u8]) -> Option<Vec<(String, Item)>> {
    let mut input = Input(value);
    let mut members: Vec<(String, Item)> = Vec::new();
    input.skip(b" ");
    while !input.0.is_empty() {
        let key = input.key()?;
        let item = if input.eat(b'=') { input.item_or_list()? } else { Item::True };
        input.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, item));
        if members.len() > MEMBERS_MAX {
            return None;
        }
        input.skip(b" \t");
        if input.0.is_empty() {
            break;
        }
        if !input.eat(b',') {
            return None;
        }
        input.skip(b" \t");
        if input.0.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((&first, rest)) if first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.take(|byte| bytes.contains(&byte));
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| !wanted(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.0.first()?;
        if !first.is_ascii_lowercase() && first != b'*' {
            return None;
        }
        let key = self.take(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        });
        Some(String::from_utf8_lossy(key).into_owned())
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Item> {
        if !self.eat(b'(') {
            return self.item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.text(),
            b':' => self.bytes(),
            b'?' => self.truth(),
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.take(|byte| {
                    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
                });
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.eat(b'-');
        let whole = self.take(|byte| byte.is_ascii_digit());
        if self.eat(b'.') {
            let part = self.take(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&part.len());
            return fits.then_some(Item::Other);
        }
        if whole.len() > 15 {
            return None;
        }
        let number = super::fields::digits(whole, i64::MAX as u64)? as i64;
        Some(Item::Integer(if negative { -number } else { number }))
    }

    fn text(&mut self) -> Option<Item> {
        self.eat(b'"');
        let mut text = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(Item::Text(text)),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    if escaped != b'"' && escaped != b'\\' {
                        return None;
                    }
                    text.push(escaped);
                }
                0x20..=0x7e => text.push(byte),
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Item> {
        self.eat(b':');
        self.take(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.eat(b':').then_some(Item::Other)
    }

    fn truth(&mut self) -> Option<Item> {
        self.eat(b'?');
        if self.eat(b'1') { Some(Item::True) } else { self.eat(b'0').then_some(Item::False) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_members_of_every_type() {
        let read = dictionary(
            b"a=1, b;x=2,  c=\"d\\\"e\", f=?0, g=(1 \"h\";i 2.5);j, k=tok/en, l=:YQ==:, m=-3, a=7",
        );
        let keys = ["b", "c", "f", "g", "k", "l", "m", "a"];
        let items = [
            Item::True,
            Item::Text(b"d\"e".to_vec()),
            Item::False,
            Item::Other,
            Item::Other,
            Item::Other,
            Item::Integer(-3),
            Item::Integer(7),
        ];
        let expected: Vec<_> = keys.into_iter().map(str::to_owned).zip(items).collect();
        assert_eq!(read, Some(expected));
        assert_eq!(dictionary(b"  "), Some(vec![]));
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        for text in [
            "max-age=1, &&&&&",
            "Max-Age=1",
            "max-age =1",
            "max-age= 1",
            "a,",
            "a b",
            "a=",
            "a=\"b",
            "a=(1",
            "a=(1\"b\")",
            "a=1.2345",
            "a=1234567890123456",
            "a=?2",
            "a=:b",
            "a=\u{e9}",
            ",a",
        ] {
            assert_eq!(dictionary(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let _read = dictionary(&value);
        }

        #[test]
        fn almost_dictionaries_never_panic(value in "([a-z*][a-z-]{0,3}(=[-0-9a-z.\"?:(); ]{0,8})?[,; ]{0,2}){0,5}") {
            let _read = dictionary(value.as_bytes());
        }
    }
}
