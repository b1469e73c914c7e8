//! Tests of the crate from outside.

mod arrivals;
mod profiles;
mod traces;
