//! What every decision is given: [`Time`], nanoseconds since the start of the run, and [`Stream`], random
//! numbers drawn from a seed and the number of a request.
//!
//! Nothing here reads a clock or shares a generator. A live run measures its [`Time`] from a monotonic clock
//! once per event; a simulation counts it up; the decisions cannot tell the difference.

mod logarithm;
mod stream;
mod time;

pub use stream::{Purpose, Stream, Streams};
pub use time::Time;
