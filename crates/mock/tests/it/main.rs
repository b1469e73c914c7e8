//! The mock server, over real sockets.
