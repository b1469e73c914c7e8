use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{
    Deployment, Effect, End, Event, FunctionKey, Invoke, Loss, Operation, Outcome, ReplicaKey,
    RequestKey, Retries, Scale, System,
};
use gatewright_determinism::Time;
use gatewright_protocol::{Frame, Request};
use parking_lot::Mutex;
use slotmap::{Key, KeyData, SecondaryMap};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Link;
use super::{CallResult, Caller, HubOptions, HubStatus, Unanswered};
use crate::clock::Clock;

/// The system's one function.
const FUNCTION: &str = "workers";
/// Workers at most.
const WORKERS: u32 = 65_536;
/// For ever, as far as a request is concerned; short enough that no moment is beyond the clock's end.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The system, and what its keys stand for. One lock; what follows from an event is done after it is released.
#[derive(Debug)]
pub(super) struct Core {
    clock: Clock,
    state: Mutex<State>,
    due: AtomicU64,
    earlier: Notify,
    /// One for each connection.
    pub(super) tasks: TaskTracker,
    pub(super) closed: CancellationToken,
}

#[derive(Debug)]
struct State {
    system: System,
    function: FunctionKey,
    effects: Vec<Effect>,
    calls: SecondaryMap<RequestKey, Call>,
    workers: SecondaryMap<ReplicaKey, Member>,
    /// Replicas that the system wants, for workers that have not come yet.
    vacant: Vec<ReplicaKey>,
    requests: u64,
}

#[derive(Debug)]
struct Call {
    caller: Arc<dyn Caller>,
    args: Bytes,
    kwargs: Bytes,
    deadline: Option<Time>,
    result: Option<CallResult>,
    /// Whether pieces of its result have come: it cannot be tried again.
    begun: bool,
}

#[derive(Debug)]
struct Member {
    link: Arc<Link>,
    kill: CancellationToken,
    flights: Vec<RequestKey>,
}

/// What is done outside the lock.
enum Action {
    Send(Arc<Link>, Frame),
    Tell(Arc<dyn Caller>, RequestKey, CallResult),
    Piece(Arc<dyn Caller>, RequestKey, bool, Bytes),
    Kill(CancellationToken),
}

impl Core {
    pub(super) fn new(options: &HubOptions) -> io::Result<Arc<Self>> {
        let clock = Clock::start();
        let mut system = System::new(0);
        let mut effects = Vec::new();
        let deployment = Deployment {
            name: FUNCTION.to_owned(),
            scale: Scale { min: 0, max: WORKERS },
            concurrency: Some(options.window),
            queue_capacity: options.queue_capacity,
            timeout: FOR_EVER,
            retries: Retries { attempts: options.attempts, ..Deployment::default().retries },
            ..Deployment::default()
        };
        let function = system.deploy(clock.now(), deployment, &mut effects);
        let function = function.map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            clock,
            state: Mutex::new(State {
                system,
                function,
                effects,
                calls: SecondaryMap::new(),
                workers: SecondaryMap::new(),
                vacant: Vec::new(),
                requests: 0,
            }),
            due: AtomicU64::new(u64::MAX),
            earlier: Notify::new(),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }))
    }

    pub(super) fn submit(
        &self,
        args: Bytes,
        kwargs: Bytes,
        timeout: Option<Duration>,
        urgency: u8,
        caller: Arc<dyn Caller>,
    ) -> u64 {
        self.act(|state, now, _| {
            let timeout = timeout.map(|timeout| timeout.min(FOR_EVER));
            let deadline = timeout.map(|timeout| now + timeout);
            state.requests += 1;
            let (function, id) = (state.function, state.requests);
            let invoke = Invoke { function, id, timeout, urgency };
            let key = state.system.invoke(now, invoke, &mut state.effects);
            let call = Call { caller, args, kwargs, deadline, result: None, begun: false };
            state.calls.insert(key, call);
            key.data().as_ffi()
        })
    }

    pub(super) fn cancel(&self, id: u64) {
        let request = RequestKey::from(KeyData::from_ffi(id));
        self.act(|state, now, _| state.tell(now, Event::Cancel { request }));
    }

    pub(super) fn status(&self) -> HubStatus {
        let state = self.state.lock();
        let Some(view) = state.system.function(state.function) else { return HubStatus::default() };
        HubStatus {
            workers: view.running,
            queued: u32::try_from(view.queued).unwrap_or(u32::MAX),
            in_flight: view.in_flight,
            requests: state.requests,
            retries: view.totals.retries,
            workers_left: view.totals.replicas_lost,
        }
    }

    pub(super) fn close(&self) {
        self.act(|state, now, actions| {
            let removed = Operation::Remove { function: FUNCTION.to_owned() };
            state.tell(now, Event::Operate(removed));
            for (key, call) in state.calls.drain() {
                let result = CallResult::Unanswered(Unanswered::Closed);
                actions.push(Action::Tell(call.caller, key, result));
            }
        });
        self.closed.cancel();
    }

    /// A worker is ready. Its replica; and the token that is set off when its connection must end.
    pub(super) fn join(&self, link: Arc<Link>) -> Option<(ReplicaKey, CancellationToken)> {
        self.act(|state, now, _| {
            if state.vacant.is_empty() {
                let up = Operation::ScaleUp { function: FUNCTION.to_owned(), by: 1 };
                state.tell(now, Event::Operate(up));
                state.note_vacancies();
            }
            let replica = state.vacant.pop()?;
            let kill = CancellationToken::new();
            state.workers.insert(
                replica,
                Member { link, kill: kill.clone(), flights: Vec::new() },
            );
            state.tell(now, Event::ReplicaReady { replica });
            Some((replica, kill))
        })
    }

    /// A worker is gone. What it had is tried elsewhere, or ends; the system wants one fewer.
    pub(super) fn leave(&self, replica: ReplicaKey) {
        self.act(|state, now, actions| {
            let Some(member) = state.workers.remove(replica) else { return };
            for request in member.flights {
                if state.calls.get(request).is_some_and(|call| call.begun)
                    && let Some(call) = state.calls.remove(request)
                {
                    let lost = CallResult::Unanswered(Unanswered::WorkerLost);
                    actions.push(Action::Tell(call.caller, request, lost));
                    state.tell(now, Event::Cancel { request });
                }
            }
            state.tell(now, Event::ReplicaLost { replica, loss: Loss::Left });
            let down = Operation::ScaleDown { function: FUNCTION.to_owned(), by: 1 };
            state.tell(now, Event::Operate(down));
        });
    }

    /// Takes what a worker says about its requests.
    pub(super) fn heard(&self, replica: ReplicaKey, frame: Frame) -> Result<(), &'static str> {
        self.act(|state, now, actions| match frame {
            Frame::Response { id, value } => {
                let request = state.landed(replica, id)?;
                if let Some(call) = state.calls.get_mut(request) {
                    call.result = Some(CallResult::Value(value));
                }
                state.tell(now, Event::Finished { request, outcome: Outcome::Ok });
                Ok(())
            }
            Frame::Error(error) => {
                let request = state.landed(replica, error.id)?;
                let mut outcome = Outcome::Error;
                if let Some(call) = state.calls.get_mut(request) {
                    if error.retryable && !call.begun {
                        outcome = Outcome::NotStarted;
                    }
                    call.result = Some(CallResult::Raised(error));
                }
                state.tell(now, Event::Finished { request, outcome });
                Ok(())
            }
            Frame::Chunk { id, text, data } => {
                let request = RequestKey::from(KeyData::from_ffi(id));
                let member = state.workers.get(replica);
                if !member.is_some_and(|member| member.flights.contains(&request)) {
                    return Err("it answered what it was not asked");
                }
                if let Some(call) = state.calls.get_mut(request) {
                    call.begun = true;
                    actions.push(Action::Piece(Arc::clone(&call.caller), request, text, data));
                }
                Ok(())
            }
            _ => Err("it sent a frame that is not for a hub"),
        })
    }

    /// Sends the system its wake-ups, for as long as the hub lives.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let due = self.clock.instant(Time::from_nanos(self.due.load(Ordering::Acquire)));
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.earlier.notified() => {}
                () = sleep => {
                    // Nothing is lost between these two: handling sets the timer anew from the system itself.
                    self.due.store(u64::MAX, Ordering::Release);
                    self.act(|state, now, _| state.tell(now, Event::Wakeup));
                }
            }
        }
    }

    fn act<T>(&self, change: impl FnOnce(&mut State, Time, &mut Vec<Action>) -> T) -> T {
        let mut actions = Vec::new();
        let mut state = self.state.lock();
        // Read under the lock, so that the system's time never goes back.
        let now = self.clock.now();
        let result = change(&mut state, now, &mut actions);
        state.translate(now, &mut actions);
        let due = state.system.next_wakeup();
        drop(state);
        if let Some(due) = due
            && self.due.fetch_min(due.as_nanos(), Ordering::AcqRel) > due.as_nanos()
        {
            self.earlier.notify_one();
        }
        for action in actions {
            match action {
                Action::Send(link, frame) => link.send(&frame),
                Action::Tell(caller, key, result) => caller.ended(key.data().as_ffi(), result),
                Action::Piece(caller, key, text, data) => {
                    caller.piece(key.data().as_ffi(), text, data);
                }
                Action::Kill(kill) => kill.cancel(),
            }
        }
        result
    }
}

impl State {
    fn tell(&mut self, now: Time, event: Event) {
        self.system.handle(now, event, &mut self.effects);
    }

    /// The request that a worker has answered.
    fn landed(&mut self, replica: ReplicaKey, id: u64) -> Result<RequestKey, &'static str> {
        const UNASKED: &str = "it answered what it was not asked";
        let request = RequestKey::from(KeyData::from_ffi(id));
        let flights = &mut self.workers.get_mut(replica).ok_or(UNASKED)?.flights;
        let place = flights.iter().position(|&flight| flight == request).ok_or(UNASKED)?;
        Ok(flights.swap_remove(place))
    }

    /// Takes the wish for replicas out of the effects.
    fn note_vacancies(&mut self) {
        let vacant = &mut self.vacant;
        self.effects.retain(|effect| match effect {
            Effect::StartReplica { replica, .. } => {
                vacant.push(*replica);
                false
            }
            _ => true,
        });
    }

    /// Makes actions of the system's effects.
    fn translate(&mut self, now: Time, actions: &mut Vec<Action>) {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.translate_one(now, effect, actions);
            }
            if self.effects.is_empty() {
                // Keeps its room.
                self.effects = effects;
            }
        }
    }

    fn translate_one(&mut self, now: Time, effect: Effect, actions: &mut Vec<Action>) {
        match effect {
            Effect::StartReplica { replica, .. } => self.vacant.push(replica),
            Effect::StopReplica { replica } => {
                self.vacant.retain(|&other| other != replica);
                if let Some(member) = self.workers.remove(replica) {
                    actions.push(Action::Kill(member.kill));
                }
                self.tell(now, Event::ReplicaStopped { replica });
            }
            Effect::KillReplica { replica } => {
                if let Some(member) = self.workers.remove(replica) {
                    actions.push(Action::Kill(member.kill));
                }
            }
            Effect::Dispatch { request, replica, attempt, .. } => {
                let (Some(member), Some(call)) =
                    (self.workers.get_mut(replica), self.calls.get(request))
                else {
                    return;
                };
                member.flights.push(request);
                let left = call.deadline.map(|deadline| (deadline - now).as_millis());
                let frame = Frame::Request(Request {
                    id: request.data().as_ffi(),
                    deadline_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
                    attempt,
                    args: call.args.clone(),
                    kwargs: call.kwargs.clone(),
                });
                actions.push(Action::Send(Arc::clone(&member.link), frame));
            }
            Effect::Abandon { request, replica } => {
                if let Some(member) = self.workers.get(replica) {
                    let frame = Frame::Cancel { id: request.data().as_ffi() };
                    actions.push(Action::Send(Arc::clone(&member.link), frame));
                }
            }
            Effect::Ended { request, end } => {
                let Some(call) = self.calls.remove(request) else { return };
                let result = match (end, call.result) {
                    (End::Ok | End::Error, Some(result)) => result,
                    (end, _) => CallResult::Unanswered(Unanswered::new(end)),
                };
                actions.push(Action::Tell(call.caller, request, result));
            }
            Effect::Scaled { .. } | Effect::Removed { .. } => {}
        }
    }
}
