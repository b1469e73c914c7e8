use bytes::{BufMut, Bytes, BytesMut};

use crate::pack::{self, BIG_INTEGER, BIG_INTEGER_DIGITS, MAX_DEPTH, Malformed, Token};

/// A result as the body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: Bytes,
}

/// Why a result cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The worker sent what is no msgpack value.
    #[error("the worker's result is not one msgpack value")]
    Malformed,
    /// JSON has no word for something in it.
    #[error("the result cannot be sent as JSON: {what} at {place}")]
    NoJson {
        /// What it is.
        what: &'static str,
        /// Where it is: `$` is the result, `$.a[3]` an element in it.
        place: String,
    },
}

/// The first problem, and the way to it from the inside out.
struct Problem {
    what: Option<&'static str>,
    place: String,
}

impl From<Malformed> for Problem {
    fn from(Malformed: Malformed) -> Self {
        Self { what: None, place: String::new() }
    }
}

impl Problem {
    fn new(what: &'static str) -> Self {
        Self { what: Some(what), place: String::new() }
    }

    fn within(mut self, step: &str) -> Self {
        self.place.insert_str(0, step);
        self
    }
}

impl Reply {
    /// What a result is sent as: a string as text, bytes as octets, anything else as JSON.
    ///
    /// In JSON, integers keep their value, however long; keys that are numbers, booleans or nil become strings,
    /// as in Python's `json`. NaN, infinities and bytes inside have no JSON: they are errors.
    ///
    /// # Errors
    /// If the value is no msgpack, or JSON has no word for it; see [`ReplyError`].
    pub fn from_value(value: &Bytes) -> Result<Self, ReplyError> {
        let mut rest = value.as_ref();
        let first = pack::token(&mut rest).map_err(|Malformed| ReplyError::Malformed)?;
        let (content_type, body) = match first {
            Token::Str(text) if std::str::from_utf8(text).is_ok() => {
                ("text/plain; charset=utf-8", value.slice_ref(text))
            }
            Token::Bin(bytes) => ("application/octet-stream", value.slice_ref(bytes)),
            _ => {
                rest = value.as_ref();
                let mut out = BytesMut::with_capacity(value.len() * 2);
                json(&mut rest, &mut out, MAX_DEPTH).map_err(|problem| match problem.what {
                    None => ReplyError::Malformed,
                    Some(what) => ReplyError::NoJson { what, place: format!("${}", problem.place) },
                })?;
                ("application/json", out.freeze())
            }
        };
        if rest.is_empty() { Ok(Self { content_type, body }) } else { Err(ReplyError::Malformed) }
    }
}

fn json(bytes: &mut &[u8], out: &mut BytesMut, depth: usize) -> Result<(), Problem> {
    match pack::token(bytes)? {
        Token::Array(length) => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            out.put_u8(b'[');
            for index in 0..length {
                if index > 0 {
                    out.put_u8(b',');
                }
                json(bytes, out, depth).map_err(|problem| problem.within(&format!("[{index}]")))?;
            }
            out.put_u8(b']');
        }
        Token::Map(length) => {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            out.put_u8(b'{');
            for index in 0..length {
                if index > 0 {
                    out.put_u8(b',');
                }
                let start = out.len();
                key(bytes, out)?;
                let end = out.len();
                out.put_u8(b':');
                json(bytes, out, depth).map_err(|problem| {
                    let name = String::from_utf8_lossy(&out[start + 1..end - 1]).into_owned();
                    problem.within(&format!(".{name}"))
                })?;
            }
            out.put_u8(b'}');
        }
        Token::Str(text) => string(text, out)?,
        Token::Bin(_) => return Err(Problem::new("bytes")),
        token => plain(token, out)?,
    }
    Ok(())
}

/// A key is written as a string whatever it was.
fn key(bytes: &mut &[u8], out: &mut BytesMut) -> Result<(), Problem> {
    match pack::token(bytes)? {
        Token::Str(text) => string(text, out),
        Token::Bin(_) => Err(Problem::new("a key of bytes")),
        Token::Array(_) | Token::Map(_) => Err(Problem::new("a key that is a list or a map")),
        token => {
            out.put_u8(b'"');
            plain(token, out)?;
            out.put_u8(b'"');
            Ok(())
        }
    }
}

/// What has no parts and needs no quotes.
fn plain(token: Token<'_>, out: &mut BytesMut) -> Result<(), Problem> {
    match token {
        Token::Nil => out.put_slice(b"null"),
        Token::Bool(value) => out.put_slice(if value { b"true" } else { b"false" }),
        Token::Uint(value) => write(out, &value),
        Token::Int(value) => write(out, &value),
        Token::Float32(value) if value.is_finite() => write(out, &value),
        Token::Float64(value) if value.is_finite() => write(out, &value),
        Token::Float32(value) => return Err(not_finite(value.is_nan())),
        Token::Float64(value) => return Err(not_finite(value.is_nan())),
        Token::Ext(BIG_INTEGER, digits) => {
            let bare = digits.strip_prefix(b"-").unwrap_or(digits);
            let long = bare.len() > BIG_INTEGER_DIGITS;
            if bare.is_empty() || long || !bare.iter().all(u8::is_ascii_digit) || bare[0] == b'0' {
                return Err(Problem::new("a big integer that is not decimal digits"));
            }
            out.put_slice(digits);
        }
        _ => return Err(Problem::new("a msgpack extension that has no JSON")),
    }
    Ok(())
}

fn not_finite(nan: bool) -> Problem {
    Problem::new(if nan { "NaN" } else { "an infinite number" })
}

fn string(text: &[u8], out: &mut BytesMut) -> Result<(), Problem> {
    let text = std::str::from_utf8(text).map_err(|_| Problem::new("a string that is not UTF-8"))?;
    write(out, text);
    Ok(())
}

fn write<T: serde::Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("memory takes every write");
}

fn too_deep() -> Problem {
    Problem::new("more than 128 levels of nesting")
}
