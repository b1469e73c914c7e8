use slotmap::{Key, SlotMap};

use crate::system::{Request, RequestKey};

/// Requests of one function that wait for a replica: the more urgent first, and among equals first come, first
/// served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queue {
    classes: [List; URGENCIES],
    /// One bit a class, set if anybody waits in it.
    waiting: u8,
    len: usize,
}

/// Classes of urgency, as in RFC 9218: 0 is the most urgent, 7 the least.
pub(crate) const URGENCIES: usize = 8;

impl Queue {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The request whose turn it is.
    pub(crate) fn first(&self) -> Option<RequestKey> {
        self.classes.get(self.waiting.trailing_zeros() as usize)?.first()
    }

    /// Lines up behind those of the same urgency.
    pub(crate) fn push(&mut self, requests: &mut SlotMap<RequestKey, Request>, key: RequestKey) {
        let class = requests[key].urgency;
        self.classes[class].push(requests, key);
        self.waiting |= 1 << class;
        self.len += 1;
    }

    /// Takes the place that the order of arrival gives: a request that is tried again has waited longer than
    /// those that came after it.
    pub(crate) fn push_by_arrival(
        &mut self,
        requests: &mut SlotMap<RequestKey, Request>,
        key: RequestKey,
    ) {
        let class = requests[key].urgency;
        self.classes[class].push_by_arrival(requests, key);
        self.waiting |= 1 << class;
        self.len += 1;
    }

    /// Takes the request whose turn it is.
    pub(crate) fn pop(
        &mut self,
        requests: &mut SlotMap<RequestKey, Request>,
    ) -> Option<RequestKey> {
        let first = self.first()?;
        self.remove(requests, first);
        Some(first)
    }

    /// Leaves the queue. `key` must be in it.
    pub(crate) fn remove(&mut self, requests: &mut SlotMap<RequestKey, Request>, key: RequestKey) {
        let class = requests[key].urgency;
        self.classes[class].remove(requests, key);
        if self.classes[class].len == 0 {
            self.waiting &= !(1 << class);
        }
        self.len -= 1;
    }
}

/// Requests in a row. The list runs through the requests themselves, so that one that is cancelled in the middle
/// leaves in O(1) and a full queue allocates nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    first: RequestKey,
    last: RequestKey,
    len: usize,
}

/// A request's neighbours in its list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Links {
    before: RequestKey,
    after: RequestKey,
}

impl List {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The first in the row.
    pub(crate) fn first(&self) -> Option<RequestKey> {
        (!self.first.is_null()).then_some(self.first)
    }

    /// Goes to the end.
    pub(crate) fn push(&mut self, requests: &mut SlotMap<RequestKey, Request>, key: RequestKey) {
        if self.len == 0 {
            *self = Self { first: key, last: key, len: 1 };
        } else {
            self.insert_after(requests, self.last, key);
        }
    }

    fn push_by_arrival(&mut self, requests: &mut SlotMap<RequestKey, Request>, key: RequestKey) {
        let arrival = requests[key].arrival;
        let mut before = RequestKey::null();
        let mut next = self.first;
        while !next.is_null() && requests[next].arrival < arrival {
            before = next;
            next = requests[next].links.after;
        }
        self.insert_after(requests, before, key);
    }

    /// Leaves. `key` must be in it.
    pub(crate) fn remove(&mut self, requests: &mut SlotMap<RequestKey, Request>, key: RequestKey) {
        if self.len == 1 {
            *self = Self::default();
            return;
        }
        let Links { before, after } = std::mem::take(&mut requests[key].links);
        match requests.get_mut(before) {
            Some(request) => request.links.after = after,
            None => self.first = after,
        }
        match requests.get_mut(after) {
            Some(request) => request.links.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    fn insert_after(
        &mut self,
        requests: &mut SlotMap<RequestKey, Request>,
        before: RequestKey,
        key: RequestKey,
    ) {
        let after = match requests.get_mut(before) {
            Some(request) => std::mem::replace(&mut request.links.after, key),
            None => std::mem::replace(&mut self.first, key),
        };
        match requests.get_mut(after) {
            Some(request) => request.links.before = key,
            None => self.last = key,
        }
        requests[key].links = Links { before, after };
        self.len += 1;
    }
}
