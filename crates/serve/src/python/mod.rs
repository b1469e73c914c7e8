//! Workers that run classes: the hub that those connect to that the gateway starts, the door for those from
//! elsewhere, and each one's life.

mod attendance;
mod door;
mod ear;
mod greeting;
mod hub;
mod link;
pub(crate) mod memory;
mod process;
mod refusal;
mod replica;
mod runtime_dir;
mod secure;
mod socket;
mod talk;
mod wakeful;

pub use attendance::Attendance;
pub(crate) use attendance::Load;
pub(crate) use door::{Door, Rules};
pub(crate) use hub::Hub;
pub(crate) use link::Link;
pub(crate) use refusal::{RefusalCounts, Refusals};
pub(crate) use replica::{Origin, PythonReplica};
pub(crate) use socket::{Reader, split_unix};
