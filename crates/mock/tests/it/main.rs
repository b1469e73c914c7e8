//! The mock server, over real sockets.

mod client;
mod faults;
mod limits;
mod load;
mod openai;
mod plain;
