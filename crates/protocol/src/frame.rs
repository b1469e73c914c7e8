use std::collections::BTreeMap;

use bytes::Bytes;

/// Version of the protocol that this crate speaks. A gateway refuses a worker that speaks another one.
pub const VERSION: u32 = 1;

/// One message between a gateway and a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Worker: the first frame on a connection.
    Hello(Hello),
    /// Gateway: the answer to an accepted hello; what the worker's object is constructed with.
    Init {
        /// Longest frame body in bytes that the gateway takes.
        max_frame: u32,
        /// Positional arguments: one msgpack array.
        args: Bytes,
        /// Keyword arguments: one msgpack map.
        kwargs: Bytes,
    },
    /// Worker: the object is constructed, requests may come.
    Ready,
    /// Worker: the object could not be constructed; the worker exits.
    InitError(InitError),
    /// Gateway: call the object.
    Request(Request),
    /// Gateway: the next `size` requests are one batch: call the object once, with a list.
    Batch {
        /// How many requests, at least 1 and at most the window.
        size: u32,
    },
    /// Worker: the call returned.
    Response {
        /// Number of the request.
        id: u64,
        /// The result: one msgpack value, not yet looked into.
        value: Bytes,
    },
    /// Worker: a piece of a result that is produced bit by bit; a response or an error follows the last one.
    Chunk {
        /// Number of the request.
        id: u64,
        /// Whether the piece is text (a msgpack string) rather than binary.
        text: bool,
        /// The piece.
        data: Bytes,
    },
    /// Worker: the call failed.
    Error(CallError),
    /// Gateway: nobody waits for this request any more. The worker still answers it, in any way.
    Cancel {
        /// Number of the request.
        id: u64,
    },
    /// Either side: are you there?
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// Either side: the answer to a ping.
    Pong {
        /// The nonce of the ping.
        nonce: u64,
    },
    /// Gateway: finish what you have, say bye and exit. Worker: send no more, and drain me when all is answered.
    Drain,
    /// Either side, last frame: the sender will close the connection.
    Bye {
        /// Why, for a log.
        reason: String,
    },
}

/// Who a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`VERSION`] of the worker.
    pub version: u32,
    /// Name of the worker for logs.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// How many requests it takes at a time, at least 1.
    pub window: u32,
    /// The secret that the gateway gave it when it was started, or that the operator gave to both.
    pub token: String,
    /// The function that it answers for; `None` if the gateway started it and so knows, or has only one.
    pub function: Option<String>,
    /// Name of the machine it runs on, for records.
    pub node: String,
    /// Labels of that machine, such as a zone.
    pub labels: BTreeMap<String, String>,
    /// Processors of that machine.
    pub cpus: Option<u32>,
    /// Memory of that machine in bytes.
    pub memory: Option<u64>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the request, unique on its connection.
    pub id: u64,
    /// Milliseconds left until the caller gives up, if it does.
    pub deadline_ms: Option<u64>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Positional arguments: one msgpack array.
    pub args: Bytes,
    /// Keyword arguments: one msgpack map with string keys.
    pub kwargs: Bytes,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// Number of the request.
    pub id: u64,
    /// Type of the error in the worker's language, such as `ValueError`.
    pub kind: String,
    /// What it says.
    pub message: String,
    /// Where it happened, if known.
    pub traceback: Option<String>,
    /// Whether the same request may succeed on another attempt.
    pub retryable: bool,
}

/// An object that could not be constructed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitError {
    /// Type of the error in the worker's language, such as `ModuleNotFoundError`.
    pub kind: String,
    /// What it says.
    pub message: String,
    /// Where it happened, if known.
    pub traceback: Option<String>,
}

impl Frame {
    /// The number that stands first in the frame.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Init { .. } => 2,
            Self::Ready => 3,
            Self::InitError(_) => 4,
            Self::Request(_) => 5,
            Self::Response { .. } => 6,
            Self::Chunk { .. } => 7,
            Self::Error(_) => 8,
            Self::Cancel { .. } => 9,
            Self::Ping { .. } => 10,
            Self::Pong { .. } => 11,
            Self::Drain => 12,
            Self::Bye { .. } => 13,
            Self::Batch { .. } => 14,
        }
    }

    /// Name of a kind of frame by its number, as the documentation has it.
    #[must_use]
    pub fn name(number: u8) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "hello",
            "init",
            "ready",
            "init error",
            "request",
            "response",
            "chunk",
            "error",
            "cancel",
            "ping",
            "pong",
            "drain",
            "bye",
            "batch",
        ];
        NAMES.get(usize::from(number).checked_sub(1)?).copied()
    }
}
