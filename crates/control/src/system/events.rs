//! What happens to the system, and what it says is to be done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::System;
use super::{FunctionKey, Operation, ReplicaKey, RequestKey};
use crate::cluster::NodeId;
use crate::health::Condition;

/// The urgency of a request that names none (RFC 9218, section 4.1).
pub const URGENCY_DEFAULT: u8 = 3;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A request arrived.
    Invoke(Invoke),
    /// Nobody waits for the request's answer any more.
    Cancel {
        /// The request.
        request: RequestKey,
    },
    /// A replica is done with a request.
    Finished {
        /// The request.
        request: RequestKey,
        /// With what result.
        outcome: Outcome,
    },
    /// A replica that was started can take requests.
    ReplicaReady {
        /// The replica.
        replica: ReplicaKey,
    },
    /// A replica is gone, in whatever state it was.
    ReplicaLost {
        /// The replica.
        replica: ReplicaKey,
        /// Why.
        loss: Loss,
    },
    /// A replica is going without being told to (a SIGTERM from elsewhere): it finishes what it has and is given
    /// nothing more, and another takes its place at once. When it has finished, it is told to stop.
    ReplicaLeaving {
        /// The replica.
        replica: ReplicaKey,
    },
    /// A replica is to be replaced and goes on until then: it is over its memory limit, say.
    ReplicaUnfit {
        /// The replica.
        replica: ReplicaKey,
    },
    /// A replica that the system did not start takes requests of a function: a worker from elsewhere. It counts
    /// beside the number of replicas wanted, is never told to start, and is told to stop only when its function
    /// is removed. Who has to know its key calls [`System::join`].
    ReplicaJoined {
        /// The function.
        function: FunctionKey,
    },
    /// A replica that was told to stop has stopped.
    ReplicaStopped {
        /// The replica.
        replica: ReplicaKey,
    },
    /// A check that was asked for by [`Effect::Probe`] has ended.
    Probed {
        /// The replica.
        replica: ReplicaKey,
        /// Whether the answer was a good one.
        well: bool,
    },
    /// Somebody wants the system changed. A refusal changes nothing; who wants to know of it calls the
    /// operation's own method, [`System::deploy`] and so on.
    Operate(Operation),
    /// The moment of [`System::next_wakeup`] has come.
    Wakeup,
}

/// A request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    /// The function asked for.
    pub function: FunctionKey,
    /// Number of the request in the run; names its random streams.
    pub id: u64,
    /// A shorter time limit than the function's, if the client set one.
    pub timeout: Option<Duration>,
    /// Urgency as in RFC 9218: 0 is served before 1, and 7 last; above counts as 7. [`URGENCY_DEFAULT`] unless
    /// the client set one.
    pub urgency: u8,
    /// Hash of what the request is for ([`hash`](crate::balance::hash)): requests with the same one go to the same
    /// replica if the balancer is `consistent_hash`.
    pub key: u64,
    /// What the caller knows the request by, as `user_data` of io_uring: effects about the request say it.
    #[serde(default)]
    pub tag: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Answered, and the answer says that there are too many requests (429).
    Busy,
    /// Answered with an error that another attempt would not mend.
    Error,
    /// The replica is not there: its answer broke off, did not come in time, or says so (502, 503, 504). Another
    /// attempt is not safe.
    Unavailable,
    /// Failed before the function began its work, so that another attempt is safe (a refused connection).
    NotStarted,
    /// As `Unavailable`, or as `Busy`, but another attempt is safe.
    Again {
        /// How long the replica wants to be left alone.
        after: Option<Duration>,
        /// Whether it only has too many requests.
        busy: bool,
    },
    /// Not begun by a replica that is going, and given back: another replica gets it, which is no further attempt.
    /// The replica gets nothing more, as if [`Event::ReplicaLeaving`] had come before.
    Returned,
}

/// Why a replica is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// It did not come up.
    StartFailed,
    /// It ended while it was running.
    Died,
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Start a replica; report `ReplicaReady` or `ReplicaLost`.
    StartReplica {
        /// The replica.
        replica: ReplicaKey,
        /// Its function.
        function: FunctionKey,
        /// The node it goes to, if there are nodes.
        node: Option<NodeId>,
    },
    /// Stop a replica that has no work; report `ReplicaStopped`.
    StopReplica {
        /// The replica.
        replica: ReplicaKey,
    },
    /// End a replica at once, whatever it does; its key is dead, and nothing needs to be reported.
    KillReplica {
        /// The replica.
        replica: ReplicaKey,
    },
    /// Give a request to a replica; report `Finished`.
    Dispatch {
        /// The request.
        request: RequestKey,
        /// Its [`Invoke::tag`].
        tag: u32,
        /// The replica.
        replica: ReplicaKey,
        /// 1 for the first attempt.
        attempt: u32,
        /// Requests that the replica now works on, this one included.
        in_flight: u32,
        /// Whether the request found no running replica when it came.
        cold: bool,
        /// Requests that follow in the same batch; hand it over when this is 0.
        batch_left: u32,
    },
    /// Tell a replica that nobody waits for a request's answer. Its slot is free again only when the replica
    /// reports `Finished` or is lost.
    Abandon {
        /// The request.
        request: RequestKey,
        /// Its [`Invoke::tag`].
        tag: u32,
        /// The replica that works on it.
        replica: ReplicaKey,
    },
    /// A request has ended; every request ends exactly once.
    Ended {
        /// The request.
        request: RequestKey,
        /// Its [`Invoke::tag`].
        tag: u32,
        /// How.
        end: End,
    },
    /// Ask a replica how it is; report `Probed`.
    Probe {
        /// The replica.
        replica: ReplicaKey,
        /// Its function.
        function: FunctionKey,
    },
    /// A replica that runs is given requests in another way than before.
    HealthChanged {
        /// The replica.
        replica: ReplicaKey,
        /// Its function.
        function: FunctionKey,
        /// How it was.
        from: Condition,
        /// How it is.
        to: Condition,
    },
    /// The number of replicas wanted has changed.
    Scaled {
        /// The function.
        function: FunctionKey,
        /// Replicas wanted before.
        from: u32,
        /// Replicas wanted now.
        to: u32,
    },
    /// A function that was removed has no replicas left; its key is dead.
    Removed {
        /// The function.
        function: FunctionKey,
    },
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Answered.
    Ok,
    /// Answered with an error, or every attempt failed.
    Error,
    /// Its time was up.
    TimedOut,
    /// Its client went away.
    Cancelled,
    /// It was not taken.
    Shed(Shed),
    /// Its replica was lost, and it could not be tried again.
    Lost,
}

impl End {
    /// Why a request ended so, in the words of its record, be it served or simulated. Nothing if all is well, and if the
    /// answer itself says it.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Ok | Self::Error => None,
            Self::TimedOut => Some("deadline"),
            Self::Cancelled => Some("client gone"),
            Self::Shed(Shed::QueueFull) => Some("queue full"),
            Self::Shed(Shed::Removed) => Some("function removed"),
            Self::Shed(Shed::Unavailable) => Some("no replica available"),
            Self::Lost => Some("replica lost"),
        }
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shed {
    /// The queue was full.
    QueueFull,
    /// There is no such function, or not any more.
    Removed,
    /// Replicas of the function fail to start again and again, or none of them is well.
    Unavailable,
}
