use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_protocol::{Arguments, Frame};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::link::Link;

/// What the hub says before the first request: the arguments that the function has in `gatewright.toml`.
#[derive(Clone, Debug)]
pub struct Init {
    pub(crate) arguments: Arguments,
}

/// One call. Dropping it changes nothing: it is answered with what the service returns.
#[derive(Debug)]
pub struct Request {
    pub(crate) id: u64,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Instant>,
    pub(crate) arguments: Arguments,
    pub(crate) cancelled: CancellationToken,
    pub(crate) link: Arc<Link>,
}

/// Why arguments are not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// They are of another type.
    #[error("the arguments do not fit: {0}")]
    Type(#[from] rmp_serde::decode::Error),
    /// There is not one input.
    #[error("one positional argument is due, or only keyword arguments")]
    NotOne,
}

/// Nobody takes pieces of the answer any more: the request is cancelled or the hub is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes the answer any more")]
pub struct Gone;

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ArgumentError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// The one input: the only positional argument, or all keyword arguments, as a batched function gets it.
fn input<T: DeserializeOwned>(arguments: &Arguments) -> Result<T, ArgumentError> {
    match (count(&arguments.args), count(&arguments.kwargs)) {
        (1, 0) => Ok(unpack::<(T,)>(&arguments.args)?.0),
        (0, 1..) => unpack(&arguments.kwargs),
        _ => Err(ArgumentError::NotOne),
    }
}

/// Elements of an array or a map, which the frame's decoder has found to be one.
fn count(packed: &[u8]) -> u32 {
    match packed {
        [marker @ 0x80..=0x9f, ..] => u32::from(marker & 0x0f),
        [0xdc | 0xde, high, low, ..] => u16::from_be_bytes([*high, *low]).into(),
        [0xdd | 0xdf, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

impl Init {
    /// The positional arguments: a tuple, or a vector.
    ///
    /// # Errors
    /// If they are of another type or number.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        unpack(&self.arguments.args)
    }

    /// The keyword arguments: a structure, or a map.
    ///
    /// # Errors
    /// If they are of other names or types.
    pub fn kwargs<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        unpack(&self.arguments.kwargs)
    }
}

impl Request {
    /// Its number, unique on one connection.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// 1 for the first attempt, 2 when that was lost with its worker, and so on.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When its caller gives up, if it does; an answer after that is thrown away.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Time left to the deadline, zero after it.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The one input: the only positional argument, or a structure of the keyword arguments.
    ///
    /// # Errors
    /// If there are more arguments, or it is of another type.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        input(&self.arguments)
    }

    /// The positional arguments: a tuple, or a vector.
    ///
    /// # Errors
    /// If they are of another type or number.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        unpack(&self.arguments.args)
    }

    /// The keyword arguments: a structure, or a map.
    ///
    /// # Errors
    /// If they are of other names or types.
    pub fn kwargs<T: DeserializeOwned>(&self) -> Result<T, ArgumentError> {
        unpack(&self.arguments.kwargs)
    }

    /// The arguments as they came, in msgpack.
    #[must_use]
    pub fn packed(&self) -> &Arguments {
        &self.arguments
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Returns when nobody waits for the answer any more.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancelled.cancelled()
    }

    /// A token that is set off when nobody waits for the answer any more, for the tasks of this call.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Sends a piece of the answer as text. Waits while the hub takes no more; after the last piece, the service
    /// returns [`Answer::nothing`](crate::Answer::nothing) (or `()`), or a failure, which breaks the answer off.
    ///
    /// # Errors
    /// If nobody takes it any more.
    pub async fn send(&self, text: impl Into<String>) -> Result<(), Gone> {
        self.piece(true, Bytes::from(text.into())).await
    }

    /// Sends a piece of the answer as bytes; see [`Self::send`].
    ///
    /// # Errors
    /// If nobody takes it any more.
    pub async fn send_bytes(&self, data: impl Into<Bytes>) -> Result<(), Gone> {
        self.piece(false, data.into()).await
    }

    async fn piece(&self, text: bool, data: Bytes) -> Result<(), Gone> {
        let frame = Frame::Chunk { id: self.id, text, data };
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Gone),
            sent = self.link.send_with_patience(&frame) => sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Arguments {
        Arguments::json(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_input_is_one_argument_or_all_keywords() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Point {
            x: i32,
            y: i32,
        }
        assert_eq!(input::<f64>(&of("2.5")).unwrap(), 2.5);
        assert_eq!(input::<Vec<u8>>(&of("[[1, 2]]")).unwrap(), [1, 2]);
        assert_eq!(input::<Point>(&of("{\"x\": 1, \"y\": 2}")).unwrap(), Point { x: 1, y: 2 });
        for wrong in ["[1, 2]", "{}", "[]"] {
            assert!(matches!(input::<f64>(&of(wrong)), Err(ArgumentError::NotOne)), "{wrong}");
        }
        assert!(matches!(input::<f64>(&of("\"a\"")), Err(ArgumentError::Type(_))));
        let many: Vec<_> = (0..20).map(|n| format!("\"k{n}\": {n}")).collect();
        let many: std::collections::BTreeMap<String, u32> =
            input(&of(&format!("{{{}}}", many.join(",")))).unwrap();
        assert_eq!(many.len(), 20);
    }
}
