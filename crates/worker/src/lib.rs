//! Workers in Rust: an async function, or any [`Service`], that answers the requests of a Gatewright hub.
//!
//! ```no_run
//! use gatewright_worker::{Request, Worker, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), gatewright_worker::WorkerError> {
//! let square = service_fn(async |request: Request| {
//!     let x: f64 = request.input()?;
//!     Ok(x * x)
//! });
//! Worker::new("127.0.0.1:5019").function("square").concurrency(8).run(square).await
//! # }
//! ```
//!
//! A worker joins a hub over TCP, is sent requests as it has room for them, and joins again when its hub comes back.
//! It ends on SIGTERM or SIGINT after it has answered what it has. Pings are answered by tasks of its own: code that
//! computes for long belongs into [`blocking_fn`], so that the runtime stays free to answer them.
//!
//! - [`Request`] is one call: arguments, number, deadline, cancellation, and the way to send an answer bit by bit.
//! - [`Failure`] is a call that failed; every [`std::error::Error`] becomes one with `?`.
//! - [`service_fn`], [`blocking_fn`] and [`batch_fn`] make a [`Service`] of an async function, of one that blocks,
//!   and of one that takes many requests in one call.
//!
//! The bytes are described in `docs/reference/worker-protocol.md`.

mod answer;
mod connection;
mod link;
mod request;
mod service;
mod tls;
mod worker;

pub use answer::{Answer, Failure, IntoAnswer};
pub use gatewright_protocol::Arguments;
pub use request::{ArgumentError, Gone, Init, Request};
pub use service::{BatchFn, BlockingFn, Service, ServiceFn, batch_fn, blocking_fn, service_fn};
pub use tls::{Tls, TlsError};
pub use worker::{Worker, WorkerError};
