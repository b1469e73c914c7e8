//! How much of a request's body may go out: windows (RFC 9113, section 5.2), and the settings that begin them.

use super::{BACKLOG, MAX_WINDOW, Session};
use crate::http2::frame::{Frame, Http2Error, MAX_FRAME, flag, kind, setting, write};

impl Session {
    pub(super) fn settings(&mut self, frame: &Frame<'_>) -> Result<(), Http2Error> {
        if frame.stream != 0 || !frame.payload.len().is_multiple_of(6) {
            return Err(Http2Error::Frame);
        }
        if frame.has(flag::ACK) {
            self.is_agreed = true;
            return Ok(());
        }
        self.has_settings = true;
        for &[a, b, c, d, e, f] in frame.payload.as_chunks::<6>().0 {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                setting::MAX_CONCURRENT_STREAMS => self.their_limit = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let value = i64::from(value);
                    if value > MAX_WINDOW {
                        return Err(Http2Error::Window);
                    }
                    let more = value - self.first_window;
                    self.first_window = value;
                    for stream in self.streams.values_mut() {
                        stream.window += more;
                        if stream.window > MAX_WINDOW {
                            return Err(Http2Error::Window);
                        }
                    }
                }
                _ => {}
            }
        }
        write(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        self.write_bodies();
        Ok(())
    }

    pub(super) fn widen(&mut self, frame: &Frame<'_>) -> Result<(), Http2Error> {
        let more = i64::from(frame.number()? & !(1 << 31));
        if frame.stream == 0 {
            self.window += more;
        }
        let of_stream = self.streams.get_mut(&frame.stream).map(|stream| {
            stream.window += more;
            stream.window
        });
        if more == 0 || self.window.max(of_stream.unwrap_or(0)) > MAX_WINDOW {
            return Err(Http2Error::Window);
        }
        self.write_bodies();
        Ok(())
    }

    /// Writes what the windows allow of bodies, the oldest first.
    pub(super) fn write_bodies(&mut self) {
        if self.unsent == 0 {
            return;
        }
        for (&id, stream) in &mut self.streams {
            if stream.body.is_empty() {
                continue;
            }
            let rest = &stream.body[stream.written..];
            stream.written += write_body(
                &mut self.out,
                self.gone,
                id,
                rest,
                &mut stream.window,
                &mut self.window,
            );
            if stream.written == stream.body.len() {
                (stream.body, stream.written) = (Vec::new(), 0);
                self.unsent -= 1;
            }
        }
    }
}

/// Writes as much of `body` as the windows and the backlog allow; how much.
pub(super) fn write_body(
    out: &mut Vec<u8>,
    gone: usize,
    id: u32,
    body: &[u8],
    window: &mut i64,
    shared: &mut i64,
) -> usize {
    let mut written = 0;
    while written < body.len() && out.len() - gone < BACKLOG {
        let allowed = usize::try_from((*window).min(*shared)).unwrap_or(0);
        let count = (body.len() - written).min(MAX_FRAME).min(allowed);
        if count == 0 {
            break;
        }
        let piece = &body[written..written + count];
        written += count;
        let flags = if written == body.len() { flag::END_STREAM } else { 0 };
        write(out, kind::DATA, flags, id, piece);
        *window -= count as i64;
        *shared -= count as i64;
    }
    written
}
