//! Attempts that fail, at random or in an outage, and checks of health.

use gatewright_control as control;
use gatewright_control::{Outcome, ReplicaKey};
use gatewright_determinism::{Purpose, Stream, Time};

use super::engine::Engine;
use super::event::Event;
use super::flights::{Flight, FlightId, WorkId};
use crate::faults::Fault;

/// An outage that lasts.
pub(super) struct Down {
    function: usize,
    number: u32,
    fault: Fault,
    /// All replicas, if none.
    hit: Option<Vec<ReplicaKey>>,
}

impl Engine<'_> {
    /// Enters the beginnings and ends of outages.
    pub(super) fn plan_outages(&mut self) {
        for (function, setup) in (0..).zip(&self.setup.functions) {
            for (number, outage) in (0..).zip(&setup.outages) {
                let begin = Time::ZERO + outage.at.get();
                let end = begin + outage.span.get();
                for (at, begins) in [(begin, true), (end, false)] {
                    self.calendar.push(at, Event::Outage { function, number, begins });
                }
            }
        }
    }

    /// An outage begins or ends.
    pub(super) fn outage(&mut self, function: usize, number: u32, begins: bool) {
        if !begins {
            self.down.retain(|down| (down.function, down.number) != (function, number));
            return;
        }
        let outage = &self.setup.functions[function].outages[number as usize];
        let replicas = self.system.replicas(self.functions[function].key, None);
        let oldest = |count: u32| replicas.take(count as usize).map(|view| view.key).collect();
        let hit = outage.replicas.map(oldest);
        self.down.push(Down { function, number, fault: outage.fault, hit });
    }

    /// How everything fails at a replica now, if it does.
    fn down_at(&self, function: usize, replica: ReplicaKey) -> Option<Fault> {
        let hits = |down: &&Down| {
            down.function == function && down.hit.as_ref().is_none_or(|hit| hit.contains(&replica))
        };
        self.down.iter().find(hits).map(|down| down.fault)
    }

    /// Whether an attempt that was handed over just now fails otherwise than with an error; its end is entered then.
    pub(super) fn fails(&mut self, id: WorkId) -> bool {
        let Some(&mut Flight { function, work: Some(work), .. }) = self.flights.at_work(id) else {
            return false;
        };
        let function = function as usize;
        let setup = &self.setup.functions[function];
        let mut luck = self.fault_luck(id.flight, work.number);
        // Drawn in any case: an outage does not change the luck of other attempts.
        let (which, place) = (luck.unit(), luck.unit());
        let down = self.down_at(function, work.replica);
        let random = || setup.faults.as_ref().and_then(|faults| faults.of(which));
        let Some(fault) = down.or_else(random) else { return false };
        if let Some(work) = self.flights.attempt(id) {
            work.fault = Some(fault);
        }
        let due = match fault {
            Fault::Refused | Fault::Busy => self.now,
            Fault::Unavailable => self.now.plus_nanos((work.span as f64 * place) as u64),
            Fault::Hangs => return true,
        };
        self.calendar.push(due, Event::Finished { work: id });
        true
    }

    /// What the system is told of an attempt with a fault.
    pub(super) fn outcome_of(&self, function: usize, fault: Fault) -> Outcome {
        let faults = self.setup.functions[function].faults.unwrap_or_default();
        let again = |busy: bool| Outcome::Again { after: None, busy };
        match (fault, faults.repeatable) {
            (Fault::Refused, _) => Outcome::NotStarted,
            (Fault::Unavailable | Fault::Hangs, true) => again(false),
            (Fault::Unavailable | Fault::Hangs, false) => Outcome::Unavailable,
            (Fault::Busy, true) => again(true),
            (Fault::Busy, false) => Outcome::Busy,
        }
    }

    /// The luck of an attempt as to faults.
    pub(super) fn fault_luck(&mut self, flight: FlightId, attempt: u32) -> Stream {
        let Flight { id, stage, .. } = *self.flights.get_mut(flight);
        let nth = u64::from(attempt) + (u64::from(stage) << 32);
        Stream::new(self.luck(Purpose::Fault, id).bits(), Purpose::Fault, nth)
    }

    /// The system asks how a replica is. The answer takes no time, and is a bad one in an outage.
    pub(super) fn probed(&mut self, replica: ReplicaKey) {
        let Some(view) = self.system.replica(replica) else { return };
        let well = self.down_at(self.by_function[view.function], replica).is_none();
        self.tell(control::Event::Probed { replica, well });
    }
}
