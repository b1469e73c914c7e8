//! Functions that are programs: one process for each request, or servers that go on.

mod command;
mod reaper;
mod replica;

pub(crate) use command::command;
pub(crate) use reaper::{Group, Reaper};
pub(crate) use replica::ProgramReplica;
