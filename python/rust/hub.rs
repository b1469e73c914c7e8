use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gatewright_serve::{Caller, EmbeddedHub, HubOptions};
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::mailbox::Mailbox;

/// A hub that listens, and the thread that does its work.
#[pyclass(frozen, module = "gatewright._hub")]
#[derive(Debug)]
pub(crate) struct Hub {
    hub: EmbeddedHub,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that made it: in another one, a fork, there is no such thread.
    process: u32,
}

#[pymethods]
impl Hub {
    #[new]
    #[pyo3(signature = (*, host, port, token, queue_capacity, window, attempts, heartbeat, max_frame))]
    #[expect(clippy::too_many_arguments, reason = "Python passes them by name")]
    fn new(
        host: &str,
        port: u16,
        token: Option<String>,
        queue_capacity: usize,
        window: u32,
        attempts: u32,
        heartbeat: f64,
        max_frame: u32,
    ) -> PyResult<Self> {
        let heartbeat = Duration::try_from_secs_f64(heartbeat)
            .map_err(|error| PyOSError::new_err(format!("heartbeat: {error}")))?;
        let address = resolve(host, port).map_err(os_error)?;
        let options =
            HubOptions { address, token, queue_capacity, window, attempts, heartbeat, max_frame };
        let (hub, work) = EmbeddedHub::bind(options).map_err(os_error)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(os_error)?;
        let thread = std::thread::Builder::new()
            .name("gatewright-hub".to_owned())
            .spawn(move || {
                // It ends with the hub's being closed; that it cannot begin, the first request's timeout tells.
                drop(runtime.block_on(work));
            })
            .map_err(os_error)?;
        Ok(Self { hub, thread: Mutex::new(Some(thread)), process: std::process::id() })
    }

    /// The port that it listens at.
    #[getter]
    fn port(&self) -> u16 {
        self.hub.address().port()
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
    fn status(&self) -> HashMap<&'static str, u64> {
        let status = self.hub.status();
        HashMap::from([
            ("workers", status.workers.into()),
            ("queued", status.queued.into()),
            ("in_flight", status.in_flight.into()),
            ("requests", status.requests),
            ("retries", status.retries),
            ("workers_left", status.workers_left),
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
        self.hub.close();
        if let Some(thread) = thread {
            // It cannot panic in a way that matters here: what it served is over.
            drop(thread.join());
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The thread never takes Python's lock: it can be waited for while this one has it.
        self.end();
    }
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut found: Vec<_> = (host, port).to_socket_addrs()?.collect();
    // `localhost` is both: workers try both, other programs the older one.
    found.sort_by_key(SocketAddr::is_ipv6);
    found.into_iter().next().ok_or_else(|| io::Error::other(format!("{host} stands for no address")))
}

/// With its number, so that Python makes the right kind of it.
fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}
