//! Records of requests, a column each.

use std::sync::Arc;

use gatewright_determinism::Time;
use gatewright_record::{CacheResult, Invocation, Status, WriteError};
use gatewright_sim::RecordSink;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The columns, with the names that they have in files.
#[derive(Default)]
pub(crate) struct Columns {
    id: Vec<u64>,
    function: Vec<Arc<str>>,
    route: Vec<Option<Arc<str>>>,
    moments: [Vec<Option<u64>>; MOMENTS.len()],
    replica: Vec<Option<u64>>,
    node: Vec<Option<Arc<str>>>,
    attempts: Vec<u32>,
    in_flight: Vec<Option<u32>>,
    status: Vec<Status>,
    code: Vec<Option<u16>>,
    reason: Vec<Option<Arc<str>>>,
    tokens_in: Vec<Option<u32>>,
    tokens_out: Vec<Option<u32>>,
    cache: Vec<Option<CacheResult>>,
    cold: Vec<bool>,
}

const MOMENTS: [&str; 7] = [
    "scheduled_ns",
    "sent_ns",
    "received_ns",
    "queued_out_ns",
    "started_ns",
    "first_byte_ns",
    "finished_ns",
];

impl RecordSink for Columns {
    fn invocation(&mut self, of: &Invocation) -> Result<(), WriteError> {
        self.id.push(of.id);
        self.function.push(Arc::clone(&of.function));
        self.route.push(of.route.clone());
        let moments = [
            of.scheduled,
            of.sent,
            of.received,
            of.queued_out,
            of.started,
            of.first_byte,
            of.finished,
        ];
        for (column, moment) in self.moments.iter_mut().zip(moments) {
            column.push(moment.map(Time::as_nanos));
        }
        self.replica.push(of.replica);
        self.node.push(of.node.clone());
        self.attempts.push(of.attempts);
        self.in_flight.push(of.in_flight);
        self.status.push(of.status);
        self.code.push(of.code);
        self.reason.push(of.reason.clone());
        self.tokens_in.push(of.tokens_in);
        self.tokens_out.push(of.tokens_out);
        self.cache.push(of.cache);
        self.cold.push(of.cold);
        Ok(())
    }
}

impl Columns {
    /// A dict of lists, all equally long.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let dict = PyDict::new(py);
        let texts = |column: &[Option<Arc<str>>]| {
            PyList::new(py, column.iter().map(|text| text.as_deref()))
        };
        dict.set_item("id", self.id)?;
        dict.set_item("function", PyList::new(py, self.function.iter().map(|name| &**name))?)?;
        dict.set_item("route", texts(&self.route)?)?;
        for (name, column) in MOMENTS.into_iter().zip(self.moments) {
            dict.set_item(name, column)?;
        }
        dict.set_item("replica", self.replica)?;
        dict.set_item("node", texts(&self.node)?)?;
        dict.set_item("attempts", self.attempts)?;
        dict.set_item("in_flight", self.in_flight)?;
        dict.set_item("status", PyList::new(py, self.status.into_iter().map(Status::name))?)?;
        dict.set_item("code", self.code)?;
        dict.set_item("reason", texts(&self.reason)?)?;
        dict.set_item("tokens_in", self.tokens_in)?;
        dict.set_item("tokens_out", self.tokens_out)?;
        let cache = self.cache.into_iter().map(|result| result.map(CacheResult::name));
        dict.set_item("cache", PyList::new(py, cache)?)?;
        dict.set_item("cold", self.cold)?;
        Ok(dict.into_any().unbind())
    }
}
