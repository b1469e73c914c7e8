use gatewright_control as control;
use gatewright_control::cluster::NodeId;
use gatewright_control::{FunctionKey, Loss, ReplicaKey, ReplicaState, ReplicaView};
use gatewright_determinism::{Purpose, Stream, Time};

use super::engine::{Engine, FunctionRun};
use super::event::Event;
use super::level::Level;
use super::policies::Policies;
use super::transfers::Cargo;
use super::{Phase, SimulationError};

impl Engine<'_> {
    /// Deploys the functions; unless the run begins cold, the replicas they begin with are there already.
    pub(super) fn deploy(&mut self, mut policies: Policies) -> Result<(), SimulationError> {
        // Before the first replicas look for nodes.
        if let Some(priority) = policies.priority.take() {
            if self.system.cluster().is_none() {
                return Err(SimulationError::NoNodes);
            }
            self.system.set_priority(priority);
        }
        for (index, setup) in self.setup.functions.iter().enumerate() {
            let deployed =
                self.system.deploy(Time::ZERO, setup.deployment.clone(), &mut self.effects);
            let key = deployed.expect("the deployment was checked and its name is the only one");
            self.by_function.insert(key, index);
            self.functions.push(FunctionRun {
                key,
                running: Level::default(),
                allocated: Level::default(),
                in_service: Level::default(),
                served: 0,
                queued: Level::default(),
                scalings: 0,
                removed: false,
                plain: setup.plain,
                model: None,
            });
        }
        self.set_policies(policies)?;
        self.carry_out(0);
        self.begun = true;
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        replica: ReplicaKey,
        function: FunctionKey,
        node: Option<NodeId>,
    ) {
        let index = self.by_function[function];
        self.functions[index].allocated.up(self.now);
        self.settle(replica, index, node);
        if !self.begun && !self.setup.cold_start {
            self.calendar.push(self.now, Event::Ready { replica });
        } else {
            self.pull(replica);
        }
    }

    /// A replica, unless it was told to stop before it was ready.
    fn starting(&self, replica: ReplicaKey) -> Option<ReplicaView> {
        let view = self.system.replica(replica)?;
        (view.state == ReplicaState::Starting).then_some(view)
    }

    /// A replica's image is there: it starts.
    pub(super) fn boot(&mut self, replica: ReplicaKey) {
        let Some(view) = self.starting(replica) else { return };
        let index = self.by_function[view.function];
        let setup = &self.setup.functions[index];
        let laws = &setup.laws[self.laws_of(replica)];
        let Some(law) = &laws.start else {
            self.failure = Some(SimulationError::NoStartLaw(setup.name.clone()));
            return;
        };
        let span = law.draw(&mut self.luck(Purpose::Start, view.number));
        self.note_phase(replica, Phase::Startup);
        if span > setup.start_timeout {
            let due = self.now.plus_nanos(setup.start_timeout);
            self.calendar.push(due, Event::StartFailed { replica });
            return;
        }
        let prepares = !laws.setup.is_zero() || !setup.deployment.data.setup.is_empty();
        let due = self.now.plus_nanos(span);
        let next = if prepares { Event::Booted { replica } } else { Event::Ready { replica } };
        self.calendar.push(due, next);
    }

    /// A replica has started: it reads its data, one item after another, and prepares.
    pub(super) fn set_up(&mut self, replica: ReplicaKey) {
        let Some(view) = self.starting(replica) else { return };
        let index = self.by_function[view.function];
        let deployment = &self.setup.functions[index].deployment;
        let read = self.sites.get(replica).map_or(0, |site| site.read);
        if read == 0 {
            self.note_phase(replica, Phase::Setup);
        }
        if let (Some(item), Some(node)) = (deployment.data.setup.get(read), view.node) {
            if let Some(site) = self.sites.get_mut(replica) {
                site.read += 1;
            }
            self.fetch(item, node, Cargo::Setup { replica });
            return;
        }
        let law = &self.setup.functions[index].laws[self.laws_of(replica)].setup;
        // Another place of the stream than the start's.
        let mut luck = self.luck(Purpose::Start, view.number);
        let mut luck = Stream::new(luck.bits(), Purpose::Start, 1);
        let due = self.now.plus_nanos(law.draw(&mut luck));
        self.calendar.push(due, Event::Ready { replica });
    }

    pub(super) fn ready(&mut self, replica: ReplicaKey) {
        let Some(view) = self.starting(replica) else { return };
        self.note_phase(replica, Phase::Ready);
        if let Some(sampling) = &mut self.sampling {
            sampling.join(replica);
        }
        if let Some(lifetime) = &self.setup.functions[self.by_function[view.function]].lifetime {
            let span = lifetime.draw(&mut self.luck(Purpose::Fault, !view.number));
            self.calendar.push(self.now.plus_nanos(span), Event::Failed { replica });
        }
        self.tell(control::Event::ReplicaReady { replica });
        self.note(view.function);
    }

    pub(super) fn start_failed(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.note_phase(replica, Phase::StartFailed);
        self.functions[self.by_function[view.function]].allocated.down(self.now);
        self.leave(replica);
        self.tell(control::Event::ReplicaLost { replica, loss: Loss::StartFailed });
        self.note(view.function);
    }

    /// A replica fails.
    pub(super) fn failed(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.take_down(replica);
        self.tell(control::Event::ReplicaLost { replica, loss: Loss::Died });
        self.note(view.function);
    }

    /// A node fails; the system is told next.
    pub(super) fn node_lost(&mut self, name: &str) {
        let Some(cluster) = self.system.cluster() else { return };
        let Some(node) = cluster.node_named(name) else { return };
        let replicas = cluster.node(node).replicas().to_vec();
        for &replica in &replicas {
            self.take_down(replica);
        }
        self.clear_node(node);
    }

    /// What a replica worked on is lost with it; the system is told next.
    fn take_down(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.note_phase(replica, Phase::Lost);
        self.functions[self.by_function[view.function]].allocated.down(self.now);
        self.drop_work(replica);
        self.leave(replica);
    }

    fn drop_work(&mut self, replica: ReplicaKey) {
        let here = self.flights.works().filter(|(.., attempt)| attempt.replica == replica);
        let lost: Vec<_> = here.map(|(work, ..)| work).collect();
        self.leave_node(replica, &lost);
        for work in lost {
            let Some(done) = self.end_work(work) else { continue };
            self.occupy(replica, false);
            // Unless it has ended with its replica, it waits to be tried again.
            if !done.ended {
                self.wait(work.flight);
            }
        }
    }

    pub(super) fn stop(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.note_phase(replica, Phase::Teardown);
        let law = &self.setup.functions[self.by_function[view.function]].stop;
        // Not the start's own draw: the stream of the same number, from another place on.
        let mut luck = self.luck(Purpose::Start, !view.number);
        let span = law.draw(&mut luck);
        self.calendar.push(self.now.plus_nanos(span), Event::Stopped { replica });
        self.note(view.function);
    }

    pub(super) fn stopped(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.note_phase(replica, Phase::Stopped);
        self.functions[self.by_function[view.function]].allocated.down(self.now);
        self.leave(replica);
        self.tell(control::Event::ReplicaStopped { replica });
        self.note(view.function);
    }

    /// A replica was killed at its work; the system has forgotten it already.
    pub(super) fn killed(&mut self, replica: ReplicaKey) {
        let found = self.flights.works().find(|(.., attempt)| attempt.replica == replica);
        let function = found.map(|(_, flight, _)| flight.function as usize);
        self.drop_work(replica);
        if let Some(function) = function {
            self.functions[function].allocated.down(self.now);
            self.note(self.functions[function].key);
        }
        self.leave(replica);
    }

    /// Notes how many replicas of a function run now.
    pub(super) fn note(&mut self, function: FunctionKey) {
        if let Some(view) = self.system.function(function) {
            let running = u64::from(view.running);
            self.functions[self.by_function[function]].running.set(self.now, running);
        }
    }
}
