//! Feeds the system with events and carries out its effects.
//!
//! One lock holds the system and the table of what its keys stand for. An event is handled and its effects are
//! translated under the lock; they are carried out after it is released, because they write to sockets, wake
//! tasks and start processes. Nothing is decided here.

mod ticket;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gatewright_control::health::Condition;
use gatewright_control::{
    Act, Deployment, Effect, End, Event, FunctionKey, Invoke, OperationError, Outcome, ReplicaKey,
    ReplicaState, RequestKey, System,
};
use gatewright_determinism::Time;
use gatewright_record::{LifeState, ReplicaEvent, ScalingEvent};
use parking_lot::Mutex;
use slotmap::SecondaryMap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call::{Call, Dispatch};
use crate::clock::Clock;
use crate::error::StartFailure;
use crate::function::{Function, Runtime};
use crate::process::{ProgramReplica, Reaper};
use crate::python::{Attendance, Hub, Origin, PythonReplica};
use crate::streams::Witness;

pub(crate) use ticket::Ticket;

/// The system and what its keys stand for.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) clock: Clock,
    core: Mutex<Core>,
    timer: Timer,
    /// Tasks of replicas; all done when the last process is gone.
    pub(crate) tasks: TaskTracker,
    /// Ends every replica at once.
    pub(crate) kill: CancellationToken,
    pub(crate) hub: Hub,
    /// Who may hear workers in this one's stead.
    pub(crate) attendance: Option<Arc<Attendance>>,
    pub(crate) workplace: Workplace,
    /// Ends programs when the gateway is killed.
    pub(crate) reaper: Arc<Reaper>,
    /// Tells of replicas that did not start while the gateway starts.
    pub(crate) start_failures: Mutex<Option<StartFailures>>,
}

/// Where failures to start are sent: the function and what happened.
pub(crate) type StartFailures = tokio::sync::mpsc::UnboundedSender<(Arc<Function>, StartFailure)>;

/// How worker processes are run.
#[derive(Clone, Debug)]
pub(crate) struct Workplace {
    /// Folder of the system file: their working directory, and first on their import path.
    pub(crate) base_dir: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) grace: Duration,
    /// How long a worker that was started here may be silent.
    pub(crate) liveness: Duration,
    /// How long a worker that has joined may be silent.
    pub(crate) remote_liveness: Duration,
    /// Longest frame in bytes that a worker may send.
    pub(crate) max_frame: u32,
}

#[derive(Debug)]
struct Core {
    system: System,
    effects: Vec<Effect>,
    functions: SecondaryMap<FunctionKey, Arc<Function>>,
    replicas: SecondaryMap<ReplicaKey, Replica>,
    calls: SecondaryMap<RequestKey, Arc<Call>>,
    witness: Witness,
    /// States of replicas as the witness was told them.
    told: BTreeMap<ReplicaKey, Told>,
}

/// A replica as the witness knows it.
#[derive(Debug)]
struct Told {
    function: Arc<str>,
    number: u64,
    state: ReplicaState,
}

#[derive(Clone, Debug)]
enum Replica {
    Python(Arc<PythonReplica>),
    Program(Arc<ProgramReplica>),
    /// An upstream, or the right to run a program.
    Upstream {
        number: u64,
        endpoint: usize,
    },
}

/// An effect with what its keys stand for.
enum Action {
    Start(ReplicaKey, Replica),
    Stop(ReplicaKey, Replica),
    Kill(Replica),
    Dispatch { key: RequestKey, call: Arc<Call>, replica: Replica, dispatch: Dispatch },
    Abandon(RequestKey, Arc<PythonReplica>),
    Ended { call: Arc<Call>, end: End, at: Time },
    Scaled { function: Arc<Function>, from: u32, to: u32 },
    Probe { replica: ReplicaKey, function: Arc<Function>, endpoint: usize },
    HealthChanged { function: Arc<Function>, endpoint: usize, from: Condition, to: Condition },
    Removed(Arc<Function>),
}

impl Driver {
    pub(crate) fn new(
        seed: u64,
        hub: Hub,
        attendance: Option<Arc<Attendance>>,
        workplace: Workplace,
        witness: Witness,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::start(),
            core: Mutex::new(Core {
                system: System::new(seed),
                effects: Vec::new(),
                functions: SecondaryMap::new(),
                replicas: SecondaryMap::new(),
                calls: SecondaryMap::new(),
                witness,
                told: BTreeMap::new(),
            }),
            timer: Timer::default(),
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
            hub,
            attendance,
            workplace,
            reaper: Arc::default(),
            start_failures: Mutex::new(None),
        })
    }

    /// Takes an event and carries out what follows from it.
    pub(crate) fn handle(self: &Arc<Self>, event: Event) {
        let of_request =
            matches!(event, Event::Invoke(_) | Event::Cancel { .. } | Event::Finished { .. });
        self.act(|core, now| {
            core.system.handle(now, event, &mut core.effects);
            if !of_request {
                core.tell(now);
            }
        });
    }

    /// A replica is done with a request.
    pub(crate) fn finished(self: &Arc<Self>, request: RequestKey, outcome: Outcome) {
        self.handle(Event::Finished { request, outcome });
    }

    /// Serves a function.
    pub(crate) fn deploy(
        self: &Arc<Self>,
        function: Arc<Function>,
        deployment: Deployment,
    ) -> Result<FunctionKey, OperationError> {
        self.act(|core, now| {
            let key = core.system.deploy(now, deployment, &mut core.effects)?;
            // The function was made for this deployment: no one else sets its key.
            let _key = function.key.get_or_init(|| key);
            core.functions.insert(key, function);
            Ok(key)
        })
    }

    /// A replica did not start: said by the gateway if it is starting itself, else by the log.
    pub(crate) fn start_failed(&self, function: &Arc<Function>, name: &str, failure: StartFailure) {
        match &*self.start_failures.lock() {
            // It may have heard of another one already.
            Some(failures) => drop(failures.send((Arc::clone(function), failure))),
            None => {
                tracing::error!(worker = name, runs = function.runs(), %failure, "did not start")
            }
        }
    }

    /// Serves a function in another way; requests from now on are for this one.
    pub(crate) fn update(
        self: &Arc<Self>,
        function: Arc<Function>,
        deployment: Deployment,
    ) -> Result<u32, OperationError> {
        self.act(|core, now| {
            let key = core.system.lookup(&deployment.name);
            let previous = key.and_then(|key| core.functions.get(key).cloned());
            if let (Some(key), Some(_)) = (key, &previous) {
                // In place before the replicas are replaced: they are made of it.
                let _key = function.key.get_or_init(|| key);
                core.functions.insert(key, function);
            }
            let updated = core.system.update(now, deployment, &mut core.effects);
            if let (Err(_), Some(key), Some(previous)) = (&updated, key, previous) {
                core.functions.insert(key, previous);
            }
            updated
        })
    }

    /// Carries out an act; returns the number of replicas wanted afterwards.
    pub(crate) fn operate(self: &Arc<Self>, act: Act) -> Result<u32, OperationError> {
        self.act(|core, now| core.system.operate(now, act.into(), &mut core.effects))
    }

    /// Takes a request. The ticket gives it up when it is dropped before the end.
    pub(crate) fn invoke(self: &Arc<Self>, function: &Function, call: Arc<Call>) -> Option<Ticket> {
        self.invoke_for(function, call, 0)
    }

    /// The same, and what the balancer may go by.
    pub(crate) fn invoke_for(
        self: &Arc<Self>,
        function: &Function,
        call: Arc<Call>,
        key: u64,
    ) -> Option<Ticket> {
        let function = *function.key.get()?;
        let key = self.act(|core, now| {
            let timeout = Some(call.deadline - now);
            let invoke =
                Invoke { function, id: call.id, timeout, urgency: call.urgency, key, tag: 0 };
            let key = core.system.invoke(now, invoke, &mut core.effects);
            core.calls.insert(key, Arc::clone(&call));
            key
        });
        Some(Ticket { driver: Arc::clone(self), key, call })
    }

    /// The function of this name.
    pub(crate) fn function(&self, name: &str) -> Option<Arc<Function>> {
        let core = self.core.lock();
        core.functions.get(core.system.lookup(name)?).cloned()
    }

    /// Takes in a worker that came by itself and is ready; `None` if its function is gone.
    pub(crate) fn join(
        self: &Arc<Self>,
        function: &Function,
        make: impl FnOnce(ReplicaKey, u64) -> Arc<PythonReplica>,
    ) -> Option<Arc<PythonReplica>> {
        let function = *function.key.get()?;
        self.act(|core, now| {
            let key = core.system.join(now, function, &mut core.effects)?;
            let made = make(key, core.system.replica(key)?.number);
            core.forget_replicas();
            core.replicas.insert(key, Replica::Python(Arc::clone(&made)));
            Some(made)
        })
    }

    /// Lets go of workers that are lost, and so of their connections.
    pub(crate) fn forget_lost(&self) {
        self.core.lock().forget_replicas();
    }

    /// Where the workers that came by themselves came from, by their replicas.
    pub(crate) fn origins(&self) -> SecondaryMap<ReplicaKey, Arc<Origin>> {
        let core = self.core.lock();
        let origins = core.replicas.iter().filter_map(|(key, replica)| match replica {
            Replica::Python(replica) => Some((key, Arc::clone(replica.origin.as_ref()?))),
            Replica::Program(_) | Replica::Upstream { .. } => None,
        });
        origins.collect()
    }

    /// Nobody is told of replicas any more.
    pub(crate) fn dismiss_witness(&self) {
        self.core.lock().witness = Witness::default();
    }

    /// Looks at the system.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&System) -> T) -> T {
        look(&self.core.lock().system)
    }

    /// Sends the system its wake-ups, for as long as the gateway lives.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = self.clock.instant(Time::from_nanos(self.timer.due.load(Ordering::Acquire)));
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.timer.earlier.notified() => {}
                () = sleep => {
                    // Nothing is lost between these two: handling sets the timer anew from the system itself.
                    self.timer.due.store(u64::MAX, Ordering::Release);
                    self.handle(Event::Wakeup);
                }
            }
        }
    }

    fn act<T>(self: &Arc<Self>, change: impl FnOnce(&mut Core, Time) -> T) -> T {
        let mut core = self.core.lock();
        // Read under the lock, so that the system's time never goes back.
        let now = self.clock.now();
        let result = change(&mut core, now);
        if core.effects.iter().any(Core::is_of_replica) {
            core.tell(now);
        }
        let actions = core.actions(now);
        let due = core.system.next_wakeup();
        drop(core);
        if let Some(due) = due {
            self.timer.set(due);
        }
        for action in actions {
            self.carry_out(action, now);
        }
        result
    }

    fn carry_out(self: &Arc<Self>, action: Action, now: Time) {
        match action {
            Action::Dispatch { key, call, replica, dispatch } => {
                call.dispatched(dispatch.clone());
                if let Replica::Python(replica) = replica {
                    replica.begin(key, call, &dispatch, now);
                }
            }
            Action::Ended { call, end, at } => call.ended(end, at),
            Action::Abandon(request, replica) => replica.abandon(request),
            // A gateway that ends at once starts nothing in place of what it kills.
            Action::Start(..) if self.kill.is_cancelled() => {}
            Action::Start(_, Replica::Python(replica)) => {
                self.tasks.spawn(replica.live(Arc::clone(self)));
            }
            Action::Start(_, Replica::Program(replica)) => {
                self.tasks.spawn(replica.live(Arc::clone(self)));
            }
            Action::Start(replica, Replica::Upstream { .. }) => {
                self.handle(Event::ReplicaReady { replica });
            }
            Action::Kill(Replica::Python(replica)) => replica.kill(),
            Action::Kill(Replica::Program(replica)) => replica.kill(),
            // Its calls end with their requests.
            Action::Kill(Replica::Upstream { .. }) => {}
            Action::Stop(_, Replica::Python(replica)) => replica.stop(),
            Action::Stop(_, Replica::Program(replica)) => replica.stop(),
            Action::Stop(replica, Replica::Upstream { .. }) => {
                self.handle(Event::ReplicaStopped { replica });
            }
            Action::Scaled { function, from, to } => {
                tracing::info!(function = &*function.name, from, to, "scaled");
            }
            Action::Probe { replica, function, endpoint } => {
                let driver = Arc::clone(self);
                self.tasks.spawn(async move {
                    let Some(upstreams) = function.upstreams() else { return };
                    let Some(check) = &upstreams.check else { return };
                    let well = tokio::select! {
                        well = upstreams.is_well(endpoint, check) => well,
                        () = driver.kill.cancelled() => return,
                    };
                    driver.handle(Event::Probed { replica, well });
                });
            }
            Action::HealthChanged { function, endpoint, from, to } => {
                let upstream = function.upstreams().and_then(|all| all.endpoints.get(endpoint));
                let upstream = upstream.map_or("", |at| at.url.as_str());
                let name = &*function.name;
                if to == Condition::Healthy {
                    tracing::info!(function = name, upstream, ?from, "the upstream is back");
                } else {
                    tracing::warn!(
                        function = name,
                        upstream,
                        ?from,
                        ?to,
                        "the upstream is left alone"
                    );
                }
            }
            Action::Removed(function) => {
                tracing::info!(function = &*function.name, "removed");
            }
        }
    }
}

impl Core {
    /// Whether an effect means that a replica has changed its state.
    const fn is_of_replica(effect: &Effect) -> bool {
        matches!(
            effect,
            Effect::StartReplica { .. }
                | Effect::StopReplica { .. }
                | Effect::KillReplica { .. }
                | Effect::Scaled { .. }
                | Effect::Removed { .. }
        )
    }

    /// Tells the witness which replicas are in another state than they were.
    fn tell(&mut self, now: Time) {
        if !self.witness.is_asked() {
            return;
        }
        let event = |told: &Told, state| ReplicaEvent {
            time: now,
            function: Arc::clone(&told.function),
            replica: told.number,
            state,
        };
        for (key, function) in &self.functions {
            for view in self.system.replicas(key, None) {
                let told = Told {
                    function: Arc::clone(&function.name),
                    number: view.number,
                    state: view.state,
                };
                if self.told.get(&view.key).is_none_or(|before| before.state != view.state) {
                    self.witness.replica(event(&told, life_state(view.state)));
                    self.told.insert(view.key, told);
                }
            }
        }
        let (system, witness) = (&self.system, &self.witness);
        self.told.retain(|key, told| {
            let is_there = system.replica(*key).is_some();
            if !is_there {
                witness.replica(event(told, LifeState::Gone));
            }
            is_there
        });
    }

    /// Translates the system's effects, and keeps the tables up to date.
    fn actions(&mut self, now: Time) -> Vec<Action> {
        let mut effects = std::mem::take(&mut self.effects);
        let actions = effects.drain(..).filter_map(|effect| self.action(effect, now)).collect();
        self.effects = effects;
        actions
    }

    /// Makes what a new replica stands for.
    fn start(&mut self, replica: ReplicaKey, function: FunctionKey) -> Option<Action> {
        let view = self.system.replica(replica)?;
        let (number, endpoint) = (view.number, view.endpoint);
        let function = Arc::clone(self.functions.get(function)?);
        let made = match function.runtime {
            Runtime::Python(_) => Replica::Python(PythonReplica::new(replica, number, function)),
            Runtime::Program(_) => Replica::Program(ProgramReplica::new(replica, number, function)),
            // Its deployment lets none be started.
            Runtime::Remote => return None,
            Runtime::Fork(_) | Runtime::Http(_) => Replica::Upstream { number, endpoint },
        };
        self.forget_replicas();
        self.replicas.insert(replica, made.clone());
        Some(Action::Start(replica, made))
    }

    fn action(&mut self, effect: Effect, now: Time) -> Option<Action> {
        Some(match effect {
            Effect::StartReplica { replica, function, .. } => self.start(replica, function)?,
            Effect::StopReplica { replica } => {
                Action::Stop(replica, self.replicas.remove(replica)?)
            }
            Effect::KillReplica { replica } => Action::Kill(self.replicas.remove(replica)?),
            Effect::Dispatch { request, replica, attempt, in_flight, cold, batch_left, .. } => {
                let replica = self.replicas.get(replica)?.clone();
                let (number, node, address, endpoint) = match &replica {
                    Replica::Python(replica) => {
                        let node = replica.origin.as_ref().map(|origin| Arc::clone(&origin.node));
                        (replica.number, node, None, 0)
                    }
                    Replica::Program(replica) => (replica.number, None, replica.address(), 0),
                    Replica::Upstream { number, endpoint } => (*number, None, None, *endpoint),
                };
                let dispatch = Dispatch {
                    at: now,
                    replica: number,
                    node,
                    endpoint,
                    address,
                    attempt,
                    in_flight,
                    cold,
                    batch_left,
                };
                let call = Arc::clone(self.calls.get(request)?);
                Action::Dispatch { key: request, call, replica, dispatch }
            }
            Effect::Abandon { request, replica, .. } => match self.replicas.get(replica)? {
                Replica::Python(replica) => Action::Abandon(request, Arc::clone(replica)),
                // The task that talks to the upstream learns it from the end of its call.
                Replica::Program(_) | Replica::Upstream { .. } => return None,
            },
            Effect::Ended { request, end, .. } => {
                Action::Ended { call: self.calls.remove(request)?, end, at: now }
            }
            Effect::Scaled { function, from, to } => {
                let function = Arc::clone(self.functions.get(function)?);
                let name = Arc::clone(&function.name);
                self.witness.scaled(ScalingEvent { time: now, function: name, from, to });
                Action::Scaled { function, from, to }
            }
            Effect::Probe { .. } | Effect::HealthChanged { .. } => return self.of_health(&effect),
            Effect::Removed { function } => Action::Removed(self.functions.remove(function)?),
        })
    }

    /// Translates what concerns the health of an upstream.
    fn of_health(&self, effect: &Effect) -> Option<Action> {
        let (Effect::Probe { replica, function } | Effect::HealthChanged { replica, function, .. }) =
            effect
        else {
            return None;
        };
        let function = Arc::clone(self.functions.get(*function)?);
        let endpoint = self.system.replica(*replica)?.endpoint;
        Some(match effect {
            Effect::HealthChanged { from, to, .. } => {
                Action::HealthChanged { function, endpoint, from: *from, to: *to }
            }
            _ => Action::Probe { replica: *replica, function, endpoint },
        })
    }

    /// Replicas that were lost leave their entry behind; a new one comes for each, so this is where they go.
    fn forget_replicas(&mut self) {
        let system = &self.system;
        self.replicas.retain(|key, _| system.replica(key).is_some());
    }
}

fn life_state(state: ReplicaState) -> LifeState {
    match state {
        ReplicaState::Conceived => LifeState::Conceived,
        ReplicaState::Starting => LifeState::Starting,
        ReplicaState::Running => LifeState::Running,
        ReplicaState::Draining => LifeState::Draining,
        ReplicaState::Suspended => LifeState::Suspended,
    }
}

/// When the system wants to be woken.
#[derive(Debug)]
struct Timer {
    /// Nanoseconds of the run; never later than the system's own wish.
    due: AtomicU64,
    earlier: Notify,
}

impl Default for Timer {
    fn default() -> Self {
        Self { due: AtomicU64::new(u64::MAX), earlier: Notify::new() }
    }
}

impl Timer {
    fn set(&self, due: Time) {
        let due = due.as_nanos();
        if self.due.fetch_min(due, Ordering::AcqRel) > due {
            self.earlier.notify_one();
        }
    }
}
