use bytes::{BufMut, BytesMut};
use rmp::encode as mp;

use crate::{Frame, Hello};

/// Why a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is longer than its length field can say.
    #[error("a frame of {0} bytes does not fit the 4-byte length; send less in one call")]
    TooLong(usize),
}

/// Appends `frame` to `out`: its length and its bytes.
///
/// The raw values inside (arguments, results) are copied as they are; it is the caller's part that they are one
/// msgpack value of the right type each.
///
/// # Errors
/// If the frame is longer than `u32::MAX` bytes; `out` is then as it was.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u32_le(0);
    body(frame, out);
    let length = out.len() - start - 4;
    let Ok(prefix) = u32::try_from(length) else {
        out.truncate(start);
        return Err(EncodeError::TooLong(length));
    };
    out[start..start + 4].copy_from_slice(&prefix.to_le_bytes());
    Ok(())
}

fn body(frame: &Frame, out: &mut BytesMut) {
    let number = frame.number();
    match frame {
        Frame::Hello(hello) => put_hello(hello, out),
        Frame::Batch { size } => {
            head(out, 2, number);
            uint(out, (*size).into());
        }
        Frame::Init { max_frame, args, kwargs } => {
            head(out, 4, number);
            uint(out, (*max_frame).into());
            out.put_slice(args);
            out.put_slice(kwargs);
        }
        Frame::Ready | Frame::Drain => head(out, 1, number),
        Frame::InitError(error) => {
            head(out, 4, number);
            text(out, &error.kind);
            text(out, &error.message);
            optional_text(out, error.traceback.as_deref());
        }
        Frame::Request(request) => {
            head(out, 6, number);
            uint(out, request.id);
            optional_uint(out, request.deadline_ms);
            uint(out, request.attempt.into());
            out.put_slice(&request.args);
            out.put_slice(&request.kwargs);
        }
        Frame::Response { id, value } => {
            head(out, 3, number);
            uint(out, *id);
            out.put_slice(value);
        }
        Frame::Chunk { id, text: is_text, data } => {
            head(out, 3, number);
            uint(out, *id);
            chunk(out, *is_text, data);
        }
        Frame::Error(error) => {
            head(out, 6, number);
            uint(out, error.id);
            text(out, &error.kind);
            text(out, &error.message);
            optional_text(out, error.traceback.as_deref());
            out.put_u8(
                if error.retryable { rmp::Marker::True } else { rmp::Marker::False }.to_u8(),
            );
        }
        Frame::Cancel { id: value }
        | Frame::Ping { nonce: value }
        | Frame::Pong { nonce: value } => {
            head(out, 2, number);
            uint(out, *value);
        }
        Frame::Bye { reason } => {
            head(out, 2, number);
            text(out, reason);
        }
    }
}

fn put_hello(hello: &Hello, out: &mut BytesMut) {
    let told = !hello.labels.is_empty() || hello.cpus.is_some() || hello.memory.is_some();
    head(out, if told { 11 } else { 8 }, 1);
    uint(out, hello.version.into());
    text(out, &hello.name);
    uint(out, hello.pid.into());
    uint(out, hello.window.into());
    text(out, &hello.token);
    optional_text(out, hello.function.as_deref());
    text(out, &hello.node);
    if !told {
        return;
    }
    let labels = u32::try_from(hello.labels.len()).unwrap_or(u32::MAX);
    mp::write_map_len(&mut out.writer(), labels).expect("memory takes every write");
    for (key, value) in &hello.labels {
        text(out, key);
        text(out, value);
    }
    optional_uint(out, hello.cpus.map(u64::from));
    optional_uint(out, hello.memory);
}

/// Array of at most 15 elements whose first one is the kind, at most 127.
fn head(out: &mut BytesMut, elements: u8, number: u8) {
    out.put_u8(rmp::Marker::FixArray(elements).to_u8());
    out.put_u8(number);
}

fn chunk(out: &mut BytesMut, is_text: bool, data: &[u8]) {
    let mut writer = out.writer();
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let written = if is_text {
        mp::write_str_len(&mut writer, length).map(|_| ())
    } else {
        mp::write_bin_len(&mut writer, length).map(|_| ())
    };
    written.expect("memory takes every write");
    out.put_slice(data);
}

fn uint(out: &mut BytesMut, value: u64) {
    mp::write_uint(&mut out.writer(), value).expect("memory takes every write");
}

fn optional_uint(out: &mut BytesMut, value: Option<u64>) {
    match value {
        Some(value) => uint(out, value),
        None => out.put_u8(rmp::Marker::Null.to_u8()),
    }
}

fn text(out: &mut BytesMut, value: &str) {
    chunk(out, true, value.as_bytes());
}

fn optional_text(out: &mut BytesMut, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.put_u8(rmp::Marker::Null.to_u8()),
    }
}
