//! Answers in a content coding.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use gatewright_control::compress::{Coding, CompressRules};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};

use crate::answer::{Body, BrokenOff};
use crate::headers::{self, FieldsOf};
use crate::records::Trail;

/// Levels that cost about as much time as sending does: more saves little.
const GZIP_LEVEL: u32 = 6;
const BROTLI_LEVEL: u32 = 5;
const ZSTD_LEVEL: i32 = 3;
/// Bytes that an encoder looks back, as a power of two: its memory is a few times that.
const WINDOW: u32 = 18;
/// Longest body that is here and is compressed at once, without going through pieces.
const AT_ONCE: usize = 64 * 1024;
/// Pieces that are compressed before others get a turn.
const PIECES: usize = 16;

/// Compresses bytes that come in pieces.
enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// A body that is compressed as it comes. Whenever there is nothing more for now, what came is sent.
pub(crate) struct Squeezed {
    inner: Body,
    encoder: Option<Encoder>,
    /// Something came that has not been sent.
    unsent: bool,
    /// What comes behind it.
    trailers: Option<HeaderMap>,
    trail: Option<Trail>,
    bytes: u64,
}

impl Encoder {
    fn new(coding: Coding) -> std::io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => {
                Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL)))
            }
            Coding::Br => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_LEVEL, WINDOW);
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(WINDOW))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    /// What is ready to be sent.
    fn take(&mut self) -> Bytes {
        let ready = match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(ready).into()
    }

    fn finish(self) -> std::io::Result<Bytes> {
        let rest = match self {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
        };
        Ok(rest.into())
    }
}

/// All of a body at once.
pub(crate) fn squeezed(bytes: &[u8], coding: Coding) -> std::io::Result<Bytes> {
    let mut encoder = Encoder::new(coding)?;
    encoder.writer().write_all(bytes)?;
    encoder.finish()
}

impl Squeezed {
    /// The body back if there is no memory for an encoder.
    pub(crate) fn new(inner: Body, coding: Coding) -> Result<Self, Body> {
        match Encoder::new(coding) {
            Ok(encoder) => {
                let encoder = Some(encoder);
                Ok(Self { inner, encoder, unsent: false, trailers: None, trail: None, bytes: 0 })
            }
            Err(error) => {
                tracing::warn!(%error, "an answer is not compressed");
                Err(inner)
            }
        }
    }

    pub(crate) fn follow(&mut self, trail: Trail) {
        self.trail = Some(trail);
    }

    pub(crate) fn is_end(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        for _ in 0..PIECES {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok));
            };
            let written = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.unsent = true;
                        encoder.writer().write_all(&data)
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        return self.end();
                    }
                },
                Poll::Ready(Some(Err(broken))) => return self.broken(broken),
                Poll::Ready(None) => return self.end(),
                Poll::Pending if self.unsent => {
                    self.unsent = false;
                    let flushed = encoder.writer().flush();
                    let ready = encoder.take();
                    if flushed.is_ok() && ready.is_empty() {
                        return Poll::Pending;
                    }
                    return self.send(flushed, ready);
                }
                Poll::Pending => return Poll::Pending,
            };
            let ready = encoder.take();
            if written.is_err() || !ready.is_empty() {
                return self.send(written, ready);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn send(
        &mut self,
        done: std::io::Result<()>,
        ready: Bytes,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if done.is_err() {
            return self.broken(BrokenOff::Upstream);
        }
        self.bytes += ready.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(ready))))
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(encoder) = self.encoder.take() else { return Poll::Ready(None) };
        match encoder.finish() {
            Ok(rest) => {
                let sent = self.send(Ok(()), rest);
                if let Some(trail) = self.trail.take() {
                    trail.streamed(None, self.bytes);
                }
                sent
            }
            Err(_) => self.broken(BrokenOff::Upstream),
        }
    }

    fn broken(&mut self, broken: BrokenOff) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.encoder = None;
        if let Some(trail) = self.trail.take() {
            trail.streamed(Some(&broken), self.bytes);
        }
        Poll::Ready(Some(Err(broken)))
    }
}

impl std::fmt::Debug for Squeezed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squeezed").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Drop for Squeezed {
    fn drop(&mut self) {
        if let Some(trail) = self.trail.take() {
            trail.abandoned(self.bytes);
        }
    }
}

/// Puts an answer into the coding that its client likes best, if it is one that the rules compress.
pub(crate) fn apply(
    rules: &CompressRules,
    coding: Option<Coding>,
    head: bool,
    response: &mut Response<Body>,
) {
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED || status == StatusCode::PARTIAL_CONTENT {
        vary(response.headers_mut());
        if coding.is_some() && status == StatusCode::NOT_MODIFIED {
            // The client has it in a coding.
            weaken(response.headers_mut());
        }
        return;
    }
    let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse().ok()).or_else(|| response.body().len());
    let length = length.filter(|length| !head || *length > 0);
    if !rules.fits(status.as_u16(), &FieldsOf(response.headers()), length) {
        return;
    }
    vary(response.headers_mut());
    let Some(coding) = coding else { return };
    if head {
        return describe(response.headers_mut(), coding, None);
    }
    let body = std::mem::replace(response.body_mut(), Body::empty());
    let body = match body {
        Body::Whole(Some(bytes)) if bytes.len() <= AT_ONCE => match squeezed(&bytes, coding) {
            Ok(bytes) => Ok(Body::whole(bytes)),
            Err(_) => Err(Body::whole(bytes)),
        },
        body => Squeezed::new(body, coding).map(|body| Body::Squeezed(Box::new(body))),
    };
    match body {
        Ok(body) => {
            describe(response.headers_mut(), coding, None);
            *response.body_mut() = body;
        }
        Err(body) => *response.body_mut() = body,
    }
}

/// Makes the fields of a plain answer those of one in a coding. Its length is known if that is given.
pub(crate) fn describe(headers: &mut HeaderMap, coding: Coding, length: Option<usize>) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(ACCEPT_RANGES);
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
    weaken(headers);
    vary(headers);
}

/// The same content in other bytes has a weak tag (RFC 9110 section 8.8.3.3).
fn weaken(headers: &mut HeaderMap) {
    let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let weak =
        strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok());
    weak.into_iter().for_each(|weak| drop(headers.insert(ETAG, weak)));
}

/// Says that another client may get it in another coding.
fn vary(headers: &mut HeaderMap) {
    let said = headers::tokens(headers, &VARY)
        .any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding"));
    if !said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_coding_are_its_own() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept-ranges", "bytes"),
            ("content-length", "100"),
            ("etag", "\"a\""),
            ("vary", "accept-language"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        describe(&mut headers, Coding::Br, Some(40));
        describe(&mut headers, Coding::Br, Some(40));
        let said = |name: &str| {
            let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap());
            lines.collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(said("accept-ranges"), "", "a range of it would be one of other bytes");
        assert_eq!((said("content-length"), said("content-encoding")), ("40".into(), "br".into()));
        assert_eq!(said("etag"), "W/\"a\"");
        assert_eq!(said("vary"), "accept-language | accept-encoding");
    }
}
