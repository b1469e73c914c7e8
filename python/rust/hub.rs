use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gatewright_serve::{Caller, HubOptions, ServeError, SharedHub};
use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::mailbox::Mailbox;

/// How long connections may take to end when the hub is closed.
const GRACE: Duration = Duration::from_millis(500);

/// Workers at a time.
const MAX_WORKERS: u32 = 65_536;

/// A hub that listens, and the thread that does its work.
#[pyclass(frozen, module = "gatewright._hub")]
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) hub: Arc<SharedHub>,
    thread: Mutex<Option<Thread>>,
    /// The process that made it: in another one, a fork, there is no such thread.
    process: u32,
}

#[derive(Debug)]
struct Thread {
    /// Dropped, it ends.
    _life: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

#[pymethods]
impl Hub {
    #[new]
    #[pyo3(signature = (*, listen, token, queue_capacity, window, attempts, silence))]
    fn new(
        py: Python<'_>,
        listen: String,
        token: Option<String>,
        queue_capacity: u32,
        window: u32,
        attempts: u32,
        silence: f64,
    ) -> PyResult<Self> {
        let silence = Duration::try_from_secs_f64(silence)
            .map_err(|error| PyOSError::new_err(format!("heartbeat: {error}")))?;
        let options = HubOptions {
            listen,
            token,
            queue_capacity,
            attempts,
            silence,
            concurrency: window,
            max_workers: MAX_WORKERS,
            ..HubOptions::default()
        };
        let (started, starting) = mpsc::channel();
        let (life, end) = oneshot::channel();
        let handle = std::thread::Builder::new()
            .name("gatewright-hub".to_owned())
            .spawn(move || live(options, &started, end))?;
        let hub = py.detach(move || starting.recv());
        let hub = hub.map_err(|_| PyRuntimeError::new_err("the hub's thread did not start"))?;
        let hub = hub.map_err(os_error)?;
        let thread = Mutex::new(Some(Thread { _life: life, handle }));
        Ok(Self { hub, thread, process: std::process::id() })
    }

    /// The port that workers join at.
    #[getter]
    fn port(&self) -> u16 {
        self.hub.address().port()
    }

    /// Whether this process has the hub that it shares with others.
    #[getter]
    fn is_host(&self) -> bool {
        self.hub.is_host()
    }

    /// So many pieces of an answer were taken.
    fn more(&self, id: u64, pieces: u32) {
        self.hub.more(id, pieces);
    }

    /// Takes a request; the mailbox will get its answer under the number that this returns.
    fn submit(
        &self,
        mailbox: &Mailbox,
        args: &[u8],
        kwargs: &[u8],
        timeout: Option<f64>,
        urgency: u8,
    ) -> u64 {
        // More than a Duration can hold is for ever, and a negative one is over.
        let timeout = timeout.map(|seconds| {
            let longest = if seconds > 0.0 { Duration::MAX } else { Duration::ZERO };
            Duration::try_from_secs_f64(seconds).unwrap_or(longest)
        });
        let (args, kwargs) = (Bytes::copy_from_slice(args), Bytes::copy_from_slice(kwargs));
        let caller = Arc::clone(&mailbox.box_) as Arc<dyn Caller>;
        self.hub.submit(args, kwargs, timeout, urgency, caller)
    }

    /// Gives a request up.
    fn cancel(&self, id: u64) {
        self.hub.cancel(id);
    }

    /// Numbers of what there is, and has been.
    fn status(&self, py: Python<'_>) -> HashMap<&'static str, u64> {
        // Another process may have to be asked.
        let status = py.detach(|| self.hub.status());
        HashMap::from([
            ("workers", status.workers.into()),
            ("queued", status.queued as u64),
            ("in_flight", status.in_flight.into()),
            ("requests", status.arrived),
            ("retries", status.retries),
            ("workers_left", status.workers_lost),
        ])
    }

    /// Ends every request and lets go of every worker; the port is free when it returns.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl Hub {
    fn end(&self) {
        let thread = self.thread.lock().take();
        if self.process != std::process::id() {
            // What the thread held belongs to the process that this one was forked from.
            std::mem::forget(thread);
            return;
        }
        if let Some(Thread { _life: life, handle }) = thread {
            drop(life);
            // It cannot panic in a way that matters here: what it served is over.
            drop(handle.join());
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The thread never takes Python's lock: it can be waited for while this one has it.
        self.end();
    }
}

/// The hub's thread. With the runtime at its end go the listener and every connection.
fn live(
    options: HubOptions,
    started: &mpsc::Sender<Result<Arc<SharedHub>, ServeError>>,
    end: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(ServeError::Hub(error)))),
    };
    runtime.block_on(async {
        let hub = match SharedHub::start(options).await {
            Ok(hub) => Arc::new(hub),
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok(Arc::clone(&hub))).is_ok() {
            // An error means that the other end was dropped, which is the word to end.
            drop(end.await);
        }
        hub.close(GRACE).await;
    });
}

/// With its number, so that Python makes the right kind of it.
fn os_error(error: ServeError) -> PyErr {
    let number = match &error {
        ServeError::Bind { source, .. } => source.raw_os_error(),
        _ => None,
    };
    match number {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}
