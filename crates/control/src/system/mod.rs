//! The system as a state machine.
//!
//! This file has what it knows, the entry [`System::handle`] and when it wants to be woken; `events` has what it is told
//! and what it says, `requests` what happens to a request, `attempts` how its attempts end, `replicas` the life of a
//! replica, `nodes` where replicas are, `idle` those with nothing to do,
//! `operations` deploy to suspend, `act` those of them that have a name in a scenario, `invariants` what must always
//! hold.

mod act;
mod attempts;
mod events;
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

use gatewright_determinism::{Purpose, Streams, Time};
use serde::{Deserialize, Serialize};
use slotmap::{SlotMap, new_key_type};

use crate::Deployment;
use crate::adapt::Limiter;
use crate::autoscale::Autoscaler;
use crate::balance::{Balancer, Pool, Position};
use crate::health::{Condition, Health};
use crate::meter::Meter;
use crate::queue::{Links, List, Queue};
use crate::retry::RetryBudget;
use crate::timers::{Place, Places, TimerQueue, Timers};

use idle::{Rest, Use};
use nodes::{Fleet, Seat, Unplaced};

pub use act::{Act, Subject};
pub use events::{Effect, End, Event, Invoke, Loss, Outcome, Shed, URGENCY_DEFAULT};
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
