//! The gateway from outside: real sockets, real workers, real signals.

mod admin;
mod cache;
mod calls;
mod connections;
mod disk;
mod fault_table;
mod faults;
mod going;
mod hub;
mod liveness;
mod order;
mod programs;
mod relay;
mod remote;
mod shared;
mod start;
mod support;
mod tls;
mod upstreams;
