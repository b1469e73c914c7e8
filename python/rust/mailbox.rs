use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_serve::{Attendance, Caller, HubError};
use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use rustix::event::EventfdFlags;

use crate::hub::Hub;

/// Where the answers for one event loop wait for it.
#[pyclass(frozen, module = "gatewright._hub")]
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) box_: Arc<Letters>,
    /// By which this loop hears workers itself.
    attendance: Arc<Attendance>,
}

/// What a mailbox shares with the hub.
#[derive(Debug)]
pub(crate) struct Letters {
    bell: OwnedFd,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    letters: Vec<Letter>,
    /// Set while somebody is about to take them all.
    collecting: bool,
    /// Set when the bell was rung for them.
    rang: bool,
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
        waiting.letters.push(letter);
        // Whoever collects takes all of them: one ring is enough.
        if waiting.collecting || std::mem::replace(&mut waiting.rang, true) {
            return;
        }
        // Before anybody can find it rung. An eventfd that is open takes it: the counter is far from its end.
        let rung = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        debug_assert!(rung.is_ok(), "{rung:?}");
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
    fn new(hub: &Hub) -> PyResult<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| PyOSError::new_err(format!("no eventfd: {error}")))?;
        let attendance = Arc::clone(hub.hub.attendance());
        Ok(Self { box_: Arc::new(Letters { bell, waiting: Mutex::default() }), attendance })
    }

    /// From now on this loop would hear workers itself: returns a descriptor. When it is readable, there is something
    /// to [`Mailbox::collect`].
    fn attend(&self) -> RawFd {
        self.attendance.begin()
    }

    /// From now on it would not.
    fn leave(&self) {
        self.attendance.end();
    }

    /// The eventfd that is readable when there are letters.
    fn fileno(&self) -> RawFd {
        self.box_.bell.as_raw_fd()
    }

    /// Waits for a letter without sleeping, for as long as that has been worth it and at most 50 µs; whether there is
    /// one. Python's lock is kept: to get it back could take longer.
    fn linger(&self) -> bool {
        self.box_.waiting.lock().collecting = true;
        self.attendance.linger(|| !self.box_.waiting.lock().letters.is_empty());
        let mut waiting = self.box_.waiting.lock();
        waiting.collecting = false;
        !waiting.letters.is_empty()
    }

    /// Every letter so far: `(id, what, payload)`.
    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rang = {
            let mut waiting = self.box_.waiting.lock();
            waiting.collecting = true;
            std::mem::take(&mut waiting.rang)
        };
        if rang {
            // What it counts does not matter.
            let _count = rustix::io::read(&self.box_.bell, &mut [0u8; 8]).is_ok();
        }
        self.attendance.attend();
        let Waiting { letters, .. } = std::mem::take(&mut *self.box_.waiting.lock());
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
