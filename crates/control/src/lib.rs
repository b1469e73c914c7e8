//! The decisions of Gatewright: which replica a request goes to, how long it may wait, whether it is tried
//! again, how many replicas there are, whether a stored response may be served.
//!
//! [`System`] is a state machine in the manner of `quinn-proto`: it is given `now` and an [`Event`], changes its
//! own state, and says what should be done as [`Effect`]s. A live gateway feeds it from sockets and timers, a
//! simulation from a calendar of events; the code is the same, and the same events give the same effects.
//!
//! ```text
//!             events                     +----------------------+      effects
//!  live:  sockets, timers        ------> |        System        | ------> sockets, processes
//!  virtual: calendar of events   ------> |  handle(now, event)  | ------> calendar of events
//!                                        +----------------------+
//! ```
//!
//! Where to look: [`balance`] chooses a replica, [`placement`] a node of a [`cluster`], [`autoscale`] how many,
//! [`keep_alive`] how long idle ones stay, `queue` holds requests that
//! wait, [`cache`] says what a stored response is good for, [`config`] is `gatewright.toml`.

pub mod adapt;
pub mod autoscale;
pub mod balance;
pub mod cache;
pub mod cluster;
pub mod compress;
pub mod config;
mod deployment;
pub mod forwarded;
pub mod health;
pub mod keep_alive;
pub mod limit;
mod meter;
pub mod placement;
mod queue;
mod retry;
mod system;
mod timers;

pub use deployment::{Batch, Data, Deployment, Endpoint, ImageChoice, Retries, Scale};
pub use retry::is_idempotent;
pub use system::{
    Act, Effect, End, Event, FunctionKey, FunctionView, InvariantViolation, Invoke, Loss,
    Operation, OperationError, Outcome, ReplicaKey, ReplicaState, ReplicaView, RequestKey, Shed,
    Subject, System, Totals, URGENCY_DEFAULT,
};
