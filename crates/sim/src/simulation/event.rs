//! What stands in the calendar.

use gatewright_control::ReplicaKey;

use super::flights::{FlightId, WorkId};
use crate::FlowEnd;

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The schedule of a demand wants a request sent.
    Due {
        demand: u32,
    },
    /// A stream of a closed loop asks (again).
    Ask {
        demand: u32,
    },
    /// A user asks again.
    Turn {
        demand: u32,
        turn: Turn,
    },
    /// The gateway has read a request.
    Admit {
        flight: FlightId,
    },
    /// The cache's answer is there.
    Answer {
        flight: FlightId,
    },
    /// A replica is done with a request.
    Finished {
        work: WorkId,
    },
    Ready {
        replica: ReplicaKey,
    },
    StartFailed {
        replica: ReplicaKey,
    },
    Stopped {
        replica: ReplicaKey,
    },
    /// A replica has started and prepares itself.
    Booted {
        replica: ReplicaKey,
    },
    /// A replica fails.
    Failed {
        replica: ReplicaKey,
    },
    /// A request has had its service, and may have data to write.
    Served {
        work: WorkId,
    },
    /// The same, in a replica whose requests slow one another down.
    Shared {
        replica: ReplicaKey,
        version: u32,
    },
    /// The same, on a node whose requests slow one another down.
    NodeShared {
        node: u32,
        version: u32,
    },
    /// A request joins the batch of a language model.
    Join {
        work: WorkId,
    },
    /// A step of a language model is over.
    Step {
        replica: ReplicaKey,
    },
    /// A transfer's connection stands.
    Connected {
        transfer: u32,
    },
    /// A transfer within one node is done.
    Moved {
        transfer: u32,
    },
    /// A transfer over the network is done, unless its rate has changed.
    Flow(FlowEnd),
    /// The scenario's operation of this number.
    Operate {
        step: u32,
    },
    /// A sample of the load is taken.
    Sample,
    /// An outage of a function begins or ends.
    Outage {
        function: u32,
        number: u32,
        begins: bool,
    },
    /// A replica's health has been checked.
    Probed {
        replica: ReplicaKey,
    },
}

/// Where in a session a request stands; the first of the first one, where there are no sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    pub(super) session: u32,
    pub(super) number: u32,
}
