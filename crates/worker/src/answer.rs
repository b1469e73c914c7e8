use std::fmt;

use bytes::Bytes;
use gatewright_protocol::{CallError, InitError};
use serde::Serialize;

/// Longest message of a failure that is passed on, in bytes.
const MAX_MESSAGE: usize = 4_000;
/// msgpack's nil.
const NIL: &[u8] = &[0xc0];

/// What a call returned: one msgpack value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub(crate) Bytes);

impl Answer {
    /// The msgpack of any value that serde can write; structures become maps.
    ///
    /// # Errors
    /// If the value's own `Serialize` fails.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, Failure> {
        Ok(Self(rmp_serde::to_vec_named(value)?.into()))
    }

    /// Bytes, which go out as `application/octet-stream`. (Serde writes a `Vec<u8>` as a list of numbers.)
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        let mut packed = Vec::with_capacity(bytes.len() + 5);
        // bin 32 of the msgpack specification; more than its length can say does not fit a frame either.
        packed.push(0xc6);
        packed.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        packed.extend(bytes);
        Self(packed.into())
    }

    /// Nothing: also the end of an answer that was sent in pieces.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(Bytes::from_static(NIL))
    }

    /// A value that is msgpack already: exactly one, else the gateway answers 500.
    #[must_use]
    pub fn packed(value: impl Into<Bytes>) -> Self {
        Self(value.into())
    }
}

/// What a function may return: an [`Answer`], or anything that serde can write.
pub trait IntoAnswer {
    /// The answer.
    ///
    /// # Errors
    /// If it cannot be written.
    fn into_answer(self) -> Result<Answer, Failure>;
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Result<Answer, Failure> {
        Ok(self)
    }
}

impl<T: Serialize> IntoAnswer for T {
    fn into_answer(self) -> Result<Answer, Failure> {
        Answer::new(&self)
    }
}

/// A call that failed. It reaches the client as 500, with kind and message.
///
/// Any error becomes one with `?`; its kind is the name of its type. (For that, this is no [`std::error::Error`]
/// itself.)
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
}

impl Failure {
    /// A failure of this kind, such as `ValueError`.
    #[must_use]
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retryable: false }
    }

    /// Says that the same request may succeed on another attempt, which the hub then makes if it may.
    #[must_use]
    pub fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new("Cancelled", "nobody waits for the answer any more")
    }

    /// The frame's content, in lengths that always fit.
    pub(crate) fn of_call(self, id: u64) -> CallError {
        let Self { kind, message, retryable } = self.cut();
        CallError { id, kind, message, traceback: None, retryable }
    }

    pub(crate) fn of_init(self) -> InitError {
        let Self { kind, message, .. } = self.cut();
        InitError { kind, message, traceback: None }
    }

    fn cut(mut self) -> Self {
        let mut end = self.message.len().min(MAX_MESSAGE);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        self.message.truncate(end);
        self
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind, self.message)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        // Without the path, and without the parameters of a generic type.
        let name = std::any::type_name::<E>();
        let name = name.split('<').next().unwrap_or(name);
        let kind = name.rsplit("::").next().unwrap_or(name).to_owned();
        Self { kind, message, retryable: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_a_failure_with_its_name_and_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("no model")]
        struct NoModel(#[from] std::num::ParseIntError);
        let failure = Failure::from(NoModel("x".parse::<u8>().unwrap_err()));
        assert_eq!(failure.to_string(), "NoModel: no model: invalid digit found in string");
        assert!(!failure.retryable && failure.retryable().retryable);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Failure::new("E", "ä".repeat(MAX_MESSAGE)).of_call(1);
        assert_eq!(error.message, "ä".repeat(MAX_MESSAGE / 2));
        let odd = Failure::new("E", format!("x{}", "ä".repeat(MAX_MESSAGE))).of_call(1);
        assert_eq!(odd.message.len(), MAX_MESSAGE - 1);
    }

    #[test]
    fn bytes_are_bytes() {
        assert_eq!(Answer::bytes(b"ab").0.as_ref(), [0xc6, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(Answer::new(&[1, 2]).unwrap().0.as_ref(), [0x92, 1, 2]);
    }
}
