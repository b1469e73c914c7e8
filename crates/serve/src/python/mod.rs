//! Workers that run classes: the hub that those connect to that the gateway starts, the door for those from
//! elsewhere, and each one's life.

mod door;
mod greeting;
mod hub;
mod link;
mod memory;
mod process;
mod replica;
mod socket;

pub(crate) use door::Door;
pub(crate) use hub::Hub;
pub(crate) use link::Link;
pub(crate) use replica::PythonReplica;
pub(crate) use socket::{Reader, split_unix};
