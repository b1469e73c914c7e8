use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use rmp::encode as mp;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::pack::{BIG_INTEGER, BIG_INTEGER_DIGITS};

/// How deep a body may be nested that holds an integer outside 64 bits: such a body is read once per level.
const EXACT_DEPTH: usize = 32;

/// An empty msgpack array.
const NO_ARGS: &[u8] = &[0x90];
/// An empty msgpack map.
const NO_KWARGS: &[u8] = &[0x80];

/// What a function is called with, in msgpack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Positional arguments: one array.
    pub args: Bytes,
    /// Keyword arguments: one map with string keys.
    pub kwargs: Bytes,
}

/// Why a body is no call.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// It is not JSON. Line and column of the place are in the text.
    #[error("the body is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// It holds an integer that is too long.
    #[error("the body holds an integer of more than {BIG_INTEGER_DIGITS} digits")]
    IntegerTooLong,
    /// It holds a number that no float can hold, such as 1e400.
    #[error("the body holds the number {0}, which is out of range")]
    NumberOutOfRange(String),
    /// It holds an integer outside 64 bits and is nested too deep for one that does.
    #[error(
        "the body holds an integer outside 64 bits and is nested deeper than {EXACT_DEPTH} levels"
    )]
    TooDeep,
    /// The body is longer than msgpack's 4-byte length can say.
    #[error("a body of {0} bytes is longer than one argument can be")]
    TooLong(usize),
}

impl Arguments {
    /// A call without arguments.
    #[must_use]
    pub fn none() -> Self {
        Self { args: Bytes::from_static(NO_ARGS), kwargs: Bytes::from_static(NO_KWARGS) }
    }

    /// A call with one argument of bytes.
    ///
    /// # Errors
    /// If `bytes` are 4 GiB or more.
    pub fn bytes(bytes: &[u8]) -> Result<Self, ArgumentsError> {
        let length =
            u32::try_from(bytes.len()).map_err(|_| ArgumentsError::TooLong(bytes.len()))?;
        let mut out = BytesMut::with_capacity(bytes.len() + 6);
        out.put_u8(0x91);
        mp::write_bin_len(&mut (&mut out).writer(), length).expect("memory takes every write");
        out.put_slice(bytes);
        Ok(Self { args: out.freeze(), kwargs: Bytes::from_static(NO_KWARGS) })
    }

    /// The call that a JSON text stands for: the members of an object are keyword arguments, the elements of
    /// an array positional ones, anything else is the one argument. Integers keep their value, however long
    /// (see [`BIG_INTEGER`]); a name that comes twice counts as it came last.
    ///
    /// # Errors
    /// If the text is not JSON or holds what cannot be passed on; see [`ArgumentsError`].
    pub fn json(text: &[u8]) -> Result<Self, ArgumentsError> {
        let packed = json_value(text)?;
        Ok(match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => Self { args: Bytes::from_static(NO_ARGS), kwargs: packed.slice(1..) },
            Some(b'[') => Self { args: packed.slice(1..), kwargs: Bytes::from_static(NO_KWARGS) },
            _ => Self { args: packed, kwargs: Bytes::from_static(NO_KWARGS) },
        })
    }
}

/// The JSON value in msgpack, behind the marker of an array of one.
fn json_value(text: &[u8]) -> Result<Bytes, ArgumentsError> {
    let mut out = BytesMut::with_capacity(text.len() + 16);
    out.put_u8(0x91);
    let mut long_integer = false;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let quick = Quick { out: &mut out, long_integer: &mut long_integer };
    if let Err(error) = quick.deserialize(&mut reader).and_then(|()| reader.end()) {
        out.truncate(1);
        match exact(serde_json::from_slice(text)?, &mut out, EXACT_DEPTH) {
            Err(ArgumentsError::TooDeep) if !long_integer => return Err(error.into()),
            packed => packed?,
        }
    }
    Ok(out.freeze())
}

/// Packs a value as the parser goes over it. The parser makes a float of an integer outside 64 bits, and refuses
/// one of more than 308 digits: at either, this stops and [`exact`] takes over.
struct Quick<'a> {
    out: &'a mut BytesMut,
    long_integer: &'a mut bool,
}

impl Quick<'_> {
    fn again(&mut self) -> Quick<'_> {
        Quick { out: self.out, long_integer: self.long_integer }
    }
}

impl<'de> DeserializeSeed<'de> for Quick<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Quick<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.out.put_u8(rmp::Marker::Null.to_u8());
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        put_bool(self.out, value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        mp::write_uint(&mut self.out.writer(), value).expect("memory takes every write");
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        mp::write_sint(&mut self.out.writer(), value).expect("memory takes every write");
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if value.abs() >= 9_223_372_036_854_775_808.0 {
            *self.long_integer = true;
            return Err(E::custom("perhaps a long integer"));
        }
        put_f64(self.out, value);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        put_str(self.out, value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let header = open(self.out, rmp::Marker::Array32);
        let mut count: u32 = 0;
        while items.next_element_seed(self.again())?.is_some() {
            count = count.checked_add(1).ok_or_else(|| A::Error::custom("too many elements"))?;
        }
        close(self.out, header, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let header = open(self.out, rmp::Marker::Map32);
        let mut count: u32 = 0;
        while members.next_key_seed(self.again())?.is_some() {
            members.next_value_seed(self.again())?;
            count = count.checked_add(1).ok_or_else(|| A::Error::custom("too many members"))?;
        }
        close(self.out, header, count);
        Ok(())
    }
}

/// Packs a value from its text, level by level, and so sees integers as they were written.
fn exact(raw: &RawValue, out: &mut BytesMut, depth: usize) -> Result<(), ArgumentsError> {
    let text = raw.get();
    let Some(depth) = depth.checked_sub(1) else {
        return Err(ArgumentsError::TooDeep);
    };
    match text.as_bytes()[0] {
        b'n' => out.put_u8(rmp::Marker::Null.to_u8()),
        b't' => put_bool(out, true),
        b'f' => put_bool(out, false),
        b'"' => {
            let value: Cow<'_, str> = serde_json::from_str(text)?;
            put_str(out, &value)?;
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let header = open(out, rmp::Marker::Array32);
            for item in &items {
                exact(item, out, depth)?;
            }
            close(out, header, items.len().try_into().map_err(|_| ArgumentsError::TooDeep)?);
        }
        b'{' => {
            let Members(members) = serde_json::from_str(text)?;
            let header = open(out, rmp::Marker::Map32);
            for (name, value) in &members {
                put_str(out, name)?;
                exact(value, out, depth)?;
            }
            close(out, header, members.len().try_into().map_err(|_| ArgumentsError::TooDeep)?);
        }
        _ => number(text, out)?,
    }
    Ok(())
}

/// The members of an object in their order, with values as text.
struct Members<'de>(Vec<(Cow<'de, str>, &'de RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        reader.deserialize_map(Collect)
    }
}

fn number(text: &str, out: &mut BytesMut) -> Result<(), ArgumentsError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if let Ok(value) = text.parse::<i64>() {
        mp::write_sint(&mut out.writer(), value).expect("memory takes every write");
    } else if let Ok(value) = text.parse::<u64>() {
        mp::write_uint(&mut out.writer(), value).expect("memory takes every write");
    } else if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() > BIG_INTEGER_DIGITS {
            return Err(ArgumentsError::IntegerTooLong);
        }
        let length = u32::try_from(text.len()).map_err(|_| ArgumentsError::IntegerTooLong)?;
        mp::write_ext_meta(&mut (&mut *out).writer(), length, BIG_INTEGER)
            .expect("memory takes every write");
        out.put_slice(text.as_bytes());
    } else {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => put_f64(out, value),
            _ => return Err(ArgumentsError::NumberOutOfRange(text.chars().take(40).collect())),
        }
    }
    Ok(())
}

fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { rmp::Marker::True } else { rmp::Marker::False }.to_u8());
}

fn put_f64(out: &mut BytesMut, value: f64) {
    out.put_u8(rmp::Marker::F64.to_u8());
    out.put_f64(value);
}

fn put_str(out: &mut BytesMut, value: &str) -> Result<(), ArgumentsError> {
    let length = u32::try_from(value.len()).map_err(|_| ArgumentsError::TooLong(value.len()))?;
    mp::write_str_len(&mut (&mut *out).writer(), length).expect("memory takes every write");
    out.put_slice(value.as_bytes());
    Ok(())
}

/// Begins an array or a map whose length is not known yet; returns where its length goes.
fn open(out: &mut BytesMut, marker: rmp::Marker) -> usize {
    out.put_u8(marker.to_u8());
    out.put_u32(0);
    out.len() - 4
}

fn close(out: &mut BytesMut, header: usize, count: u32) {
    out[header..header + 4].copy_from_slice(&count.to_be_bytes());
}
