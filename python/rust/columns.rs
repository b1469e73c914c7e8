//! Records of requests, a column each, as Arrow arrays: pandas, polars and pyarrow take them without copying.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, StringDictionaryBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::cast::AsArray;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::{Int32Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, DataType};
use gatewright_determinism::Time;
use gatewright_record::{CacheResult, Invocation, WriteError};
use gatewright_sim::RecordSink;
use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList};

/// The columns while they grow.
#[derive(Default)]
pub(crate) struct Columns {
    id: UInt64Builder,
    function: Words,
    route: Words,
    moments: [UInt64Builder; MOMENTS.len()],
    replica: UInt64Builder,
    node: Words,
    attempts: UInt32Builder,
    in_flight: UInt32Builder,
    status: Words,
    code: UInt16Builder,
    reason: Words,
    tokens_in: UInt32Builder,
    tokens_out: UInt32Builder,
    cache: Words,
    cold: BooleanBuilder,
}

/// Few different words, each held once.
type Words = StringDictionaryBuilder<Int32Type>;

const MOMENTS: [&str; 7] = [
    "scheduled_ns",
    "sent_ns",
    "received_ns",
    "queued_out_ns",
    "started_ns",
    "first_byte_ns",
    "finished_ns",
];

/// Records of requests in columns, with the names that they have in files.
#[pyclass(frozen, module = "gatewright")]
pub(crate) struct Table {
    batch: RecordBatch,
}

impl RecordSink for Columns {
    fn invocation(&mut self, of: &Invocation) -> Result<(), WriteError> {
        self.id.append_value(of.id);
        self.function.append_value(&of.function);
        self.route.append_option(of.route.as_deref());
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
            column.append_option(moment.map(Time::as_nanos));
        }
        self.replica.append_option(of.replica);
        self.node.append_option(of.node.as_deref());
        self.attempts.append_value(of.attempts);
        self.in_flight.append_option(of.in_flight);
        self.status.append_value(of.status.name());
        self.code.append_option(of.code);
        self.reason.append_option(of.reason.as_deref());
        self.tokens_in.append_option(of.tokens_in);
        self.tokens_out.append_option(of.tokens_out);
        self.cache.append_option(of.cache.map(CacheResult::name));
        self.cold.append_value(of.cold);
        Ok(())
    }
}

impl Columns {
    /// All of them, equally long.
    pub(crate) fn into_table(mut self) -> PyResult<Table> {
        let mut all: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(self.id.finish())),
            ("function", Arc::new(self.function.finish())),
            ("route", Arc::new(self.route.finish())),
        ];
        for (name, column) in MOMENTS.into_iter().zip(&mut self.moments) {
            all.push((name, Arc::new(column.finish())));
        }
        all.extend::<[(&str, ArrayRef); 11]>([
            ("replica", Arc::new(self.replica.finish())),
            ("node", Arc::new(self.node.finish())),
            ("attempts", Arc::new(self.attempts.finish())),
            ("in_flight", Arc::new(self.in_flight.finish())),
            ("status", Arc::new(self.status.finish())),
            ("code", Arc::new(self.code.finish())),
            ("reason", Arc::new(self.reason.finish())),
            ("tokens_in", Arc::new(self.tokens_in.finish())),
            ("tokens_out", Arc::new(self.tokens_out.finish())),
            ("cache", Arc::new(self.cache.finish())),
            ("cold", Arc::new(self.cold.finish())),
        ]);
        let batch = RecordBatch::try_from_iter_with_nullable(
            all.into_iter().map(|(name, column)| (name, column, true)),
        );
        Ok(Table { batch: batch.map_err(broken)? })
    }
}

#[pymethods]
impl Table {
    /// Requests.
    fn __len__(&self) -> usize {
        self.batch.num_rows()
    }

    /// Names of the columns, in their order.
    fn names(&self) -> Vec<String> {
        self.batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// One column as a list; None where a request has no such value.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyList>> {
        let Some(column) = self.batch.column_by_name(name) else {
            return Err(PyKeyError::new_err(name.to_owned()));
        };
        match column.data_type() {
            DataType::UInt64 => PyList::new(py, column.as_primitive::<UInt64Type>()),
            DataType::UInt32 => PyList::new(py, column.as_primitive::<UInt32Type>()),
            DataType::UInt16 => PyList::new(py, column.as_primitive::<UInt16Type>()),
            DataType::Boolean => {
                PyList::new(py, column.as_boolean().iter().collect::<Vec<Option<bool>>>())
            }
            _ => {
                let words = column.as_dictionary::<Int32Type>();
                let texts = words.values().as_string::<i32>();
                let made = PyList::new(py, texts)?;
                let word = |key: Option<i32>| match key {
                    Some(key) => made.get_item(key as usize),
                    None => Ok(py.None().into_bound(py)),
                };
                let words: PyResult<Vec<_>> = words.keys().iter().map(word).collect();
                PyList::new(py, words?)
            }
        }
    }

    /// The Arrow PyCapsule interface.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // Another schema is a wish that need not be granted.
        drop(requested_schema);
        let batches = [Ok(self.batch.clone())];
        let reader = RecordBatchIterator::new(batches, self.batch.schema());
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

fn broken(fault: ArrowError) -> PyErr {
    PyRuntimeError::new_err(fault.to_string())
}
