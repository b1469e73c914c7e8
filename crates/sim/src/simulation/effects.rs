//! Doing what the system says.

use std::mem;

use gatewright_control as control;
use gatewright_control::{Effect, FunctionKey};

use super::Scaling;
use super::engine::Engine;
use super::event::Event;

impl Engine<'_> {
    /// Tells the system of an event, and does what it says.
    pub(super) fn tell(&mut self, event: control::Event) {
        self.system.handle(self.now, event, &mut self.effects);
        self.carry_out();
    }

    /// Does what the system said.
    pub(super) fn carry_out(&mut self) {
        let mut effects = mem::take(&mut self.effects);
        for effect in &effects {
            match *effect {
                Effect::Dispatch { request, replica, attempt, in_flight, cold, batch_left } => {
                    let first = batch_left + 1 == in_flight;
                    self.dispatch(request, replica, attempt, in_flight, cold, first);
                }
                Effect::Ended { request, end } => self.request_ended(request, end),
                _ => self.carry_out_rare(effect),
            }
        }
        effects.clear();
        self.effects = effects;
    }

    /// Does what is not said of every request.
    #[cold]
    fn carry_out_rare(&mut self, effect: &Effect) {
        match *effect {
            Effect::Dispatch { .. }
            | Effect::Ended { .. }
            | Effect::Removed { .. }
            | Effect::HealthChanged { .. } => {}
            Effect::StartReplica { replica, function, node } => self.start(replica, function, node),
            Effect::StopReplica { replica } => self.stop(replica),
            Effect::KillReplica { replica } => self.killed(replica),
            Effect::Scaled { function, from, to } => self.scaled(function, from, to),
            Effect::Abandon { request, replica } => self.abandon(request, replica),
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
