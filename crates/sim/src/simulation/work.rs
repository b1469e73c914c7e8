//! What happens to a request at its replica, where that is more than one service time.

use gatewright_control::ReplicaKey;

use super::engine::Engine;
use super::event::Event;
use super::flights::{Flight, FlightId, WorkId};
use super::transfers::Cargo;
use crate::Fault;
use crate::sharing::ONE_CORE;

impl Engine<'_> {
    /// The next of what a request does at its replica: it reads its data, is served, writes its data, and is done.
    pub(super) fn step(&mut self, id: WorkId) {
        let Some(flight) = self.flights.at_work(id) else { return };
        let function = flight.function as usize;
        let Some(attempt) = &mut flight.work else { return };
        let (step, replica) = (attempt.step as usize, attempt.replica);
        attempt.step += 1;
        let data = &self.setup.functions[function].deployment.data;
        let node = self.sites.get(replica).and_then(|site| site.node);
        let reads = if node.is_some() { data.reads.len() } else { 0 };
        let Some(node) = node.filter(|_| step != reads) else {
            if step == reads {
                self.serve(id, replica);
            } else {
                self.finished(id);
            }
            return;
        };
        if let Some(item) = data.reads.get(step) {
            self.fetch(item, node, Cargo::Read { work: id });
        } else if let Some(item) = data.writes.get(step - reads - 1) {
            self.store(item, node, Cargo::Write { work: id });
        } else {
            self.finished(id);
        }
    }

    /// A request is served, or waits for one of its replica's workers.
    fn serve(&mut self, id: WorkId, replica: ReplicaKey) {
        let Some(&mut Flight { function, work: Some(work), .. }) = self.flights.at_work(id) else {
            return;
        };
        let setup = &self.setup.functions[function as usize];
        if setup.llm.is_some() {
            if work.span == 0 {
                return self.join_batch(id);
            }
            let due = self.now.plus_nanos(work.span);
            return self.calendar.push(due, Event::Join { work: id });
        }
        let Some(site) = self.sites.get_mut(replica) else { return };
        if site.busy >= setup.workers {
            site.inner.push_back(id);
            return;
        }
        site.busy += 1;
        match (&setup.contention, &self.setup.node_contention, site.node) {
            (Some(contention), ..) => {
                let (due, version) =
                    site.shared.enter(self.now, work.span, ONE_CORE, id, contention);
                self.calendar.push(due, Event::Shared { replica, version });
            }
            (None, Some(contention), Some(node)) => {
                let shared = &mut self.nodes[node.index()].shared;
                let (due, version) = shared.enter(self.now, work.span, setup.busy, id, contention);
                let node = node.index() as u32;
                self.calendar.push(due, Event::NodeShared { node, version });
            }
            (None, ..) => {
                let due = self.now.plus_nanos(work.span);
                self.calendar.push(due, Event::Served { work: id });
            }
        }
    }

    /// The first of the requests that slow one another down on a node has been served.
    pub(super) fn node_shared(&mut self, node: u32, version: u32) {
        let Some(contention) = &self.setup.node_contention else { return };
        let shared = &mut self.nodes[node as usize].shared;
        let Some((done, next)) = shared.leave(self.now, version, contention) else { return };
        if let Some((due, version)) = next {
            self.calendar.push(due, Event::NodeShared { node, version });
        }
        self.served(done);
    }

    /// Requests that their replica was lost with slow the others on their node down no longer.
    pub(super) fn leave_node(&mut self, replica: ReplicaKey, lost: &[WorkId]) {
        let Some(contention) = &self.setup.node_contention else { return };
        let Some(node) = self.sites.get(replica).and_then(|site| site.node) else { return };
        let keep = |work: &WorkId| !lost.contains(work);
        let shared = &mut self.nodes[node.index()].shared;
        if let Some((due, version)) = shared.keep_only(self.now, contention, keep) {
            let node = node.index() as u32;
            self.calendar.push(due, Event::NodeShared { node, version });
        }
    }

    /// The first of the requests that slow one another down in a replica has been served.
    pub(super) fn shared(&mut self, replica: ReplicaKey, version: u32) {
        let Some(view) = self.system.replica(replica) else { return };
        let setup = &self.setup.functions[self.by_function[view.function]];
        let (Some(contention), Some(site)) = (&setup.contention, self.sites.get_mut(replica))
        else {
            return;
        };
        let Some((done, next)) = site.shared.leave(self.now, version, contention) else { return };
        if let Some((due, version)) = next {
            self.calendar.push(due, Event::Shared { replica, version });
        }
        self.served(done);
    }

    /// A request has been served; one that waits for its worker is next.
    pub(super) fn served(&mut self, id: WorkId) {
        let Some(&mut work) = self.flights.attempt(id) else { return };
        if let Some(site) = self.sites.get_mut(work.replica) {
            site.busy -= 1;
            if let Some(next) = site.inner.pop_front() {
                self.serve(next, work.replica);
            }
        }
        self.step(id);
    }

    /// Nobody waits for a request's answer any more: a language model's server lets go of it at once, and so does who
    /// would never have answered. Others work on, and report the end of their work at its own time.
    pub(super) fn abandon(&mut self, flight: FlightId, replica: ReplicaKey) {
        let Some((id, fault)) = self.flights.work_of(flight) else { return };
        let batch = self.sites.get_mut(replica).and_then(|site| site.batch.as_mut());
        match (fault, batch) {
            (Some(Fault::Hangs), _) => {}
            (None, Some(batch)) => batch.leave(id),
            _ => return,
        }
        self.calendar.push(self.now, Event::Finished { work: id });
    }
}
