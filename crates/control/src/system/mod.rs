//! The system as a state machine.
//!
//! This file has its types, the entry [`System::handle`] and the look-ups; `requests` has what happens to a
//! request, `replicas` the life of a replica, `nodes` where replicas are, `idle` those with nothing to do,
//! `operations` deploy to suspend, `act` those of them that have a name in a scenario, `invariants` what must always
//! hold.

mod act;
mod health;
mod idle;
#[cfg(test)]
mod idle_tests;
mod invariants;
#[cfg(test)]
mod node_tests;
mod nodes;
mod operations;
mod replicas;
mod requests;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;
use std::time::Duration;

use gatewright_determinism::{Purpose, Streams, Time};
use serde::{Deserialize, Serialize};
use slotmap::{SlotMap, new_key_type};

use crate::Deployment;
use crate::adapt::Limiter;
use crate::autoscale::Autoscaler;
use crate::balance::{Balancer, Pool, Position};
use crate::cluster::NodeId;
use crate::health::{Condition, Health};
use crate::meter::Meter;
use crate::queue::{Links, List, Queue};
use crate::retry::RetryBudget;
use crate::timers::{Place, Places, TimerQueue, Timers};

use idle::{Rest, Use};
use nodes::{Fleet, Seat, Unplaced};

pub use act::{Act, Subject};
pub use invariants::InvariantViolation;
pub use operations::{Operation, OperationError};
pub use views::{FunctionView, ReplicaView, Totals};

new_key_type! {
    /// A function of a [`System`]. Keys are not used again.
    pub struct FunctionKey;
    /// A replica of a function.
    pub struct ReplicaKey;
    /// A request that the system knows of.
    pub struct RequestKey;
}

/// Functions, their replicas and requests, and every decision about them. Without clock, sockets or threads.
#[derive(Debug)]
pub struct System {
    seed: u64,
    /// The luck of requests in the choice of a replica.
    luck: Streams,
    functions: SlotMap<FunctionKey, Function>,
    names: BTreeMap<String, FunctionKey>,
    replicas: SlotMap<ReplicaKey, Replica>,
    requests: SlotMap<RequestKey, Request>,
    /// Replicas made so far, to number them.
    replicas_made: u64,
    /// Requests taken so far, to order them.
    arrivals: u64,
    deadlines: TimerQueue<RequestKey>,
    restarts: Timers<ReplicaKey>,
    scalings: Timers<FunctionKey>,
    batches: Timers<FunctionKey>,
    /// When what is known of a replica's health changes by itself.
    health: Timers<ReplicaKey>,
    /// When the replicas of a function are compared.
    comparisons: Timers<FunctionKey>,
    /// The time of the last event.
    now: Time,
    /// When replicas with nothing to do go.
    idles: Timers<ReplicaKey>,
    /// When functions without replicas get one before they are asked for.
    prewarms: Timers<FunctionKey>,
    /// Nodes, if replicas are placed on any.
    fleet: Option<Box<Fleet>>,
}

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

/// States of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Decided on, and waiting for its turn to start, or for a node.
    Conceived,
    /// Told to start.
    Starting,
    /// Taking requests.
    Running,
    /// Finishing its requests, taking no more.
    Draining,
    /// Told to stop.
    Suspended,
}

#[derive(Debug)]
struct Function {
    deployment: Deployment,
    phase: Phase,
    /// Replicas wanted.
    desired: u32,
    balancer: Box<dyn Balancer>,
    autoscaler: Option<Box<dyn Autoscaler>>,
    /// Absent where replicas stay whatever they have to do.
    rest: Option<Box<Rest>>,
    /// Running replicas.
    pool: Pool,
    /// Requests that wait.
    queue: Queue,
    /// Every replica, oldest first.
    replicas: Vec<ReplicaKey>,
    /// How many are conceived or starting.
    starting: u32,
    /// How many are running, outdated ones included.
    running: u32,
    /// How many of those joined by themselves.
    joined: u32,
    /// How many are running and not healthy.
    unfit: u32,
    /// How many are running only until one is ready in their place.
    outdated: u32,
    /// Requests in service at running replicas, abandoned ones included.
    in_service: u32,
    /// How long attempts take, a moving average in nanoseconds; 0 before the first one has ended.
    service: f64,
    budget: RetryBudget,
    /// Requests waiting or in service, over time.
    concurrency: Meter,
    /// Requests since the autoscaler was asked last.
    arrivals: u64,
    /// Replicas lost in a row before any good came of them.
    failures: u32,
    /// Replicas that wait for a node, by number, and why.
    unplaced: Unplaced,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// At zero until somebody asks.
    Suspended,
    Removing,
}

#[derive(Debug)]
struct Replica {
    function: FunctionKey,
    /// Number of the replica in the run.
    number: u64,
    /// Which of its function's endpoints it stands for, if there are any.
    endpoint: usize,
    state: ReplicaState,
    /// Its place in the pool while it runs.
    position: Option<Position>,
    /// Requests it works on, abandoned ones included.
    work: List,
    /// Whether it came by itself.
    joined: bool,
    /// It has said that it goes, or was seen to go, though nobody told it to.
    leaving: bool,
    /// Whether it goes when one is ready in its place.
    outdated: bool,
    /// Since when it has been running.
    ready: Option<Time>,
    answered: bool,
    /// What is known of how well it is, if anything is asked of it.
    health: Option<Box<Health>>,
    condition: Condition,
    /// Learns how many requests at a time it takes.
    limiter: Option<Box<dyn Limiter>>,
    /// Its place on a node.
    seat: Option<Seat>,
    /// How it has been used, for its keep-alive.
    usage: Use,
}

/// A request from its arrival until its slot is free again.
#[derive(Debug)]
pub(crate) struct Request {
    function: FunctionKey,
    id: u64,
    tag: u32,
    /// What the balancer may go by.
    key: u64,
    /// The replica that its last attempt failed at: another one is asked if there is one.
    avoid: Option<ReplicaKey>,
    /// Place in the order of arrival.
    pub(crate) arrival: u64,
    /// When it arrived.
    arrived: Time,
    /// Class in the queue.
    pub(crate) urgency: usize,
    /// When its client is told that it took too long.
    deadline: Time,
    /// Where its timer stands.
    timer: Place,
    /// When its last attempt started.
    started: Time,
    attempts: u32,
    /// Attempts that came to nothing before they began, and do not count.
    returned: u32,
    cold: bool,
    state: RequestState,
    /// Neighbours in the function's queue or in the replica's work.
    pub(crate) links: Links,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    Queued,
    /// Waiting for its next attempt, out of the queue.
    Pausing,
    Running(ReplicaKey),
    /// Ended for its client, still holding a slot.
    Abandoned(ReplicaKey),
}

impl Places<RequestKey> for SlotMap<RequestKey, Request> {
    fn place(&self, key: RequestKey) -> Place {
        self.get(key).map_or(Place::NONE, |request| request.timer)
    }

    fn put(&mut self, key: RequestKey, place: Place) -> Place {
        self.get_mut(key)
            .map_or(Place::NONE, |request| std::mem::replace(&mut request.timer, place))
    }
}

impl System {
    /// An empty system; `seed` names the run's random streams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            luck: Streams::new(seed, Purpose::Balance),
            functions: SlotMap::with_key(),
            names: BTreeMap::new(),
            replicas: SlotMap::with_key(),
            requests: SlotMap::with_key(),
            replicas_made: 0,
            arrivals: 0,
            deadlines: TimerQueue::new(),
            restarts: Timers::new(),
            scalings: Timers::new(),
            batches: Timers::new(),
            health: Timers::new(),
            comparisons: Timers::new(),
            now: Time::ZERO,
            idles: Timers::new(),
            prewarms: Timers::new(),
            fleet: None,
        }
    }

    /// Takes an event that happened at `now` and adds what is to be done to `effects`, in order.
    ///
    /// `now` never goes back. Events about requests and replicas that are gone are ignored: a live driver
    /// cannot help sending them late.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::Invoke(invoke) => {
                self.invoke(now, invoke, effects);
            }
            Event::Cancel { request } => self.give_up(now, request, End::Cancelled, effects),
            Event::Finished { request, outcome } => self.finish(now, request, outcome, effects),
            Event::ReplicaReady { replica } => self.replica_ready(now, replica, effects),
            Event::ReplicaLost { replica, loss } => self.replica_lost(now, replica, loss, effects),
            Event::ReplicaLeaving { replica } => self.replica_leaving(now, replica, effects),
            Event::ReplicaUnfit { replica } => self.replica_unfit(now, replica, effects),
            Event::ReplicaJoined { function } => {
                self.join(now, function, effects);
            }
            Event::ReplicaStopped { replica } => self.replica_stopped(now, replica, effects),
            Event::Probed { replica, well } => self.probed(now, replica, well, effects),
            Event::Operate(operation) => {
                // A refused operation has changed nothing, and a replay refuses it again.
                drop(self.operate(now, operation, effects));
            }
            Event::Wakeup => self.wake(now, effects),
        }
        #[cfg(debug_assertions)]
        self.assert_invariants();
    }

    /// When [`Event::Wakeup`] is due next. Ask again after every event.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Time> {
        let next = self.deadlines.next().min(self.restarts.next());
        let next = next.min(self.scalings.next()).min(self.batches.next());
        let next = next.min(self.health.next()).min(self.comparisons.next());
        let next = next.min(self.idles.next()).min(self.prewarms.next());
        (next < Time::MAX).then_some(next)
    }

    fn wake(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some(request) = self.deadlines.pop_due(&mut self.requests, now) {
            self.time_up(now, request, effects);
        }
        while let Some(replica) = self.restarts.pop_due(now) {
            self.start(now, replica, effects);
        }
        while let Some(function) = self.scalings.pop_due(now) {
            self.autoscale(now, function, effects);
        }
        while let Some(function) = self.batches.pop_due(now) {
            self.pump(now, function, effects);
        }
        while let Some(replica) = self.health.pop_due(now) {
            self.wake_health(now, replica, effects);
        }
        while let Some(function) = self.comparisons.pop_due(now) {
            self.compare(now, function, effects);
        }
        while let Some(replica) = self.idles.pop_due(now) {
            self.expire(now, replica, effects);
        }
        while let Some(function) = self.prewarms.pop_due(now) {
            self.prewarm(now, function, effects);
        }
    }
}
