//! The simulation as its users see it: against the theory of queues, and on the rules of the system.

mod behaviour;
mod closed_forms;
mod cluster;
mod examples;
mod failures;
mod language;
mod measuring;
mod policies;
mod random;
mod rig;
mod theory;
mod traces;
