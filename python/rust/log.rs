use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::EventfdFlags;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Messages that wait for Python; more are dropped.
const PLACES: usize = 1_000;

/// What the hubs of this process have to say, for Python's `logging`.
#[pyclass(frozen, module = "gatewright._hub")]
#[derive(Debug)]
pub(crate) struct Log {
    messages: Arc<Messages>,
}

#[derive(Debug)]
struct Messages {
    bell: OwnedFd,
    waiting: Mutex<Waiting>,
    /// As Python counts: 10 for debugging, 40 for errors.
    level: AtomicU8,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(u8, &'static str, String)>,
    dropped: u64,
}

/// Where messages go: those of a fork go to what the fork has made.
static CURRENT: OnceLock<Mutex<Arc<Messages>>> = OnceLock::new();

/// A level as Python's `logging` has it.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

#[pymethods]
impl Log {
    #[new]
    fn new() -> PyResult<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|error| PyOSError::new_err(format!("no eventfd: {error}")))?;
        let (waiting, level) = (Mutex::default(), AtomicU8::new(number(Level::WARN)));
        let messages = Arc::new(Messages { bell, waiting, level });
        let current = CURRENT.get_or_init(|| Mutex::new(Arc::clone(&messages)));
        *current.lock() = Arc::clone(&messages);
        // Fails from the second time on: the first one stays and asks `CURRENT`.
        let _first = tracing::subscriber::set_global_default(Collector).is_ok();
        Ok(Self { messages })
    }

    /// The eventfd that is readable when there are messages.
    fn fileno(&self) -> RawFd {
        self.messages.bell.as_raw_fd()
    }

    /// Every message so far: level, logger, text.
    fn collect(&self) -> Vec<(u8, &'static str, String)> {
        let waiting = std::mem::take(&mut *self.messages.waiting.lock());
        let mut messages = Vec::from(waiting.messages);
        if waiting.dropped > 0 {
            let text = format!("{} messages were dropped: there were too many", waiting.dropped);
            messages.push((number(Level::WARN), "gatewright", text));
        }
        messages
    }

    /// The lowest level that is wanted, as Python counts.
    fn set_level(&self, level: i64) {
        let level = u8::try_from(level.clamp(0, 255)).unwrap_or(u8::MAX);
        self.messages.level.store(level, Ordering::Relaxed);
    }
}

/// Takes every event of the process that is wanted.
struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A target is a module's path; other crates' are none of the user's business.
        let ours = metadata.target().starts_with("gatewright") || metadata.target() == "worker";
        let wanted = || {
            let current = CURRENT.get().map(|current| Arc::clone(&current.lock()));
            current.is_some_and(|messages| {
                number(*metadata.level()) >= messages.level.load(Ordering::Relaxed)
            })
        };
        metadata.is_event() && ours && wanted()
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // Asked each time: the level may change.
        tracing::subscriber::Interest::sometimes()
    }

    fn event(&self, event: &Event<'_>) {
        let Some(messages) = CURRENT.get().map(|current| Arc::clone(&current.lock())) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        let mut waiting = messages.waiting.lock();
        if waiting.messages.len() == PLACES {
            waiting.dropped += 1;
            return;
        }
        let logger = if event.metadata().target() == "worker" {
            "gatewright.worker"
        } else {
            "gatewright.hub"
        };
        let first = waiting.messages.is_empty();
        let text = text.message + &text.fields;
        waiting.messages.push_back((number(*event.metadata().level()), logger, text));
        drop(waiting);
        if first {
            // An eventfd that is open takes it: the counter is far from its end.
            let rung = rustix::io::write(&messages.bell, &1u64.to_ne_bytes());
            debug_assert!(rung.is_ok(), "{rung:?}");
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event as one line: its message, and what it names.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}").is_ok(),
            name => write!(self.fields, " {name}={value:?}").is_ok(),
        };
    }
}
