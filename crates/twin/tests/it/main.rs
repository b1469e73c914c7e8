//! The twin on simulated records, where the truth is known.

mod calibration;
mod prediction;
mod rig;
