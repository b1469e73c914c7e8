//! Walking over msgpack bytes without making values of them.

use rmp::Marker;

/// How deep values may be nested where they are looked into.
pub const MAX_DEPTH: usize = 128;

/// Extension type of an integer outside 64 bits: its payload is the number in decimal ASCII, with a leading
/// minus if negative.
pub const BIG_INTEGER: i8 = 1;

/// Digits that such an integer may have at most.
pub const BIG_INTEGER_DIGITS: usize = 4096;

/// Bytes ended inside a value, or the marker 0xc1 that msgpack never uses was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    Int(i64),
    Float32(f32),
    Float64(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Ext(i8, &'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many pairs of values follow.
    Map(u32),
}

/// Reads one token and moves `bytes` behind it.
pub(crate) fn token<'a>(bytes: &mut &'a [u8]) -> Result<Token<'a>, Malformed> {
    let marker = Marker::from_u8(take::<1>(bytes)?[0]);
    Ok(match marker {
        Marker::Null => Token::Nil,
        Marker::True => Token::Bool(true),
        Marker::False => Token::Bool(false),
        Marker::FixPos(value) => Token::Uint(value.into()),
        Marker::FixNeg(value) => Token::Int(value.into()),
        Marker::U8 => Token::Uint(take::<1>(bytes)?[0].into()),
        Marker::U16 => Token::Uint(u16::from_be_bytes(take(bytes)?).into()),
        Marker::U32 => Token::Uint(u32::from_be_bytes(take(bytes)?).into()),
        Marker::U64 => Token::Uint(u64::from_be_bytes(take(bytes)?)),
        Marker::I8 => Token::Int(i8::from_be_bytes(take(bytes)?).into()),
        Marker::I16 => Token::Int(i16::from_be_bytes(take(bytes)?).into()),
        Marker::I32 => Token::Int(i32::from_be_bytes(take(bytes)?).into()),
        Marker::I64 => Token::Int(i64::from_be_bytes(take(bytes)?)),
        Marker::F32 => Token::Float32(f32::from_be_bytes(take(bytes)?)),
        Marker::F64 => Token::Float64(f64::from_be_bytes(take(bytes)?)),
        Marker::FixStr(length) => Token::Str(slice(bytes, length.into())?),
        Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            let length = length(marker, bytes)?;
            Token::Str(slice(bytes, length)?)
        }
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
            let length = length(marker, bytes)?;
            Token::Bin(slice(bytes, length)?)
        }
        Marker::FixExt1
        | Marker::FixExt2
        | Marker::FixExt4
        | Marker::FixExt8
        | Marker::FixExt16
        | Marker::Ext8
        | Marker::Ext16
        | Marker::Ext32 => {
            let length = length(marker, bytes)?;
            let [kind] = take::<1>(bytes)?;
            Token::Ext(i8::from_be_bytes([kind]), slice(bytes, length)?)
        }
        Marker::FixArray(length) => Token::Array(length.into()),
        Marker::Array16 | Marker::Array32 => Token::Array(length(marker, bytes)?),
        Marker::FixMap(length) => Token::Map(length.into()),
        Marker::Map16 | Marker::Map32 => Token::Map(length(marker, bytes)?),
        Marker::Reserved => return Err(Malformed),
    })
}

/// Splits off the first value of `bytes`, however deep it is, without recursion.
pub(crate) fn value<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let start = *bytes;
    let mut missing: u64 = 1;
    while missing > 0 {
        missing -= 1;
        match token(bytes)? {
            Token::Array(length) => missing += u64::from(length),
            Token::Map(length) => missing += 2 * u64::from(length),
            _ => {}
        }
        // Each missing value needs a byte at least: says no before a header that lies is believed.
        if missing > bytes.len() as u64 {
            return Err(Malformed);
        }
    }
    Ok(&start[..start.len() - bytes.len()])
}

fn length(marker: Marker, bytes: &mut &[u8]) -> Result<u32, Malformed> {
    Ok(match marker {
        Marker::FixExt1 => 1,
        Marker::FixExt2 => 2,
        Marker::FixExt4 => 4,
        Marker::FixExt8 => 8,
        Marker::FixExt16 => 16,
        Marker::Str8 | Marker::Bin8 | Marker::Ext8 => take::<1>(bytes)?[0].into(),
        Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => {
            u16::from_be_bytes(take(bytes)?).into()
        }
        _ => u32::from_be_bytes(take(bytes)?),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*head)
}

fn slice<'a>(bytes: &mut &'a [u8], length: u32) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (head, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(head)
}
