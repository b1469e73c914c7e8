//! The command as its users see it: what it prints, where, and how it ends.

mod bench;
mod bench_requests;
mod command;
mod guides;
mod help;
mod house;
mod lunch;
mod published;
mod reference;
mod scenarios;
mod served;
mod settings;
mod simulated;
mod sweeps;
mod twin;
