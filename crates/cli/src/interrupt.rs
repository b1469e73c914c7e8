//! Signals that ask for an end: the first one asks for an early end, the second one ends at once.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure, Outcome, reason};

/// Whether the user asked for an early end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<OnceLock<Signal>>,
}

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT.
    CtrlC,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    const fn kind(self) -> SignalKind {
        match self {
            Self::CtrlC => SignalKind::interrupt(),
            Self::Terminate => SignalKind::terminate(),
        }
    }

    /// How a command ends that it ended.
    pub(crate) const fn exit(self) -> Exit {
        match self {
            Self::CtrlC => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

impl Interrupt {
    /// Begins to listen, until the process ends.
    pub(crate) fn listen(signals: &[Signal]) -> Outcome<Self> {
        let cannot =
            |fault| Failure::failed(format!("cannot listen for signals: {}", reason(&fault)));
        let interrupt = Self::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        for &one in signals {
            let guard = runtime.enter();
            let mut arrivals = signal(one.kind()).map_err(cannot)?;
            drop(guard);
            let asked = Arc::clone(&interrupt.asked);
            runtime.spawn(async move {
                while arrivals.recv().await.is_some() {
                    if asked.set(one).is_err() {
                        std::process::exit(i32::from(one.exit() as u8));
                    }
                }
            });
        }
        let listen = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(listen).map_err(cannot)?;
        Ok(interrupt)
    }

    /// The signal that asked for it.
    pub(crate) fn asked(&self) -> Option<Signal> {
        self.asked.get().copied()
    }
}
