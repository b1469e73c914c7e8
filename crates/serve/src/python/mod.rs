//! Worker processes that run Python classes: the hub they connect to, and each one's life.

mod hub;
mod link;
mod process;
mod replica;

pub(crate) use hub::Hub;
pub(crate) use replica::PythonReplica;
