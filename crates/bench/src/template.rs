//! Requests as bytes: made once where they are all the same, else filled for each one.

use std::sync::Arc;

use gatewright_workload::trace::Recorded;
use http::Method;

use crate::conversation::{self, Dialogue, DialogueForm, Said};
use crate::data::Data;
use crate::feed::Turn;
use crate::{BenchError, http2};

/// A request as the bytes that go over the wire.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    form: Form,
    /// Whether the answer has no body whatever its headers say.
    pub(crate) is_head: bool,
}

#[derive(Clone, Debug)]
enum Form {
    /// The same for all but the digits of its id.
    Fixed { bytes: Vec<u8>, number_at: Option<usize>, head_len: usize },
    /// Filled from data.
    Filled(Box<Filled>),
}

#[derive(Clone, Debug)]
struct Filled {
    parts: Arc<Parts>,
    data: Data,
    /// The last request that was made, which may be asked for in pieces.
    made: Option<(u64, Turn)>,
    bytes: Vec<u8>,
    head_len: usize,
    body: Vec<u8>,
    /// The head, before it becomes one of HTTP/2.
    text: Vec<u8>,
}

/// A request with places in it.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Method and path.
    pub(crate) line: Vec<Piece>,
    /// Headers but length and id.
    pub(crate) headers: Vec<Piece>,
    pub(crate) body: Vec<Piece>,
    pub(crate) has_length: bool,
    pub(crate) id_prefix: Option<String>,
    pub(crate) wire: Wire,
    /// How requests go on from what was said before in the session, if they do.
    pub(crate) dialogue: Option<Dialogue>,
    /// How what is said is written where they do not.
    pub(crate) form: DialogueForm,
    /// Which row is a request's.
    pub(crate) row: RowOf,
}

/// Which row of the data is a request's.
#[derive(Clone, Debug)]
pub(crate) enum RowOf {
    /// That of its number.
    Request,
    /// That of its session: a conversation has one.
    Session,
    /// That of the request of a trace which it repeats.
    Recorded(Arc<Recorded>),
}

/// How a head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    /// As a block of headers, which names the scheme.
    Http2 {
        is_secure: bool,
    },
}

/// Text, or a place that a column fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(Vec<u8>),
    Column {
        name: String,
        escape: Escape,
    },
    /// Messages of a conversation as they were recorded, up to the turn that is asked.
    Messages {
        name: String,
    },
    /// Messages of a conversation with the server's own answers in it: the user's ones are those of a column with
    /// messages, or with `each`, one a turn.
    Conversation {
        name: String,
        each: bool,
    },
    /// Name of the last answer, for a server that remembers what was said.
    Previous,
    /// Whether the model has to call a tool.
    ToolChoice,
}

/// What a request that is written stands in.
struct Context<'a> {
    turn: Turn,
    row: u64,
    said: &'a Said,
    parts: &'a Parts,
}

/// How text is written so that it means itself where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// As it is.
    Raw,
    /// Percent-encoded (RFC 3986).
    Url,
    /// Without ends of lines.
    Header,
    /// Inside of a string of JSON.
    Json,
}

pub(crate) const NUMBER_DIGITS: usize = 12;

impl RequestTemplate {
    /// A request whose `head` is written as HTTP/1.1 has it; with `with_number`, its last header ends in the digits of
    /// a number.
    pub(crate) fn fixed(
        head: &[u8],
        body: &[u8],
        with_number: bool,
        method: &Method,
        wire: Wire,
    ) -> Self {
        let mut bytes = Vec::new();
        let after_number = wire.write(head, &mut bytes);
        let head_len = bytes.len();
        bytes.extend_from_slice(body);
        let number_at = with_number.then(|| head_len - after_number - NUMBER_DIGITS);
        let form = Form::Fixed { bytes, number_at, head_len };
        Self { form, is_head: *method == Method::HEAD }
    }

    pub(crate) fn filled(parts: Parts, data: Data, method: &Method) -> Self {
        let filled = Filled {
            parts: Arc::new(parts),
            data,
            made: None,
            bytes: Vec::new(),
            head_len: 0,
            body: Vec::new(),
            text: Vec::new(),
        };
        Self { form: Form::Filled(Box::new(filled)), is_head: *method == Method::HEAD }
    }

    /// The bytes of request `number`, which stands at `turn` of its session.
    /// `said` is what was said in it before.
    pub(crate) fn for_request(&mut self, number: u64, turn: Turn, said: &Said) -> &[u8] {
        match &mut self.form {
            Form::Fixed { bytes, number_at, .. } => {
                if let Some(at) = *number_at {
                    write_number(&mut bytes[at..at + NUMBER_DIGITS], number);
                }
                bytes
            }
            Form::Filled(filled) => {
                if filled.made != Some((number, turn)) {
                    filled.made = Some((number, turn));
                    filled.fill(number, turn, said);
                }
                &filled.bytes
            }
        }
    }

    /// Head and body of request `number`, which stands at `turn` of its session.
    pub(crate) fn parts(&mut self, number: u64, turn: Turn, said: &Said) -> (&[u8], &[u8]) {
        self.for_request(number, turn, said);
        let (bytes, head_len) = match &self.form {
            Form::Fixed { bytes, head_len, .. } => (bytes, *head_len),
            Form::Filled(filled) => (&filled.bytes, filled.head_len),
        };
        bytes.split_at(head_len)
    }

    /// How its requests go on from what was said before, if they do.
    pub(crate) fn dialogue(&self) -> Option<Dialogue> {
        let Form::Filled(filled) = &self.form else { return None };
        filled.parts.dialogue
    }

    /// Whether its requests go on from what was said before.
    pub(crate) fn is_conversation(&self) -> bool {
        self.dialogue().is_some()
    }

    /// Whether the server is relied upon to know what was said.
    pub(crate) fn remembers(&self) -> bool {
        matches!(&self.form, Form::Filled(filled) if filled.parts.remembers())
    }

    /// Of a conversation, what is said new with a request, and whether that is not the last of it.
    pub(crate) fn new_messages(&mut self, number: u64, turn: Turn, said: &Said) -> (String, bool) {
        let Form::Filled(filled) = &mut self.form else { return (String::new(), false) };
        let parts = Arc::clone(&filled.parts);
        let context = Context { turn, row: parts.row.of(number, turn), said, parts: &parts };
        let new = parts.body.iter().find_map(|piece| match piece {
            Piece::Conversation { name, each } => {
                Some(context.newly_said(&mut filled.data, name, *each))
            }
            _ => None,
        });
        new.unwrap_or_default()
    }

    /// Whether each request is made for itself.
    pub(crate) const fn is_filled(&self) -> bool {
        matches!(self.form, Form::Filled(_))
    }

    /// Bytes of the body of the request that was made last.
    pub(crate) fn body_len(&self) -> u64 {
        match &self.form {
            Form::Fixed { bytes, head_len, .. } => (bytes.len() - head_len) as u64,
            Form::Filled(filled) => filled.body.len() as u64,
        }
    }
}

fn write_number(place: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

impl Filled {
    fn fill(&mut self, number: u64, turn: Turn, said: &Said) {
        let parts = Arc::clone(&self.parts);
        let context = Context { turn, row: parts.row.of(number, turn), said, parts: &parts };
        self.bytes.clear();
        self.body.clear();
        self.text.clear();
        let (text, data) = (&mut self.text, &mut self.data);
        parts.body.iter().for_each(|piece| piece.write(&mut self.body, data, &context));
        parts.line.iter().for_each(|piece| piece.write(text, data, &context));
        text.extend_from_slice(b" HTTP/1.1\r\n");
        parts.headers.iter().for_each(|piece| piece.write(text, data, &context));
        if parts.has_length {
            text.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        if let Some(prefix) = &parts.id_prefix {
            text.extend_from_slice(format!("x-request-id: {prefix}-{number:012}\r\n").as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        parts.wire.write(text, &mut self.bytes);
        self.head_len = self.bytes.len();
        self.bytes.extend_from_slice(&self.body);
    }
}

impl Wire {
    /// Writes a head, given as HTTP/1.1 has it; how many bytes come after the value of its last header.
    fn write(self, head: &[u8], out: &mut Vec<u8>) -> usize {
        match self {
            Self::Http1 => {
                out.extend_from_slice(head);
                b"\r\n\r\n".len()
            }
            Self::Http2 { is_secure } => {
                http2::write_head(head, is_secure, out);
                0
            }
        }
    }
}

impl RowOf {
    fn of(&self, number: u64, turn: Turn) -> u64 {
        match self {
            Self::Request => number,
            Self::Session => turn.session,
            Self::Recorded(recorded) => {
                recorded.number_of(turn.session, turn.number).unwrap_or(number)
            }
        }
    }
}

impl Parts {
    /// Whether the server is relied upon to know what was said.
    fn remembers(&self) -> bool {
        self.body.contains(&Piece::Previous)
    }
}

impl Context<'_> {
    /// What is said with the request, in JSON, and whether more is to come.
    fn newly_said(&self, data: &mut Data, name: &str, each: bool) -> (String, bool) {
        let text = data.value(self.row, name).into_owned();
        let (data, dialogue) = (&*data, self.parts.dialogue.unwrap_or_default());
        let (session, turn) = (self.turn.session, self.said.turn());
        let result = |nth| conversation::result(data, &dialogue.tools, session, turn, nth);
        self.said.next(&text, each, &dialogue, result)
    }
}

impl Piece {
    fn write(&self, out: &mut Vec<u8>, data: &mut Data, context: &Context<'_>) {
        let Context { turn, row, said, parts } = *context;
        match self {
            Self::Text(text) => out.extend_from_slice(text),
            Self::Column { name, escape } => escape.write(out, &data.value(row, name)),
            Self::Conversation { name, each: false } if parts.dialogue.is_none() => {
                write_messages(out, &data.value(row, name), turn.number);
            }
            Self::Messages { name } => write_messages(out, &data.value(row, name), turn.number),
            Self::Conversation { name, .. }
                if parts.dialogue.is_none() && parts.form == DialogueForm::Items =>
            {
                let text = serde_json::to_string(&data.value(row, name)).unwrap_or_default();
                out.extend_from_slice(text.as_bytes());
            }
            Self::Conversation { name, each } => {
                let (new, _) = context.newly_said(data, name, *each);
                let before = if parts.remembers() { "" } else { said.all() };
                let comma = if before.is_empty() || new.is_empty() { "" } else { "," };
                for part in ["[", before, comma, &new, "]"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Self::Previous => out.extend_from_slice(said.previous().to_string().as_bytes()),
            Self::ToolChoice => {
                let tools = parts.dialogue.unwrap_or_default().tools;
                let has_to = parts.dialogue.is_none() || said.wants_call(&tools);
                out.extend_from_slice(if has_to { b"\"required\"" } else { b"\"none\"" });
            }
        }
    }
}

/// The messages before the answer to the user's message number `turn`, from 0; all of them if there are fewer.
fn write_messages(out: &mut Vec<u8>, text: &str, turn: u64) {
    let Ok(messages) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return out.extend_from_slice(b"[]");
    };
    let mut asked = 0;
    let end = messages.iter().position(|message| {
        asked += u64::from(message["role"] == "user");
        asked > turn
    });
    let kept = &messages[..end.map_or(messages.len(), |at| at + 1)];
    // Values that were read can be written.
    out.extend_from_slice(&serde_json::to_vec(kept).unwrap_or_default());
}

impl Escape {
    fn write(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::Raw => out.extend_from_slice(text.as_bytes()),
            Self::Header => {
                out.extend(
                    text.bytes().map(|byte| if byte < b' ' || byte == 127 { b' ' } else { byte }),
                );
            }
            Self::Json => {
                let quoted = serde_json::to_string(text).unwrap_or_default();
                out.extend_from_slice(
                    quoted.get(1..quoted.len() - 1).unwrap_or_default().as_bytes(),
                );
            }
            Self::Url => {
                for byte in text.bytes() {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                        out.push(byte);
                    } else {
                        out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                    }
                }
            }
        }
    }
}

/// Understands `text {{column}} text {{column|raw}}`.
///
/// # Errors
/// A place that is not closed, has no name, or a filter that there is none of.
pub(crate) fn pieces(text: &[u8], escape: Escape) -> Result<Vec<Piece>, BenchError> {
    let fail = |what: &str| Err(BenchError::Request(format!("template: {what}")));
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = find(rest, b"{{") {
        let Some(length) = find(&rest[start..], b"}}") else {
            return fail("a place {{...}} is not closed");
        };
        if start > 0 {
            pieces.push(Piece::Text(rest[..start].to_vec()));
        }
        let place = String::from_utf8_lossy(&rest[start + 2..start + length]).trim().to_owned();
        let (name, filter) = match place.split_once('|') {
            Some((name, filter)) => (name.trim(), Some(filter.trim())),
            None => (place.as_str(), None),
        };
        if name.is_empty() {
            return fail("a place {{...}} has no name of a column");
        }
        let name = name.to_owned();
        pieces.push(match filter {
            None => Piece::Column { name, escape },
            Some("raw") => Piece::Column { name, escape: Escape::Raw },
            Some("json") => Piece::Column { name, escape: Escape::Json },
            Some("url") => Piece::Column { name, escape: Escape::Url },
            Some("messages") => Piece::Messages { name },
            Some("conversation") => Piece::Conversation { name, each: false },
            Some("turn") => Piece::Conversation { name, each: true },
            Some("previous") => Piece::Previous,
            Some("tool_choice") => Piece::ToolChoice,
            Some(other) => {
                return fail(&format!(
                    "there is no filter \"{other}\"; known are raw, json, url, messages, conversation, turn, \
                     previous, tool_choice"
                ));
            }
        });
        rest = &rest[start + length + 2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_vec()));
    }
    Ok(pieces)
}

/// Names of the columns that pieces need.
pub(crate) fn columns(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Text(_) | Piece::Previous | Piece::ToolChoice => None,
        Piece::Column { name, .. }
        | Piece::Messages { name }
        | Piece::Conversation { name, .. } => Some(name.as_str()),
    })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_and_escaped_where_they_stand() {
        let column = |name: &str, escape| Piece::Column { name: name.into(), escape };
        assert_eq!(
            pieces(b"/a/{{ id }}?q={{q|raw}}", Escape::Url).unwrap(),
            [
                Piece::Text(b"/a/".into()),
                column("id", Escape::Url),
                Piece::Text(b"?q=".into()),
                column("q", Escape::Raw),
            ]
        );
        for (text, part) in
            [("{{a", "not closed"), ("{{ }}", "no name"), ("{{a|upper}}", "no filter")]
        {
            let error = pieces(text.as_bytes(), Escape::Raw).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let written = |escape: Escape, text: &str| {
            let mut out = Vec::new();
            escape.write(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Escape::Url, "a b/ü"), "a%20b%2F%C3%BC");
        assert_eq!(written(Escape::Json, "say \"hi\"\n"), "say \\\"hi\\\"\\n");
        assert_eq!(written(Escape::Json, "\""), "\\\"");
        assert_eq!(written(Escape::Header, "a\r\nb: c"), "a  b: c");
    }

    #[test]
    fn conversations_are_asked_turn_by_turn() {
        let text = r#"[{"role":"system","content":"s"},{"role":"user","content":"1"},{"role":"assistant","content":"a"},{"role":"user","content":"2"}]"#;
        let at = |turn| {
            let mut out = Vec::new();
            write_messages(&mut out, text, turn);
            serde_json::from_slice::<Vec<serde_json::Value>>(&out).unwrap().len()
        };
        assert_eq!((at(0), at(1), at(9)), (2, 4, 4));
    }
}
