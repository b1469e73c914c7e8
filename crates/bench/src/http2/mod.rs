//! HTTP/2 (RFC 9113) as a client that makes load needs it: requests of prepared bytes, several at a time on a
//! connection, and of an answer its status, its body and its end.
//!
//! The client announces a header table of size zero, and asks nothing before the server has agreed. So a block of
//! headers stands for itself: those of requests are prepared once, and of answers only the first field is read, which
//! is the status. Windows for answers are as wide as they can be: the client never holds a server up.

mod frame;
mod head;
mod session;

pub(crate) use frame::{Http2Error, PREFACE, is_greeting};
pub(crate) use head::{FOREIGN, write_head};
pub(crate) use session::{Ended, Session};
