//! The live world: a gateway that serves the functions of a system file.
//!
//! [`run`] does it all until it is told to stop; [`Gateway::start`] is for who wants to know the addresses. What
//! is decided (which replica, retry or not, how many) is decided by [`gatewright_control::System`], which the
//! `driver` feeds with events and whose effects it carries out. Around it stand:
//!
//! - `plane`: HTTP requests from the network, routed, invoked or relayed, answered;
//! - `store`: responses kept in memory, and one fetch for all who ask for the same meanwhile;
//! - `access`, `limits`, `forwarding`: API keys, rate limits, and where requests come from;
//! - `check`: what a response must look like;
//! - `process`: programs, run for each request or served from;
//! - `logs`: the last lines that replicas printed;
//! - `python`: worker processes, the hub they connect to, and the door for those from elsewhere;
//! - `embedded`: the hub alone, for programs that ask workers themselves;
//! - `upstream`: the client for HTTP functions;
//! - `tls`: certificates of listeners, and whom an upstream's must come from;
//! - `admin`: operations, health and metrics on an address of their own;
//! - `records`: one line for each request, written by a task that no request waits for.

mod access;
mod admin;
mod admin_logs;
mod answer;
mod bodies;
mod call;
mod check;
mod clock;
mod driver;
mod embedded;
mod error;
mod forwarding;
mod function;
mod gateway;
mod gather;
mod headers;
mod limits;
mod listener;
mod logs;
mod metrics;
mod metrics_page;
mod openapi;
mod options;
mod output;
mod plane;
mod process;
mod purging;
mod python;
mod quiet;
mod records;
mod route;
mod shutdown;
mod squeeze;
mod store;
mod streams;
mod tls;
mod token;
mod upgrade;
mod upstream;

pub use embedded::{Caller, EmbeddedHub, HubError, HubOptions, HubStatus, ROOM, SharedHub};
pub use error::{ServeError, StartFailure};
pub use gateway::{Gateway, run};
pub use metrics_page::metrics_page;
pub use options::Options;
pub use python::Attendance;
pub use shutdown::{Shutdown, ShutdownHandle, Stop};
pub use tls::TlsError;
