//! Bytes that a gateway and its workers exchange.
//!
//! A [`Frame`] is a `u32` length (little-endian) and that many bytes of msgpack: an array whose first element
//! is the number of the frame's kind. [`encode`] writes one, [`FrameDecoder`] reads them from whatever pieces
//! the socket delivers. Values of user code stay as the msgpack bytes they arrived in.
//!
//! [`Arguments`] turns a request body into the arguments of a call, and [`Reply`] turns its result into a
//! response body. `docs/reference/worker-protocol.md` describes all of it for whoever writes a worker.

mod arguments;
mod decode;
mod encode;
mod frame;
pub mod openai;
mod pack;
mod reply;
mod sse;

pub use arguments::{Arguments, ArgumentsError};
pub use decode::{DecodeError, FrameDecoder};
pub use encode::{EncodeError, encode};
pub use frame::{CallError, Frame, Hello, InitError, Request, VERSION};
pub use pack::{BIG_INTEGER, BIG_INTEGER_DIGITS, MAX_DEPTH};
pub use reply::{Reply, ReplyError};
pub use sse::{SSE_DONE, SseDecoder, SseError, SseEvent, encode_sse, encode_sse_json};
