use bytes::{BufMut, BytesMut};
use serde::Serialize;

/// The data of the event by which OpenAI's servers end a stream.
pub const SSE_DONE: &[u8] = b"[DONE]";

/// One event of a stream, borrowed from the decoder until the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// Its type; empty if it has none (a browser calls that "message").
    pub event: &'a [u8],
    /// Its data lines, joined with line feeds.
    pub data: &'a [u8],
    /// The last id that the stream has given, with this event or an earlier one; empty if none.
    pub id: &'a [u8],
}

impl SseEvent<'_> {
    /// Whether this is OpenAI's end of a stream.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data == SSE_DONE
    }
}

/// Why a stream cannot be read on, or an event not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line, or the lines of one event, are longer than allowed.
    #[error("an event of the stream is longer than {limit} bytes")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// The name or the id of an event holds a line break or a NUL.
    #[error("the {field} of an event may hold no line break and no NUL")]
    BadField {
        /// "event" or "id".
        field: &'static str,
    },
}

/// Reads server-sent events (`text/event-stream`, WHATWG HTML section 9.2.6) from whatever pieces the network
/// delivers; lines may end with LF, CR or CRLF.
///
/// It holds at most `limit` bytes of an unfinished event. An event is handed over at its empty line; one that the
/// stream does not finish is not handed over ([`SseDecoder::is_inside_event`] tells). `retry` is ignored.
#[derive(Debug)]
pub struct SseDecoder {
    limit: usize,
    /// Start of a line whose end has not come yet.
    line: Vec<u8>,
    /// The event so far; each data line is followed by a line feed.
    data: Vec<u8>,
    event: Vec<u8>,
    id: Vec<u8>,
    /// The last byte was a CR, so a LF that follows belongs to the same line end.
    after_cr: bool,
    /// Nothing but (a part of) a byte order mark may have come so far.
    at_start: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl SseDecoder {
    /// A decoder that holds no more than `limit` bytes of one event.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            event: Vec::new(),
            id: Vec::new(),
            after_cr: false,
            at_start: true,
        }
    }

    /// Reads on; `each` is called with every event that `bytes` finish, in order.
    ///
    /// # Errors
    /// [`SseError::TooLong`]. The stream cannot be read on after that.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(SseEvent<'_>),
    ) -> Result<(), SseError> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.check_room(bytes.len())?;
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.check_room(end)?;
            self.after_cr = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.take_line(&bytes[..end], &mut each);
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, &mut each);
                self.line = line;
                self.line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// Whether an event has begun and its empty line has not come: true at the end of a stream that broke off.
    #[must_use]
    pub const fn is_inside_event(&self) -> bool {
        !self.line.is_empty() || !self.data.is_empty() || !self.event.is_empty()
    }

    fn check_room(&self, more: usize) -> Result<(), SseError> {
        let held = self.line.len() + self.data.len() + self.event.len();
        if held.saturating_add(more) > self.limit {
            return Err(SseError::TooLong { limit: self.limit });
        }
        Ok(())
    }

    fn take_line(&mut self, mut line: &[u8], each: &mut impl FnMut(SseEvent<'_>)) {
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            self.finish_event(each);
            return;
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[..0]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => {
                self.id.clear();
                self.id.extend_from_slice(value);
            }
            // A comment (an empty field name), `retry`, or a field that the standard says to ignore.
            _ => {}
        }
    }

    fn finish_event(&mut self, each: &mut impl FnMut(SseEvent<'_>)) {
        if self.data.pop().is_some() {
            each(SseEvent { event: &self.event, data: &self.data, id: &self.id });
        }
        self.data.clear();
        self.event.clear();
    }
}

/// Appends one event to `out`: `event` and `id` where given, a data line for each line of `data`, an empty line.
///
/// A decoder reads `data` back as it was, but for CR and CRLF, which come back as LF.
///
/// # Errors
/// [`SseError::BadField`]; `out` is then as it was.
pub fn encode_sse(
    event: Option<&str>,
    id: Option<&str>,
    data: &str,
    out: &mut BytesMut,
) -> Result<(), SseError> {
    for (field, value) in [("event", event), ("id", id)] {
        if value.is_some_and(|value| value.contains(['\r', '\n', '\0'])) {
            return Err(SseError::BadField { field });
        }
    }
    for (field, value) in [("event: ", event), ("id: ", id)] {
        if let Some(value) = value {
            put_line(field, value, out);
        }
    }
    let mut rest = data;
    while let Some(end) = rest.find(['\r', '\n']) {
        put_line("data: ", &rest[..end], out);
        let width = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
    put_line("data: ", rest, out);
    out.put_u8(b'\n');
    Ok(())
}

/// Appends one event whose data is `value` as JSON (on one line), with no copy between.
///
/// # Errors
/// A value that JSON cannot hold, such as a map whose keys are not strings.
pub fn encode_sse_json(
    event: Option<&'static str>,
    value: &impl Serialize,
    out: &mut BytesMut,
) -> Result<(), serde_json::Error> {
    if let Some(event) = event {
        put_line("event: ", event, out);
    }
    out.put_slice(b"data: ");
    serde_json::to_writer((&mut *out).writer(), value)?;
    out.put_slice(b"\n\n");
    Ok(())
}

fn put_line(field: &str, value: &str, out: &mut BytesMut) {
    out.reserve(field.len() + value.len() + 1);
    out.put_slice(field.as_bytes());
    out.put_slice(value.as_bytes());
    out.put_u8(b'\n');
}
