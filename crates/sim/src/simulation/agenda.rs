use gatewright_determinism::Time;

use super::event::Event;
use crate::Calendar;

/// What will happen, in two calendars: the next request of each demand, of which a run always has the same few, and
/// everything else. Each is smaller than both would be together, and a demand that enters its next request as it sends
/// one moves nothing else. Of what is due at the same moment, that comes first which was entered first.
pub(super) struct Agenda {
    arrivals: Calendar<u32>,
    others: Calendar<Event>,
    entered: u64,
}

impl Agenda {
    pub(super) const fn new() -> Self {
        Self { arrivals: Calendar::new(), others: Calendar::new(), entered: 0 }
    }

    /// Enters an event.
    #[inline(always)]
    pub(super) fn push(&mut self, due: Time, event: Event) {
        self.entered += 1;
        self.others.push_numbered(due, self.entered, event);
    }

    /// Enters the next request of a demand, or the start of its next session: [`Event::Due`].
    #[inline(always)]
    pub(super) fn push_arrival(&mut self, due: Time, demand: u32) {
        self.entered += 1;
        self.arrivals.push_numbered(due, self.entered, demand);
    }

    /// Takes the next event if it is due at `last` or before.
    #[inline(always)]
    pub(super) fn pop_until(&mut self, last: Time) -> Option<(Time, Event)> {
        let (arrival, other) = (self.arrivals.first(), self.others.first());
        if arrival.is_some_and(|arrival| other.is_none_or(|other| arrival < other)) {
            let (due, demand) = self.arrivals.pop_until(last)?;
            Some((due, Event::Due { demand }))
        } else {
            self.others.pop_until(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_entered_first_comes_first_of_both_kinds() {
        let at = Time::from_nanos;
        let mut agenda = Agenda::new();
        agenda.push(at(5), Event::Sample);
        agenda.push_arrival(at(5), 1);
        agenda.push(at(5), Event::Operate { step: 2 });
        agenda.push_arrival(at(3), 3);
        agenda.push(at(9), Event::Operate { step: 4 });
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop_until(at(8)))
            .map(|(due, event)| match event {
                Event::Sample => (due, 0),
                Event::Due { demand } => (due, demand),
                Event::Operate { step } => (due, step),
                other => panic!("{other:?} was not entered"),
            })
            .collect();
        assert_eq!(order, [(at(3), 3), (at(5), 0), (at(5), 1), (at(5), 2)]);
        assert!(agenda.pop_until(at(9)).is_some() && agenda.pop_until(Time::MAX).is_none());
    }
}
