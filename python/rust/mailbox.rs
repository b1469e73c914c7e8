use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_serve::{Caller, HubError};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use rustix::event::EventfdFlags;

/// Where the answers for one event loop wait for it.
#[pyclass(frozen, module = "gatewright._hub")]
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) box_: Arc<Letters>,
}

/// What a mailbox shares with the hub.
#[derive(Debug)]
pub(crate) struct Letters {
    bell: OwnedFd,
    waiting: Mutex<Vec<Letter>>,
}

#[derive(Debug)]
enum Letter {
    Ended { id: u64, result: Result<Bytes, HubError> },
    Piece { id: u64, text: bool, data: Bytes },
}

/// What a letter says: the second element of what `collect` gives.
const VALUE: u8 = 0;
const RAISED: u8 = 1;
const UNANSWERED: u8 = 2;
const TEXT_PIECE: u8 = 3;
const BINARY_PIECE: u8 = 4;

impl Letters {
    fn put(&self, letter: Letter) {
        let mut waiting = self.waiting.lock();
        waiting.push(letter);
        let first = waiting.len() == 1;
        drop(waiting);
        // Whoever collects takes all of them: one ring is enough.
        if first {
            // An eventfd that is open takes it: the counter is far from its end.
            let rung = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
            debug_assert!(rung.is_ok(), "{rung:?}");
        }
    }
}

impl Caller for Letters {
    fn piece(&self, id: u64, text: bool, data: Bytes) {
        self.put(Letter::Piece { id, text, data });
    }

    fn ended(&self, id: u64, result: Result<Bytes, HubError>) {
        self.put(Letter::Ended { id, result });
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| PyOSError::new_err(format!("no eventfd: {error}")))?;
        Ok(Self { box_: Arc::new(Letters { bell, waiting: Mutex::default() }) })
    }

    /// The eventfd that is readable when there are letters.
    fn fileno(&self) -> RawFd {
        self.box_.bell.as_raw_fd()
    }

    /// Every letter so far: `(id, what, payload)`.
    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut count = [0u8; 8];
        // Nothing to read means that it was collected before.
        let _rang = rustix::io::read(&self.box_.bell, &mut count).is_ok();
        let letters = std::mem::take(&mut *self.box_.waiting.lock());
        let letters = letters.into_iter().map(|letter| letter.into_python(py));
        let letters: Vec<_> = letters.collect::<PyResult<_>>()?;
        PyList::new(py, letters)
    }
}

impl Letter {
    fn into_python(self, py: Python<'_>) -> PyResult<(u64, u8, Py<PyAny>)> {
        Ok(match self {
            Self::Ended { id, result: Ok(value) } => {
                (id, VALUE, PyBytes::new(py, &value).into_any().unbind())
            }
            Self::Ended { id, result: Err(HubError::Call(error)) } => {
                let raised = (error.kind, error.message, error.traceback);
                (id, RAISED, raised.into_py_any(py)?)
            }
            Self::Ended { id, result: Err(why) } => {
                let (why, retry_after) = match why {
                    HubError::TimedOut(_) => ("timed_out", None),
                    HubError::QueueFull { retry_after } => {
                        ("queue_full", Some(retry_after.as_secs_f64()))
                    }
                    HubError::Stopped => ("closed", None),
                    HubError::Lost | HubError::Call(_) => ("worker_lost", None),
                };
                (id, UNANSWERED, (why, retry_after).into_py_any(py)?)
            }
            Self::Piece { id, text, data } => {
                let what = if text { TEXT_PIECE } else { BINARY_PIECE };
                (id, what, PyBytes::new(py, &data).into_any().unbind())
            }
        })
    }
}
