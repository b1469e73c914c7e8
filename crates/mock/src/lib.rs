//! Mock servers: an HTTP server that takes a random time, and a language model behind OpenAI's API whose
//! latency depends on its load.
//!
//! A [`Config`] says what to pretend. [`run`] serves until it is told to stop, [`start`] in the background.
//! Everything random depends on the seed and the number of a request, so a run can be had again; every moment
//! is part of an absolute plan and kept to some ten microseconds, so what a benchmark finds can be compared with
//! what the server was told.
//!
//! Tokens are counted by a rule of the mock's own: a token is up to six bytes of a word, with the space before
//! it; other white space is a token a character. Every message of a conversation, and the answer to come, counts
//! three tokens more. The usage in an answer, the events of a stream and `/tokenize` agree by that rule.

mod body;
mod clock;
mod config;
mod engine;
mod error;
mod fate;
mod io;
mod openai;
mod plain;
mod prompt;
mod refusal;
mod server;
mod slots;
mod stats;
mod text;
mod timer;
mod visit;
mod worker;

pub use config::{Config, Faults, HttpConfig, Limits, OpenAiConfig, PrefixCache, SlowStart};
pub use error::MockError;
pub use server::{Mock, run, start};
pub use stats::{LatenessSummary, Summary};
