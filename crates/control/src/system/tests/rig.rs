use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::Scale;

/// A driver that does what the effects say as slowly as the test wants, and checks the contract.
pub(super) struct Rig {
    pub(super) system: System,
    pub(super) now: Time,
    pub(super) log: Vec<Effect>,
    /// Told to start, not ready yet.
    pub(super) starting: Vec<ReplicaKey>,
    /// Told to stop, not stopped yet.
    pub(super) stopping: Vec<ReplicaKey>,
    /// Requests given to replicas and not finished.
    pub(super) work: BTreeMap<RequestKey, ReplicaKey>,
    pub(super) open: BTreeSet<RequestKey>,
    pub(super) ended: BTreeMap<RequestKey, End>,
    pub(super) next_id: u64,
}

pub(super) fn function(name: &str) -> Deployment {
    Deployment { name: name.to_owned(), ..Deployment::default() }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            system: System::new(1),
            now: Time::ZERO,
            log: Vec::new(),
            starting: Vec::new(),
            stopping: Vec::new(),
            work: BTreeMap::new(),
            open: BTreeSet::new(),
            ended: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// One function with `replicas` running replicas.
    pub(super) fn with(replicas: u32, deployment: Deployment) -> (Self, FunctionKey) {
        let mut rig = Self::new();
        let scale = Scale { min: replicas, max: replicas.max(deployment.scale.max) };
        let key = rig.deploy(Deployment { scale, ..deployment });
        rig.ready_all();
        (rig, key)
    }

    pub(super) fn deploy(&mut self, deployment: Deployment) -> FunctionKey {
        let mut effects = Vec::new();
        let key = self.system.deploy(self.now, deployment, &mut effects).unwrap();
        self.take(effects);
        key
    }

    pub(super) fn invoke(&mut self, function: FunctionKey) -> RequestKey {
        let mut effects = Vec::new();
        let invoke = Invoke {
            function,
            id: self.next_id,
            timeout: None,
            urgency: URGENCY_DEFAULT,
            key: 0,
            tag: 0,
        };
        self.next_id += 1;
        let request = self.system.invoke(self.now, invoke, &mut effects);
        assert!(self.open.insert(request), "a request key was used twice");
        self.take(effects);
        request
    }

    pub(super) fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.system.handle(self.now, event, &mut effects);
        self.take(effects);
    }

    pub(super) fn operate(&mut self, operation: impl Into<Operation>) -> u32 {
        let mut effects = Vec::new();
        let wanted = self.system.operate(self.now, operation.into(), &mut effects).unwrap();
        self.take(effects);
        wanted
    }

    pub(super) fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartReplica { replica, .. } => self.starting.push(replica),
                Effect::StopReplica { replica } => {
                    assert!(self.work.values().all(|&at| at != replica), "stopped while at work");
                    self.starting.retain(|&other| other != replica);
                    self.stopping.push(replica);
                }
                Effect::KillReplica { replica } => {
                    self.work.retain(|_, at| *at != replica);
                }
                Effect::Dispatch { request, replica, .. } => {
                    assert!(self.open.contains(&request), "dispatched after its end");
                    assert_eq!(self.work.insert(request, replica), None, "runs twice at a time");
                }
                Effect::Ended { request, end, .. } => {
                    assert!(self.open.remove(&request), "ended twice");
                    self.ended.insert(request, end);
                }
                Effect::Abandon { request, replica, .. } => {
                    assert_eq!(self.work.get(&request), Some(&replica));
                }
                Effect::Scaled { .. }
                | Effect::Removed { .. }
                | Effect::Probe { .. }
                | Effect::HealthChanged { .. } => {}
            }
            self.log.push(effect);
        }
        self.system.check_invariants().unwrap();
    }

    pub(super) fn ready_all(&mut self) {
        for replica in std::mem::take(&mut self.starting) {
            self.handle(Event::ReplicaReady { replica });
        }
    }

    pub(super) fn stop_all(&mut self) {
        for replica in std::mem::take(&mut self.stopping) {
            self.handle(Event::ReplicaStopped { replica });
        }
    }

    pub(super) fn finish(&mut self, request: RequestKey, outcome: Outcome) {
        self.work.remove(&request);
        self.handle(Event::Finished { request, outcome });
    }

    pub(super) fn lose(&mut self, replica: ReplicaKey, loss: Loss) {
        self.work.retain(|_, at| *at != replica);
        self.starting.retain(|&other| other != replica);
        self.stopping.retain(|&other| other != replica);
        self.handle(Event::ReplicaLost { replica, loss });
    }

    /// Lets time pass, with every wake-up on the way.
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.system.next_wakeup().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.handle(Event::Wakeup);
        }
        self.now = until;
    }

    pub(super) fn view(&self, key: FunctionKey) -> FunctionView<'_> {
        self.system.function(key).unwrap()
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
