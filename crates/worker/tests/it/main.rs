//! Workers in Rust at a real hub.

mod calls;
mod connections;
mod support;
mod tls;
