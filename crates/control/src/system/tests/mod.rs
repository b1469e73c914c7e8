//! The system driven by hand: `rig` does what the effects say, `cases` and `update` look at one situation each,
//! `random` at whatever may happen.

mod cases;
mod random;
mod rig;
mod update;
mod upstreams;
