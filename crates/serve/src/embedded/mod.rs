//! A hub for a program that has its own face to the world: requests come from the program, workers come by
//! themselves and connect.
//!
//! The decisions are those of the gateway: one function of a [`gatewright_control::System`], whose replicas are
//! the workers that are there at the moment.

mod core;
mod link;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::{End, Shed};
use gatewright_protocol::CallError;

use self::core::Core;
use self::worker::Door;


/// How an [`EmbeddedHub`] is to be.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Where workers connect to.
    pub address: SocketAddr,
    /// What a worker must present; `None` takes every worker, and only on a loopback address.
    pub token: Option<String>,
    /// Requests that may wait for a worker; one more is refused.
    pub queue_capacity: usize,
    /// Requests that a worker has at a time, at least 1.
    pub window: u32,
    /// Attempts in all at a request whose worker is lost; 1 for requests that must not run twice.
    pub attempts: u32,
    /// How often workers are pinged. One that leaves five pings unanswered is given up.
    pub heartbeat: Duration,
    /// Longest result in bytes, its frame included.
    pub max_frame: u32,
}

/// Who asked, and is told how its requests go. Called by any thread; it must not wait.
pub trait Caller: Send + Sync + std::fmt::Debug {
    /// A piece of a result that comes in pieces; `text` if it is a string.
    fn piece(&self, id: u64, text: bool, data: Bytes);
    /// The request has ended. Called once for each, and nothing follows.
    fn ended(&self, id: u64, result: CallResult);
}

/// How a request ended.
#[derive(Debug)]
pub enum CallResult {
    /// The call returned this msgpack value.
    Value(Bytes),
    /// The call raised.
    Raised(CallError),
    /// There is no answer.
    Unanswered(Unanswered),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The time was up.
    TimedOut,
    /// The caller gave up.
    Cancelled,
    /// As many requests as may are waiting already.
    QueueFull,
    /// The worker was lost, and so were those of earlier attempts.
    WorkerLost,
    /// The hub was closed.
    Closed,
}

/// What there is at the moment, and has been so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStatus {
    /// Workers that take requests.
    pub workers: u32,
    /// Requests that wait for one.
    pub queued: u32,
    /// Requests at a worker.
    pub in_flight: u32,
    /// Requests taken so far.
    pub requests: u64,
    /// Attempts made again so far.
    pub retries: u64,
    /// Workers that were lost so far, those that said goodbye included.
    pub workers_left: u64,
}

/// A hub that listens. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct EmbeddedHub {
    core: Arc<Core>,
    address: SocketAddr,
}

impl EmbeddedHub {
    /// Listens at the options' address. The future does the hub's work; it ends when the hub is closed.
    ///
    /// # Errors
    /// The address cannot be listened at, or it is open to other machines and there is no token.
    pub fn bind(
        options: HubOptions,
    ) -> io::Result<(Self, impl Future<Output = io::Result<()>> + Send + use<>)> {
        if options.token.is_none() && !options.address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} is open to other machines: a token is required", options.address),
            ));
        }
        if options.window == 0 || options.attempts == 0 {
            let what = "window and attempts must be at least 1";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // As std makes it: with SO_REUSEADDR, so that a hub can come back at once.
        let listener = TcpListener::bind(options.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let core = Core::new(&options)?;
        let door = Door::new(Arc::clone(&core), options);
        let hub = Self { core: Arc::clone(&core), address };
        let work = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let closed = core.closed.clone();
            tokio::select! {
                () = closed.cancelled() => {}
                () = door.accept(listener) => {}
                () = Arc::clone(&core).keep_time() => {}
            }
            // Their goodbyes.
            core.tasks.close();
            drop(tokio::time::timeout(Duration::from_millis(500), core.tasks.wait()).await);
            Ok(())
        };
        Ok((hub, work))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a request: `args` is a msgpack array, `kwargs` a msgpack map with strings as keys. Returns its number,
    /// under which the caller will be told of it, perhaps before this returns. `timeout` counts from now, retries
    /// included; `None` waits for ever. Urgency 0 is served before 1, and 7 last.
    pub fn submit(
        &self,
        args: Bytes,
        kwargs: Bytes,
        timeout: Option<Duration>,
        urgency: u8,
        caller: Arc<dyn Caller>,
    ) -> u64 {
        self.core.submit(args, kwargs, timeout, urgency, caller)
    }

    /// Gives a request up. If a worker has it, it is told.
    pub fn cancel(&self, id: u64) {
        self.core.cancel(id);
    }

    /// What there is at the moment.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        self.core.status()
    }

    /// Ends every request, and lets go of every worker.
    pub fn close(&self) {
        self.core.close();
    }
}

impl Unanswered {
    fn new(end: End) -> Self {
        match end {
            End::TimedOut => Self::TimedOut,
            End::Cancelled => Self::Cancelled,
            End::Shed(Shed::QueueFull | Shed::Unavailable) => Self::QueueFull,
            End::Shed(Shed::Removed) => Self::Closed,
            // An end without the worker's word: the word would have come first.
            End::Ok | End::Error | End::Lost => Self::WorkerLost,
        }
    }
}
