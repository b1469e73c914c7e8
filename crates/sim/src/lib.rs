//! The system in virtual time: `gatewright_control::System`, unchanged, driven by a calendar of events instead of
//! sockets and timers.
//!
//! What the decisions do not know is drawn from a [`Model`]: how long a request takes ([`Law`]), how long a
//! replica takes to start, how popular the keys of a cache are. What is asked of the system is a [`Scenario`].
//! Requests, random numbers and the order of events depend on the scenario and the seed alone, so a
//! [`Simulation`] gives the same bytes on every machine.

mod calendar;
mod faults;
mod flows;
mod keys;
mod law;
pub mod llm;
mod measured;
mod model;
mod scenario;
mod sharing;
mod simulation;

pub use calendar::Calendar;
pub use faults::{Fault, Faults, Outage};
pub use flows::{FlowEnd, Flows, GOODPUT};
pub use keys::{Keys, MAX_KEYS};
pub use law::{Law, LawError, Sampler};
pub use model::{CacheModel, DeviceModel, Fitted, FunctionModel, Model, Range, Variant};
pub use scenario::{Demand, Paths, Scenario, Step, Target};
pub use sharing::Contention;
pub use simulation::{
    Call, DemandReport, FunctionReport, FunctionSample, NodeReport, NodeSample, Phase, Policies,
    Progress, RecordSink, ReplicaSample, ReplicaStep, Sample, Scaling, ServiceModel, Simulation,
    SimulationError, SimulationReport, Transfer, TransferKind,
};
