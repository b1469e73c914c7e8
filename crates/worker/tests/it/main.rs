//! Workers in Rust at a real hub.

mod calls;
mod connections;
mod door;
mod gateway;
mod support;
mod tls;
