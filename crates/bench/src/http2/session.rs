mod flow;

use std::collections::BTreeMap;

use gatewright_determinism::Time;

use self::flow::write_body;
use super::frame::{
    CONNECTION_WINDOW, FIRST_WINDOW, Frame, Http2Error, MAX_FRAME, PREFACE, cut, flag, kind,
    lacking, write,
};
use super::head;
use crate::answer::{AnswerKind, TokenWatch};
use crate::connection::InFlight;
use crate::failure::Failure;

/// One connection of HTTP/2: its requests in flight, and the bytes that are to go out.
#[derive(Debug)]
pub(crate) struct Session {
    /// A frame that has begun.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that are gone.
    gone: usize,
    /// Requests in flight, by the number of their stream.
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    /// Streams whose body has not been written yet.
    unsent: usize,
    has_settings: bool,
    is_agreed: bool,
    /// No request may begin on it any more.
    leaving: bool,
    own_limit: usize,
    their_limit: usize,
    /// Bytes of bodies that the server takes, of all requests and of one at its beginning.
    window: i64,
    first_window: i64,
    /// Bytes that were read and not granted again.
    consumed: u32,
    block: Option<Block>,
    /// Whether bodies of answers are kept.
    keeps: bool,
    /// Watches of answers that have ended.
    #[expect(clippy::vec_box, reason = "boxes come and go whole")]
    spare: Vec<Box<TokenWatch>>,
}

/// A request in flight.
#[derive(Debug)]
struct Stream {
    request: InFlight,
    code: Option<u16>,
    body_bytes: u64,
    tokens: Option<Box<TokenWatch>>,
    /// Beginning of the answer's body, if it is kept.
    kept: Option<Vec<u8>>,
    window: i64,
    /// Rest of the body.
    body: Vec<u8>,
    written: usize,
}

/// Headers that came in more than one frame.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) request: InFlight,
    pub(crate) code: Option<u16>,
    pub(crate) body_bytes: u64,
    pub(crate) tokens: Option<Box<TokenWatch>>,
    pub(crate) kept: Option<Vec<u8>>,
    pub(crate) failure: Option<Failure>,
}

/// Stream numbers are used once.
const LAST_STREAM: u32 = (1 << 31) - 1;
const MAX_WINDOW: i64 = (1 << 31) - 1;
const MAX_BODY: u64 = 1 << 30;
const MAX_BLOCK: usize = 64 << 10;
/// What is kept of an answer, where that is wanted.
const MAX_KEPT: usize = 1 << 20;
/// Bodies wait for what was written to be gone, above this length.
const BACKLOG: usize = 256 << 10;
/// A server that asks for so much and reads nothing of it means no good.
const MAX_BACKLOG: usize = 16 << 20;

/// What a request is cancelled with, and one that the server need not read to its end.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

impl Session {
    /// With at most `limit` requests at a time.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            partial: Vec::new(),
            out: PREFACE.to_vec(),
            gone: 0,
            streams: BTreeMap::new(),
            next_stream: 1,
            unsent: 0,
            has_settings: false,
            is_agreed: false,
            leaving: false,
            own_limit: limit as usize,
            their_limit: usize::MAX,
            window: i64::from(FIRST_WINDOW),
            first_window: i64::from(FIRST_WINDOW),
            consumed: 0,
            block: None,
            keeps: false,
            spare: Vec::new(),
        }
    }

    /// Keeps the beginning of every answer's body from here on.
    pub(crate) const fn keep_answers(&mut self) {
        self.keeps = true;
    }

    /// Whether both sides know of each other's settings: before, nothing is asked.
    pub(crate) const fn is_agreed(&self) -> bool {
        self.has_settings && self.is_agreed
    }

    /// Requests that may begin on it now.
    pub(crate) fn room(&self) -> usize {
        if self.leaving || !self.is_agreed() {
            return 0;
        }
        self.own_limit.min(self.their_limit).saturating_sub(self.streams.len())
    }

    /// Whether nothing more will come of it.
    pub(crate) fn is_over(&self) -> bool {
        self.leaving && self.streams.is_empty()
    }

    /// Requests in flight, the oldest first.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &InFlight> {
        self.streams.values().map(|stream| &stream.request)
    }

    /// Bytes that are to go out now.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.out[self.gone..]
    }

    /// So many of them are gone.
    pub(crate) fn sent(&mut self, count: usize) {
        self.gone += count;
        if self.gone == self.out.len() {
            self.out.clear();
            self.gone = 0;
            self.write_bodies();
        }
    }

    /// Begins a request with the head `block`. `kind`: what it is answered with, and whether the text of that matters.
    pub(crate) fn begin(
        &mut self,
        request: InFlight,
        kind: (AnswerKind, bool),
        block: &[u8],
        body: &[u8],
    ) {
        let id = self.next_stream;
        self.next_stream += 2;
        self.leaving |= self.next_stream > LAST_STREAM;
        let ends = if body.is_empty() { flag::END_STREAM } else { 0 };
        let mut pieces = block.chunks(MAX_FRAME).peekable();
        let mut of_kind = kind::HEADERS;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
            let flags = last | if of_kind == kind::HEADERS { ends } else { 0 };
            write(&mut self.out, of_kind, flags, id, piece);
            of_kind = kind::CONTINUATION;
        }
        let (kind, keeps_text) = kind;
        let mut tokens = match kind {
            AnswerKind::Opaque => None,
            AnswerKind::OpenAi => Some(self.spare.pop().unwrap_or_default()),
        };
        if let Some(tokens) = tokens.as_mut().filter(|_| keeps_text) {
            tokens.keep_text();
        }
        let mut stream = Stream {
            request,
            code: None,
            body_bytes: 0,
            tokens,
            kept: self.keeps.then(Vec::new),
            window: self.first_window,
            body: Vec::new(),
            written: 0,
        };
        if !body.is_empty() {
            let written = write_body(
                &mut self.out,
                self.gone,
                id,
                body,
                &mut stream.window,
                &mut self.window,
            );
            if written < body.len() {
                stream.body.extend_from_slice(&body[written..]);
                self.unsent += 1;
            }
        }
        self.streams.insert(id, stream);
    }

    /// Takes a watch back that came with an [`Ended`].
    pub(crate) fn give_back(&mut self, tokens: Option<Box<TokenWatch>>) {
        if let Some(mut tokens) = tokens {
            tokens.reset();
            self.spare.push(tokens);
        }
    }

    /// Takes the next bytes of the server, which were there at `now`.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        now: Time,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Http2Error> {
        let mut input = input;
        let mut partial = std::mem::take(&mut self.partial);
        while !partial.is_empty() && !input.is_empty() {
            let count = lacking(&partial).min(input.len());
            let (more, rest) = input.split_at(count);
            partial.extend_from_slice(more);
            input = rest;
            let mut whole = &partial[..];
            if let Some(frame) = cut(&mut whole)? {
                self.frame(&frame, now, ended)?;
                partial.clear();
            }
        }
        while let Some(frame) = cut(&mut input)? {
            self.frame(&frame, now, ended)?;
        }
        partial.extend_from_slice(input);
        self.partial = partial;
        if self.pending().len() > MAX_BACKLOG { Err(Http2Error::Flood) } else { Ok(()) }
    }

    /// Ends the requests that `which` chooses, which the server is told of.
    pub(crate) fn cancel(
        &mut self,
        which: impl Fn(&InFlight) -> bool,
        failure: Failure,
        ended: &mut Vec<Ended>,
    ) {
        let chosen = self.streams.iter().filter(|(_, stream)| which(&stream.request));
        let chosen: Vec<u32> = chosen.map(|(id, _)| *id).collect();
        for id in chosen {
            self.reset(id, CANCEL);
            self.end(id, Some(failure), ended);
        }
    }

    /// The connection is gone, and all requests with it.
    pub(crate) fn fail(&mut self, failure: Failure, ended: &mut Vec<Ended>) {
        self.leaving = true;
        while let Some((&id, _)) = self.streams.first_key_value() {
            self.end(id, Some(failure), ended);
        }
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        now: Time,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Http2Error> {
        if !self.has_settings && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err(Http2Error::NotHttp2);
        }
        if self.block.is_some() && frame.kind != kind::CONTINUATION {
            return Err(Http2Error::Frame);
        }
        let of_stream = matches!(frame.kind, kind::DATA | kind::HEADERS | kind::RST_STREAM);
        if of_stream && (frame.stream.is_multiple_of(2) || frame.stream >= self.next_stream) {
            return Err(Http2Error::Frame);
        }
        match frame.kind {
            kind::DATA => self.data(frame, now, ended),
            kind::HEADERS | kind::CONTINUATION => self.headers(frame, now, ended),
            kind::RST_STREAM => {
                let failure = Failure::StreamReset(frame.number()?);
                self.end(frame.stream, Some(failure), ended);
                Ok(())
            }
            kind::SETTINGS => self.settings(frame),
            kind::PUSH_PROMISE => Err(Http2Error::Push),
            kind::PING if frame.payload.len() != 8 => Err(Http2Error::Frame),
            kind::PING if !frame.has(flag::ACK) => {
                write(&mut self.out, kind::PING, flag::ACK, 0, frame.payload);
                Ok(())
            }
            kind::GOAWAY => self.go_away(frame, ended),
            kind::WINDOW_UPDATE => self.widen(frame),
            _ => Ok(()),
        }
    }

    fn data(
        &mut self,
        frame: &Frame<'_>,
        now: Time,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Http2Error> {
        self.consumed += frame.payload.len() as u32;
        if self.consumed > CONNECTION_WINDOW / 2 {
            write(&mut self.out, kind::WINDOW_UPDATE, 0, 0, &self.consumed.to_be_bytes());
            self.consumed = 0;
        }
        let content = frame.content()?;
        // What comes of a request that has ended for us is of no interest.
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return Ok(()) };
        let code = stream.code.ok_or(Http2Error::Frame)?;
        stream.body_bytes += content.len() as u64;
        if stream.body_bytes > MAX_BODY {
            self.reset(frame.stream, CANCEL);
            let failure = Failure::Response(crate::response::ResponseError::BodyTooLong);
            self.end(frame.stream, Some(failure), ended);
            return Ok(());
        }
        if let Some(tokens) = stream.tokens.as_mut().filter(|_| code < 400) {
            tokens.feed(content, now);
        }
        if let Some(kept) = &mut stream.kept {
            let room = MAX_KEPT.saturating_sub(kept.len()).min(content.len());
            kept.extend_from_slice(&content[..room]);
        }
        if frame.has(flag::END_STREAM) {
            self.complete(frame.stream, ended);
        }
        Ok(())
    }

    fn headers(
        &mut self,
        frame: &Frame<'_>,
        now: Time,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Http2Error> {
        let mut block = match self.block.take() {
            None if frame.kind == kind::CONTINUATION => return Err(Http2Error::Frame),
            Some(block) if block.stream != frame.stream => return Err(Http2Error::Frame),
            Some(block) => block,
            None if frame.has(flag::END_HEADERS) => {
                let ends = frame.has(flag::END_STREAM);
                return self.head(frame.stream, frame.content()?, ends, now, ended);
            }
            None => {
                let (stream, ends) = (frame.stream, frame.has(flag::END_STREAM));
                Block { stream, ends, bytes: Vec::new() }
            }
        };
        let content = if frame.kind == kind::HEADERS { frame.content()? } else { frame.payload };
        block.bytes.extend_from_slice(content);
        if block.bytes.len() > MAX_BLOCK || content.is_empty() {
            return Err(Http2Error::HeadTooLong);
        }
        if frame.has(flag::END_HEADERS) {
            return self.head(block.stream, &block.bytes, block.ends, now, ended);
        }
        self.block = Some(block);
        Ok(())
    }

    fn head(
        &mut self,
        id: u32,
        block: &[u8],
        ends: bool,
        now: Time,
        ended: &mut Vec<Ended>,
    ) -> Result<(), Http2Error> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.request.first_byte.get_or_insert(now);
        if stream.code.is_none() {
            let code = head::status(block)?;
            if code >= 200 {
                stream.code = Some(code);
            } else if ends || code == 101 {
                return Err(Http2Error::Status);
            }
        } else if !ends {
            // After the body only trailers come, and they are the end.
            return Err(Http2Error::Frame);
        }
        if ends {
            self.complete(id, ended);
        }
        Ok(())
    }

    fn go_away(&mut self, frame: &Frame<'_>, ended: &mut Vec<Ended>) -> Result<(), Http2Error> {
        let last = frame.payload.first_chunk().ok_or(Http2Error::Frame)?;
        let last = u32::from_be_bytes(*last) & !(1 << 31);
        self.leaving = true;
        let unheard = self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id);
        for id in unheard.collect::<Vec<_>>() {
            self.end(id, Some(Failure::GoneAway), ended);
        }
        Ok(())
    }

    /// The answer is complete.
    fn complete(&mut self, id: u32, ended: &mut Vec<Ended>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let failure = stream.code.filter(|code| *code >= 400).map(Failure::Code);
        let failure = failure.or_else(|| stream.tokens.as_mut()?.finish());
        if !stream.body.is_empty() {
            self.reset(id, NO_ERROR);
        }
        self.end(id, failure, ended);
    }

    fn reset(&mut self, id: u32, code: u32) {
        write(&mut self.out, kind::RST_STREAM, 0, id, &code.to_be_bytes());
    }

    fn end(&mut self, id: u32, failure: Option<Failure>, ended: &mut Vec<Ended>) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.unsent -= usize::from(!stream.body.is_empty());
        let Stream { request, code, body_bytes, tokens, kept, .. } = stream;
        ended.push(Ended { request, code, body_bytes, tokens, kept, failure });
    }
}

#[cfg(test)]
mod tests;
