//! Doing what the system says.

use gatewright_control as control;
use gatewright_control::{Effect, FunctionKey};

use super::Scaling;
use super::engine::Engine;
use super::event::Event;

impl Engine<'_> {
    /// Tells the system of an event, and does what it says.
    pub(super) fn tell(&mut self, event: control::Event) {
        let from = self.effects.len();
        self.system.handle(self.now, event, &mut self.effects);
        self.carry_out(from);
    }

    /// Does what the system said, from that effect on. What it says in answer to that is done before what follows.
    pub(super) fn carry_out(&mut self, from: usize) {
        let mut next = from;
        while let Some(effect) = self.effects.get(next) {
            next += 1;
            match *effect {
                Effect::Dispatch { tag, replica, attempt, in_flight, cold, batch_left, .. } => {
                    let first = batch_left + 1 == in_flight;
                    self.dispatch(tag, replica, attempt, in_flight, cold, first);
                }
                Effect::Ended { tag, end, .. } => self.request_ended(tag, end),
                effect => self.carry_out_rare(effect),
            }
        }
        self.effects.truncate(from);
    }

    /// Does what is not said of every request.
    #[cold]
    fn carry_out_rare(&mut self, effect: Effect) {
        match effect {
            Effect::Dispatch { .. }
            | Effect::Ended { .. }
            | Effect::Removed { .. }
            | Effect::HealthChanged { .. } => {}
            Effect::StartReplica { replica, function, node } => self.start(replica, function, node),
            Effect::StopReplica { replica } => self.stop(replica),
            Effect::KillReplica { replica } => self.killed(replica),
            Effect::Scaled { function, from, to } => self.scaled(function, from, to),
            Effect::Abandon { tag, replica, .. } => self.abandon(tag, replica),
            Effect::Probe { replica, .. } => {
                self.calendar.push(self.now, Event::Probed { replica });
            }
        }
    }

    fn scaled(&mut self, function: FunctionKey, from: u32, to: u32) {
        if !self.begun {
            return;
        }
        let index = self.by_function[function];
        self.functions[index].scalings += 1;
        if let Some(sink) = &mut self.sink {
            let function = self.setup.functions[index].name.clone();
            if let Err(error) = sink.scaled(&Scaling { at: self.now, function, from, to }) {
                self.failure = Some(error.into());
            }
        }
    }
}
