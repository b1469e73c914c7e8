use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::shared::Seat;
use super::wire::Ask;
use super::{Caller, HubStatus};

/// Numbers of requests that were made while another process had the hub have this bit; the hub's own never do.
const ELSEWHERE: u64 = 1 << 63;

/// Whether a request was made while another process had the hub.
pub(super) fn is_elsewhere(number: u64) -> bool {
    number & ELSEWHERE != 0
}

/// What this process has asked of a hub that another one has, and has no answer to yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    next: u64,
    /// By number, and so in the order in which they came.
    open: BTreeMap<u64, Open>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Who wants to know how the hub is doing.
    pub(super) questions: HashMap<u64, mpsc::SyncSender<HubStatus>>,
}

/// One such request. It can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) args: Bytes,
    pub(super) kwargs: Bytes,
    pub(super) deadline: Option<Instant>,
    pub(super) urgency: u8,
    pub(super) caller: Arc<dyn Caller>,
    /// Whether a part of its answer was handed out: it cannot be tried again then.
    pub(super) begun: bool,
    /// Hubs that were lost with it.
    losses: u32,
    pub(super) place: Place,
}

/// Where a request is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Nowhere yet: no process has the hub.
    Here,
    /// At the process that has the hub.
    At(Arc<Seat>),
    /// At this process, which has taken the hub over: its number there.
    Own(u64),
}

impl Open {
    pub(super) fn new(args: Bytes, kwargs: Bytes, urgency: u8, caller: Arc<dyn Caller>) -> Self {
        Self {
            args,
            kwargs,
            deadline: None,
            urgency,
            caller,
            begun: false,
            losses: 0,
            place: Place::Here,
        }
    }

    /// What is left of its time.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl Requests {
    /// Notes a request and gives it a number.
    pub(super) fn add(&mut self, request: Open) -> u64 {
        let number = self.number();
        if let Some(deadline) = request.deadline {
            self.deadlines.insert((deadline, number));
        }
        self.open.insert(number, request);
        number
    }

    /// A number that was not used before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        ELSEWHERE | self.next
    }

    pub(super) fn get(&mut self, number: u64) -> Option<&mut Open> {
        self.open.get_mut(&number)
    }

    /// Takes a request out. Whoever gets it tells its caller.
    pub(super) fn remove(&mut self, number: u64) -> Option<Open> {
        let request = self.open.remove(&number)?;
        if let Some(deadline) = request.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        Some(request)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The numbers of those that are nowhere, in their order.
    pub(super) fn unsent(&self) -> Vec<u64> {
        let unsent = self.open.iter().filter(|(_, open)| matches!(open.place, Place::Here));
        unsent.map(|(&number, _)| number).collect()
    }

    /// Sends one to the process that has the hub.
    pub(super) fn send(&mut self, number: u64, seat: &Arc<Seat>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.place = Place::At(Arc::clone(seat));
        let timeout = open.left().map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        let (args, kwargs) = (open.args.clone(), open.kwargs.clone());
        seat.ask(&Ask::Request { id: number, timeout, urgency: open.urgency, args, kwargs });
    }

    /// After the end of a hub: what was there is to be sent again, or comes out if it may not be.
    pub(super) fn lose(&mut self, seat: &Arc<Seat>, attempts: u32) -> Vec<(u64, Open)> {
        let mut over = Vec::new();
        for (&number, open) in &mut self.open {
            if matches!(&open.place, Place::At(at) if Arc::ptr_eq(at, seat)) {
                open.losses += 1;
                open.place = Place::Here;
                if open.begun || open.losses >= attempts {
                    over.push(number);
                }
            }
        }
        self.take(over)
    }

    /// Those whose time ended before `then`.
    pub(super) fn overdue(&mut self, then: Instant) -> Vec<(u64, Open)> {
        let due = self.deadlines.range(..(then, 0)).map(|&(_, number)| number).collect();
        self.take(due)
    }

    /// All of them.
    pub(super) fn drain(&mut self) -> Vec<(u64, Open)> {
        let all = self.open.keys().copied().collect();
        self.take(all)
    }

    fn take(&mut self, numbers: Vec<u64>) -> Vec<(u64, Open)> {
        let taken = numbers.into_iter().map(|number| Some((number, self.remove(number)?)));
        taken.flatten().collect()
    }
}
