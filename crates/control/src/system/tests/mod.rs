//! The system driven by hand: `rig` does what the effects say, `cases` and `update` look at one situation each, `minute` at an
//! upstream that is sick for a minute,
//! `random` at whatever may happen.

mod cases;
mod minute;
mod random;
mod rig;
mod update;
mod upstreams;
