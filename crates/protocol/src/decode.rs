use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use crate::pack::{self, Token};
use crate::{CallError, Frame, Hello, InitError, Request};

/// Why bytes are no frame. After any of these the connection is of no use: where the next frame would begin is
/// not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The length field announces more than the receiver takes.
    #[error("a frame of {length} bytes is announced, at most {limit} are taken")]
    TooLong {
        /// Announced bytes.
        length: usize,
        /// The receiver's limit in bytes.
        limit: usize,
    },
    /// The body is not an array that begins with the number of a kind.
    #[error("the frame is not a msgpack array that begins with a number")]
    NotAFrame,
    /// No kind of frame has this number.
    #[error("no kind of frame has the number {0}")]
    UnknownKind(u64),
    /// The array has too few or too many elements.
    #[error("a `{frame}` frame has {expected} elements, this one has {found}")]
    Elements {
        /// Kind of the frame.
        frame: &'static str,
        /// What the protocol says.
        expected: u32,
        /// What was there.
        found: u32,
    },
    /// An element is missing, cut off or of another type.
    #[error("`{field}` of a `{frame}` frame is not {expected}")]
    Field {
        /// Kind of the frame.
        frame: &'static str,
        /// Name of the element.
        field: &'static str,
        /// What the protocol says.
        expected: &'static str,
    },
    /// The body goes on after the last element.
    #[error("a `{frame}` frame is followed by {bytes} bytes that belong to nothing")]
    Trailing {
        /// Kind of the frame.
        frame: &'static str,
        /// How many.
        bytes: usize,
    },
}

/// Makes frames of the bytes of a connection, in whatever pieces they come.
///
/// Read into [`Self::buffer`], then call [`Self::next_frame`] until it has none. Results and arguments in the
/// frames share the memory they were read into.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
}

impl FrameDecoder {
    /// A decoder that takes frames of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(16 * 1024), limit }
    }

    /// Where bytes from the connection are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, `None` until more bytes have come.
    ///
    /// # Errors
    /// If the bytes are not frames of this protocol; see [`DecodeError`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(DecodeError::TooLong { length, limit: self.limit });
        }
        if self.buffer.len() - 4 < length {
            self.buffer.reserve(length + 4 - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        parse(self.buffer.split_to(length).freeze()).map(Some)
    }
}

/// The elements of one frame, read from front to back.
struct Fields {
    frame: &'static str,
    body: Bytes,
    /// How many the frame has, its number included.
    count: u32,
}

fn parse(mut body: Bytes) -> Result<Frame, DecodeError> {
    let mut rest = body.as_ref();
    let Ok(Token::Array(found)) = pack::token(&mut rest) else {
        return Err(DecodeError::NotAFrame);
    };
    let Some(number) = pack::token(&mut rest).ok().and_then(unsigned) else {
        return Err(DecodeError::NotAFrame);
    };
    let number_u8 = u8::try_from(number).map_err(|_| DecodeError::UnknownKind(number))?;
    let frame = Frame::name(number_u8).ok_or(DecodeError::UnknownKind(number))?;
    let expected = match number_u8 {
        3 | 12 => 1,
        9 | 10 | 11 | 13 | 14 => 2,
        6 | 7 => 3,
        2 | 4 => 4,
        // A worker that says nothing about its machine leaves the last three out.
        1 if found == 8 => 8,
        1 => 11,
        _ => 6,
    };
    if found != expected {
        return Err(DecodeError::Elements { frame, expected, found });
    }
    let head = body.len() - rest.len();
    body.advance(head);
    let mut fields = Fields { frame, body, count: found };
    let parsed = fields.of(number_u8)?;
    match fields.body.len() {
        0 => Ok(parsed),
        bytes => Err(DecodeError::Trailing { frame, bytes }),
    }
}

impl Fields {
    fn of(&mut self, number: u8) -> Result<Frame, DecodeError> {
        Ok(match number {
            1 => Frame::Hello(self.hello()?),
            2 => Frame::Init {
                max_frame: self.small("max_frame")?,
                args: self.array("args")?,
                kwargs: self.map("kwargs")?,
            },
            3 => Frame::Ready,
            4 => Frame::InitError(InitError {
                kind: self.text("type")?,
                message: self.text("message")?,
                traceback: self.optional_text("traceback")?,
            }),
            5 => Frame::Request(Request {
                id: self.uint("id")?,
                deadline_ms: self.optional_uint("deadline_ms")?,
                attempt: self.small("attempt")?,
                args: self.array("args")?,
                kwargs: self.map("kwargs")?,
            }),
            // The result is the rest: it is looked into where it is turned into a body, so that a bad one is
            // the failure of its call and not of the connection.
            6 => Frame::Response { id: self.uint("id")?, value: std::mem::take(&mut self.body) },
            7 => self.chunk()?,
            8 => Frame::Error(CallError {
                id: self.uint("id")?,
                kind: self.text("type")?,
                message: self.text("message")?,
                traceback: self.optional_text("traceback")?,
                retryable: self.bool("retryable")?,
            }),
            9 => Frame::Cancel { id: self.uint("id")? },
            10 => Frame::Ping { nonce: self.uint("nonce")? },
            11 => Frame::Pong { nonce: self.uint("nonce")? },
            12 => Frame::Drain,
            13 => Frame::Bye { reason: self.text("reason")? },
            _ => Frame::Batch { size: self.small("size")? },
        })
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        let mut hello = Hello {
            version: self.small("version")?,
            name: self.text("name")?,
            pid: self.small("pid")?,
            window: self.small("window")?,
            token: self.text("token")?,
            function: self.optional_text("function")?,
            node: self.text("node")?,
            labels: BTreeMap::new(),
            cpus: None,
            memory: None,
        };
        if self.count > 8 {
            hello.labels = self.labels()?;
            hello.cpus = self.optional_small("cpus")?;
            hello.memory = self.optional_uint("memory")?;
        }
        Ok(hello)
    }

    fn labels(&mut self) -> Result<BTreeMap<String, String>, DecodeError> {
        let count = self.read("labels", "a map of strings", |token, _| match token {
            Token::Map(count) => Some(count),
            _ => None,
        })?;
        // Each one needs bytes of the frame, so a count that lies ends where the frame does.
        (0..count).map(|_| Ok((self.text("labels")?, self.text("labels")?))).collect()
    }

    fn chunk(&mut self) -> Result<Frame, DecodeError> {
        let id = self.uint("id")?;
        let expected = "a string or bytes";
        let (text, data) = self.read("data", expected, |token, body| match token {
            Token::Str(data) => Some((true, body.slice_ref(data))),
            Token::Bin(data) => Some((false, body.slice_ref(data))),
            _ => None,
        })?;
        Ok(Frame::Chunk { id, text, data })
    }

    /// Takes one token and what `pick` makes of it.
    fn read<T>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        pick: impl FnOnce(Token<'_>, &Bytes) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let mut rest = self.body.as_ref();
        let picked = pack::token(&mut rest).ok().and_then(|token| pick(token, &self.body));
        let used = self.body.len() - rest.len();
        match picked {
            Some(value) => {
                self.body.advance(used);
                Ok(value)
            }
            None => Err(DecodeError::Field { frame: self.frame, field, expected }),
        }
    }

    /// Takes one whole value, checking only its outermost type.
    fn raw(
        &mut self,
        field: &'static str,
        expected: &'static str,
        fits: impl FnOnce(Token<'_>) -> bool,
    ) -> Result<Bytes, DecodeError> {
        let mut first = self.body.as_ref();
        let mut rest = self.body.as_ref();
        match (pack::token(&mut first), pack::value(&mut rest)) {
            (Ok(token), Ok(value)) if fits(token) => {
                let length = value.len();
                Ok(self.body.split_to(length))
            }
            _ => Err(DecodeError::Field { frame: self.frame, field, expected }),
        }
    }

    fn array(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        self.raw(field, "an array", |token| matches!(token, Token::Array(_)))
    }

    fn map(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        self.raw(field, "a map", |token| matches!(token, Token::Map(_)))
    }

    fn uint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.read(field, "a number from 0", |token, _| unsigned(token))
    }

    fn optional_uint(&mut self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        self.read(field, "a number from 0, or nil", |token, _| match token {
            Token::Nil => Some(None),
            token => unsigned(token).map(Some),
        })
    }

    fn small(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.read(field, "a number of 32 bits", |token, _| {
            unsigned(token).and_then(|value| u32::try_from(value).ok())
        })
    }

    fn optional_small(&mut self, field: &'static str) -> Result<Option<u32>, DecodeError> {
        let expected = "a number of 32 bits, or nil";
        self.read(field, expected, |token, _| match token {
            Token::Nil => Some(None),
            token => unsigned(token).and_then(|value| u32::try_from(value).ok()).map(Some),
        })
    }

    fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.read(field, "true or false", |token, _| match token {
            Token::Bool(value) => Some(value),
            _ => None,
        })
    }

    fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.read(field, "a string in UTF-8", |token, _| utf8(token))
    }

    fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, DecodeError> {
        self.read(field, "a string in UTF-8, or nil", |token, _| match token {
            Token::Nil => Some(None),
            token => utf8(token).map(Some),
        })
    }
}

/// Some libraries write small numbers with a signed marker.
fn unsigned(token: Token<'_>) -> Option<u64> {
    match token {
        Token::Uint(value) => Some(value),
        Token::Int(value) => u64::try_from(value).ok(),
        _ => None,
    }
}

fn utf8(token: Token<'_>) -> Option<String> {
    match token {
        Token::Str(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        _ => None,
    }
}
