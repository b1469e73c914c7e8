//! Frames (RFC 9113, section 4): how they are cut out of bytes, and written.

/// What a client says first: the preface, its settings, and a wider window for the whole connection.
pub(crate) const PREFACE: [u8; 64] = greeting();

/// Window of the whole connection; what was read is granted again at half of it.
pub(super) const CONNECTION_WINDOW: u32 = 1 << 30;
/// Window of every answer: wider than the longest answer that is read.
const STREAM_WINDOW: u32 = (1 << 31) - 1;
/// The window that a connection begins with.
pub(super) const FIRST_WINDOW: u32 = 65_535;
/// Bytes of a frame at most, in both directions: what every peer has to take.
pub(super) const MAX_FRAME: usize = 16_384;
const HEAD: usize = 9;

pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0;
    pub(in crate::http2) const HEADERS: u8 = 1;
    pub(in crate::http2) const RST_STREAM: u8 = 3;
    pub(in crate::http2) const SETTINGS: u8 = 4;
    pub(in crate::http2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::http2) const PING: u8 = 6;
    pub(in crate::http2) const GOAWAY: u8 = 7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    /// Of data and headers; the same bit says of settings and pings that they are answers.
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in crate::http2) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::http2) const ENABLE_PUSH: u16 = 2;
    pub(in crate::http2) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::http2) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// What is wrong with what a server says; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Http2Error {
    #[error("the server does not speak HTTP/2")]
    NotHttp2,
    #[error("a frame of the answer is longer than 16 KiB")]
    FrameTooLong,
    #[error("a frame of the answer is broken")]
    Frame,
    #[error("the head of the answer is longer than 64 KiB")]
    HeadTooLong,
    #[error("the answer has no status")]
    Status,
    #[error("a window was opened too wide")]
    Window,
    #[error("the server pushes what was not asked for")]
    Push,
    #[error("the server asks for more than it reads")]
    Flood,
}

/// One frame of the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

/// Whether `bytes`, the first of a server, can be those of HTTP/2: its settings come first.
pub(crate) fn is_greeting(bytes: &[u8]) -> bool {
    bytes.get(3..9).is_none_or(|rest| rest == [kind::SETTINGS, 0, 0, 0, 0, 0])
}

const fn greeting() -> [u8; 64] {
    let preface = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut bytes = [0; 64];
    let mut at = 0;
    while at < preface.len() {
        bytes[at] = preface[at];
        at += 1;
    }
    let settings = [
        (setting::HEADER_TABLE_SIZE, 0),
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
    ];
    // The heads of both frames: length, kind, flags, stream.
    bytes[at + 2] = 6 * settings.len() as u8;
    bytes[at + 3] = kind::SETTINGS;
    at += HEAD;
    let mut nth = 0;
    while nth < settings.len() {
        let (name, value) = settings[nth];
        [bytes[at], bytes[at + 1]] = name.to_be_bytes();
        [bytes[at + 2], bytes[at + 3], bytes[at + 4], bytes[at + 5]] = value.to_be_bytes();
        at += 6;
        nth += 1;
    }
    bytes[at + 2] = 4;
    bytes[at + 3] = kind::WINDOW_UPDATE;
    at += HEAD;
    let more = CONNECTION_WINDOW - FIRST_WINDOW;
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]] = more.to_be_bytes();
    assert!(at + 4 == bytes.len(), "the greeting has its length");
    bytes
}

/// Cuts the first frame off `input`; none if it is not complete.
pub(super) fn cut<'a>(input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Http2Error> {
    let Some((&[a, b, c, kind, flags, rest @ ..], after)) = input.split_first_chunk::<HEAD>()
    else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > MAX_FRAME {
        return Err(Http2Error::FrameTooLong);
    }
    let Some((payload, after)) = after.split_at_checked(length) else { return Ok(None) };
    *input = after;
    let stream = u32::from_be_bytes(rest) & !(1 << 31);
    Ok(Some(Frame { kind, flags, stream, payload }))
}

/// Bytes that `partial`, the beginning of a frame, lacks to be more than it is: to have a head, or to be whole.
pub(super) fn lacking(partial: &[u8]) -> usize {
    match *partial {
        [a, b, c, _, _, _, _, _, _, ..] => {
            HEAD + u32::from_be_bytes([0, a, b, c]) as usize - partial.len()
        }
        _ => HEAD - partial.len(),
    }
}

impl<'a> Frame<'a> {
    /// The payload without padding and, of headers, without priority.
    pub(super) fn content(&self) -> Result<&'a [u8], Http2Error> {
        let mut content = self.payload;
        let mut padding = 0;
        if self.flags & flag::PADDED != 0 {
            let (&first, rest) = content.split_first().ok_or(Http2Error::Frame)?;
            (padding, content) = (usize::from(first), rest);
        }
        if self.kind == kind::HEADERS && self.flags & flag::PRIORITY != 0 {
            content = content.get(5..).ok_or(Http2Error::Frame)?;
        }
        let length = content.len().checked_sub(padding).ok_or(Http2Error::Frame)?;
        Ok(&content[..length])
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A payload that is one number.
    pub(super) fn number(&self) -> Result<u32, Http2Error> {
        self.payload.try_into().map(u32::from_be_bytes).map_err(|_| Http2Error::Frame)
    }
}

/// Writes a frame; `payload` is no longer than [`MAX_FRAME`].
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
