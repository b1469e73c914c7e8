//! What processes that share a hub say to each other, over a Unix socket: a length of 4 bytes, a kind, and the
//! fields of the kind. Both ends are of the same version, which the greeting makes sure of; so there is nothing to
//! negotiate, and nobody else speaks it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gatewright_protocol::CallError;

use super::{HubError, HubStatus};
use crate::python::Reader;

/// A message that is longer is taken for garbage.
const MAX_MESSAGE: usize = 1 << 30;

/// What is read at a time, in bytes, unless a message is longer.
pub(super) const BUFFER: usize = 16 * 1024;

/// What a process that shares the hub says to the one that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// First of all: on which terms it would run the hub itself, and what workers would have to present.
    Greeting { terms: String, token: String },
    /// A request. Its time limit is in microseconds from now.
    Request { id: u64, timeout: Option<u64>, urgency: u8, args: Bytes, kwargs: Bytes },
    /// Nobody waits for a request any more.
    Cancel { id: u64 },
    /// So many pieces of an answer were taken.
    More { id: u64, count: u32 },
    /// How is the hub doing?
    Status { id: u64 },
}

/// What the process that has the hub says to one that shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// Requests may come.
    Welcome,
    /// It is not taken, and why.
    Refused { reason: String },
    /// The result of a request.
    Value { id: u64, value: Bytes },
    /// A piece of one.
    Piece { id: u64, text: bool, data: Bytes },
    /// It has none.
    Failed { id: u64, why: HubError },
    /// The answer to a question for the status.
    Status { id: u64, status: HubStatus },
    /// The port is free for another process; what is at a worker will still be answered, the rest comes back.
    Leaving,
}

/// The bytes are no message of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// Something that goes over the wire.
pub(super) trait Message: Sized {
    fn put(&self, out: &mut BytesMut);
    fn take(kind: u8, body: Bytes) -> Option<Self>;
}

/// Appends a message with its length.
pub(super) fn write<M: Message>(message: &M, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32(0);
    message.put(out);
    let length = u32::try_from(out.len() - start - 4).expect("what is sent came in frames of less");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Takes the first whole message off the buffer.
pub(super) fn read<M: Message>(buffer: &mut BytesMut) -> Result<Option<M>, Garbled> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Garbled)?;
    if length == 0 || length > MAX_MESSAGE {
        return Err(Garbled);
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut body = buffer.split_to(length).freeze();
    let kind = body.get_u8();
    M::take(kind, body).map(Some).ok_or(Garbled)
}

/// The next message that comes; `None` at the end of the connection, or of sense.
pub(super) async fn next<M: Message>(reader: &mut Reader, buffer: &mut BytesMut) -> Option<M> {
    loop {
        match read(buffer) {
            Ok(Some(message)) => return Some(message),
            Ok(None) => {}
            Err(Garbled) => {
                tracing::error!("a process that shares the hub sent garbage");
                return None;
            }
        }
        buffer.reserve(BUFFER / 4);
        if !matches!(reader.read(buffer).await, Ok(1..)) {
            return None;
        }
    }
}

impl Message for Ask {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Greeting { terms, token } => {
                out.put_u8(0);
                put_bytes(out, terms.as_bytes());
                put_bytes(out, token.as_bytes());
            }
            Self::Request { id, timeout, urgency, args, kwargs } => {
                out.put_u8(1);
                out.put_u64(*id);
                out.put_u64(timeout.unwrap_or(u64::MAX));
                out.put_u8(*urgency);
                put_bytes(out, args);
                put_bytes(out, kwargs);
            }
            Self::Cancel { id } => {
                out.put_u8(2);
                out.put_u64(*id);
            }
            Self::More { id, count } => {
                out.put_u8(3);
                out.put_u64(*id);
                out.put_u32(*count);
            }
            Self::Status { id } => {
                out.put_u8(4);
                out.put_u64(*id);
            }
        }
    }

    fn take(kind: u8, mut body: Bytes) -> Option<Self> {
        let body = &mut body;
        let message = match kind {
            0 => Self::Greeting { terms: take_text(body)?, token: take_text(body)? },
            1 => Self::Request {
                id: body.try_get_u64().ok()?,
                timeout: Some(body.try_get_u64().ok()?).filter(|&micros| micros != u64::MAX),
                urgency: body.try_get_u8().ok()?,
                args: take_bytes(body)?,
                kwargs: take_bytes(body)?,
            },
            2 => Self::Cancel { id: body.try_get_u64().ok()? },
            3 => Self::More { id: body.try_get_u64().ok()?, count: body.try_get_u32().ok()? },
            4 => Self::Status { id: body.try_get_u64().ok()? },
            _ => return None,
        };
        body.is_empty().then_some(message)
    }
}

impl Message for Tell {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Welcome => out.put_u8(0),
            Self::Refused { reason } => {
                out.put_u8(1);
                put_bytes(out, reason.as_bytes());
            }
            Self::Value { id, value } => {
                out.put_u8(2);
                out.put_u64(*id);
                put_bytes(out, value);
            }
            Self::Piece { id, text, data } => {
                out.put_u8(3);
                out.put_u64(*id);
                out.put_u8((*text).into());
                put_bytes(out, data);
            }
            Self::Failed { id, why } => {
                out.put_u8(4);
                out.put_u64(*id);
                put_error(out, why);
            }
            Self::Status { id, status } => {
                out.put_u8(5);
                out.put_u64(*id);
                for number in numbers(status) {
                    out.put_u64(number);
                }
            }
            Self::Leaving => out.put_u8(6),
        }
    }

    fn take(kind: u8, mut body: Bytes) -> Option<Self> {
        let body = &mut body;
        let message = match kind {
            0 => Self::Welcome,
            1 => Self::Refused { reason: take_text(body)? },
            2 => Self::Value { id: body.try_get_u64().ok()?, value: take_bytes(body)? },
            3 => Self::Piece {
                id: body.try_get_u64().ok()?,
                text: body.try_get_u8().ok()? != 0,
                data: take_bytes(body)?,
            },
            4 => Self::Failed { id: body.try_get_u64().ok()?, why: take_error(body)? },
            5 => Self::Status { id: body.try_get_u64().ok()?, status: take_status(body)? },
            6 => Self::Leaving,
            _ => return None,
        };
        body.is_empty().then_some(message)
    }
}

fn numbers(status: &HubStatus) -> [u64; 6] {
    let HubStatus { workers, queued, in_flight, arrived, retries, workers_lost } = *status;
    [workers.into(), queued as u64, in_flight.into(), arrived, retries, workers_lost]
}

fn take_status(body: &mut Bytes) -> Option<HubStatus> {
    let mut next = || body.try_get_u64().ok();
    Some(HubStatus {
        workers: u32::try_from(next()?).ok()?,
        queued: usize::try_from(next()?).ok()?,
        in_flight: u32::try_from(next()?).ok()?,
        arrived: next()?,
        retries: next()?,
        workers_lost: next()?,
    })
}

fn put_error(out: &mut BytesMut, why: &HubError) {
    match why {
        HubError::Call(CallError { id: _, kind, message, traceback, retryable: _ }) => {
            out.put_u8(0);
            put_bytes(out, kind.as_bytes());
            put_bytes(out, message.as_bytes());
            out.put_u8(traceback.is_some().into());
            put_bytes(out, traceback.as_deref().unwrap_or_default().as_bytes());
        }
        HubError::TimedOut(limit) => {
            out.put_u8(1);
            put_duration(out, *limit);
        }
        HubError::Lost => out.put_u8(2),
        HubError::QueueFull { retry_after } => {
            out.put_u8(3);
            put_duration(out, *retry_after);
        }
        HubError::Stopped => out.put_u8(4),
    }
}

fn take_error(body: &mut Bytes) -> Option<HubError> {
    Some(match body.try_get_u8().ok()? {
        0 => {
            let (kind, message) = (take_text(body)?, take_text(body)?);
            let there = body.try_get_u8().ok()? != 0;
            let traceback = Some(take_text(body)?).filter(|_| there);
            HubError::Call(CallError { id: 0, kind, message, traceback, retryable: false })
        }
        1 => HubError::TimedOut(Duration::from_nanos(body.try_get_u64().ok()?)),
        2 => HubError::Lost,
        3 => HubError::QueueFull { retry_after: Duration::from_nanos(body.try_get_u64().ok()?) },
        4 => HubError::Stopped,
        _ => return None,
    })
}

fn put_duration(out: &mut BytesMut, duration: Duration) {
    out.put_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("what is sent came in frames of less");
    out.put_u32(length);
    out.put_slice(bytes);
}

fn take_bytes(body: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(body.try_get_u32().ok()?).ok()?;
    (length <= body.len()).then(|| body.split_to(length))
}

fn take_text(body: &mut Bytes) -> Option<String> {
    String::from_utf8(take_bytes(body)?.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<M: Message + PartialEq + std::fmt::Debug>(messages: &[M]) {
        let mut all = BytesMut::new();
        for message in messages {
            write(message, &mut all);
        }
        let mut buffer = BytesMut::new();
        let mut back: Vec<M> = Vec::new();
        for &byte in &*all {
            buffer.put_u8(byte);
            while let Some(message) = read(&mut buffer).unwrap() {
                back.push(message);
            }
        }
        assert_eq!(back, messages);
        // Cut short by one byte, none of them is one.
        for message in messages {
            let mut whole = BytesMut::new();
            message.put(&mut whole);
            let mut body = whole.freeze();
            let kind = body.get_u8();
            if !body.is_empty() {
                assert_eq!(M::take(kind, body.slice(..body.len() - 1)), None, "{message:?}");
            }
        }
    }

    #[test]
    fn what_is_asked_comes_as_it_was_in_whatever_pieces() {
        let (args, kwargs) = (Bytes::from_static(b"\x91\x01"), Bytes::from_static(b"\x80"));
        there_and_back(&[
            Ask::Greeting { terms: "attempts 2".to_owned(), token: String::new() },
            Ask::Request {
                id: 1,
                timeout: None,
                urgency: 3,
                args: args.clone(),
                kwargs: kwargs.clone(),
            },
            Ask::Request { id: 2, timeout: Some(1_000), urgency: 0, args, kwargs },
            Ask::Cancel { id: 3 },
            Ask::More { id: 4, count: 5 },
            Ask::Status { id: 6 },
        ]);
    }

    #[test]
    fn what_is_told_comes_as_it_was_in_whatever_pieces() {
        let error = CallError {
            id: 0,
            kind: "ValueError".to_owned(),
            message: "no".to_owned(),
            traceback: Some(String::new()),
            retryable: false,
        };
        let status = HubStatus {
            workers: 1,
            queued: 2,
            in_flight: 3,
            arrived: 4,
            retries: 5,
            workers_lost: 6,
        };
        let failed = |why| Tell::Failed { id: 9, why };
        there_and_back(&[
            Tell::Welcome,
            Tell::Refused { reason: "no".to_owned() },
            Tell::Value { id: 1, value: Bytes::from_static(b"\xc0") },
            Tell::Piece { id: 2, text: true, data: Bytes::from_static(b"piece") },
            failed(HubError::Call(error.clone())),
            failed(HubError::Call(CallError { traceback: None, ..error })),
            failed(HubError::TimedOut(Duration::from_millis(5))),
            failed(HubError::Lost),
            failed(HubError::QueueFull { retry_after: Duration::from_secs(1) }),
            failed(HubError::Stopped),
            Tell::Status { id: 3, status },
            Tell::Leaving,
        ]);
    }

    #[test]
    fn garbage_is_told_from_what_is_not_whole() {
        for bytes in [&b"\0\0\0\0"[..], b"\xff\xff\xff\xff", b"\0\0\0\x01\x63"] {
            assert_eq!(read::<Ask>(&mut BytesMut::from(bytes)), Err(Garbled), "{bytes:?}");
        }
        assert_eq!(read::<Ask>(&mut BytesMut::from(&b"\0\0"[..])), Ok(None));
    }
}
