//! The gateway from outside: real sockets, real workers, real signals.

mod access;
mod admin;
mod cache;
mod calls;
mod compress;
mod connections;
mod disk;
mod fault_table;
mod faults;
mod going;
mod http2;
mod hub;
mod liveness;
mod order;
mod programs;
mod relay;
mod remote;
mod shared;
mod sick;
mod start;
mod support;
mod tls;
mod trailers;
mod tunnels;
mod upstreams;
