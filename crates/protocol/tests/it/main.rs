//! The protocol's bytes, from outside.

mod calls;
mod frames;
mod openai;
mod sse;
