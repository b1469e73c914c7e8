//! Numbers of a run, the same in every world: the [`Invocation`] record that each request leaves behind, and
//! what is made of many of them.

mod invocation;

pub use invocation::{CacheResult, Invocation, Status, World};
