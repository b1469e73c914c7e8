use gatewright_control as control;
use gatewright_control::{FunctionKey, Loss, ReplicaKey, RequestKey};
use gatewright_determinism::{Purpose, Time};

use super::SimulationError;
use super::engine::{Attempt, Engine, Event, FunctionRun};
use super::level::Level;

impl Engine<'_> {
    /// Deploys the functions; unless the run begins cold, the replicas they begin with are there already.
    pub(super) fn deploy(&mut self) {
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
                queued: Level::default(),
                scalings: 0,
            });
        }
        self.carry_out();
        self.begun = true;
    }

    pub(super) fn start(&mut self, replica: ReplicaKey, function: FunctionKey) {
        let index = self.by_function[function];
        self.functions[index].allocated.up(self.now);
        let setup = &self.setup.functions[index];
        let warm = !self.begun && !self.setup.cold_start;
        let number = self.system.replica(replica).map_or(0, |view| view.number);
        let span = match &setup.start {
            _ if warm => 0,
            Some(law) => law.draw(&mut self.luck(Purpose::Start, number)),
            None => {
                self.failure = Some(SimulationError::NoStartLaw(setup.name.clone()));
                return;
            }
        };
        if span > setup.start_timeout {
            let due = self.now.plus_nanos(setup.start_timeout);
            self.calendar.push(due, Event::StartFailed { replica });
        } else {
            self.calendar.push(self.now.plus_nanos(span), Event::Ready { replica });
        }
    }

    pub(super) fn ready(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.tell(control::Event::ReplicaReady { replica });
        self.note(view.function);
    }

    pub(super) fn start_failed(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.functions[self.by_function[view.function]].allocated.down(self.now);
        self.tell(control::Event::ReplicaLost { replica, loss: Loss::StartFailed });
        self.note(view.function);
    }

    pub(super) fn stop(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        let law = &self.setup.functions[self.by_function[view.function]].stop;
        // Not the start's own draw: the stream of the same number, from another place on.
        let mut luck = self.luck(Purpose::Start, !view.number);
        let span = law.draw(&mut luck);
        self.calendar.push(self.now.plus_nanos(span), Event::Stopped { replica });
        self.note(view.function);
    }

    pub(super) fn stopped(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        self.functions[self.by_function[view.function]].allocated.down(self.now);
        self.tell(control::Event::ReplicaStopped { replica });
        self.note(view.function);
    }

    /// A replica was killed at its work; the system has forgotten it already.
    pub(super) fn killed(&mut self, replica: ReplicaKey) {
        let at_work = |(request, work): (RequestKey, &Attempt)| {
            (work.replica == replica).then_some((request, work.function))
        };
        let lost: Vec<_> = self.work.iter().filter_map(at_work).collect();
        for &(request, function) in &lost {
            self.work.remove(request);
            self.functions[function].in_service.down(self.now);
            // Unless it has ended with its replica, it waits to be tried again.
            if let Some(&flight) = self.by_request.get(request) {
                self.flights.get_mut(flight).waiting = true;
                self.functions[function].queued.up(self.now);
            }
        }
        if let Some(&(_, function)) = lost.first() {
            self.functions[function].allocated.down(self.now);
            self.note(self.functions[function].key);
        }
    }

    /// Notes how many replicas of a function run now.
    fn note(&mut self, function: FunctionKey) {
        if let Some(view) = self.system.function(function) {
            let running = u64::from(view.running);
            self.functions[self.by_function[function]].running.set(self.now, running);
        }
    }
}
