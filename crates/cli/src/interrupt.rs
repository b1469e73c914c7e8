//! Ctrl-C: the first one asks for an early end, the second one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Failure, Outcome, reason};

/// Whether the user asked for an early end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

/// What a shell reports of a program that SIGINT ended.
const ENDED_BY_SIGINT: i32 = 130;

impl Interrupt {
    /// Begins to listen, until the process ends.
    pub(crate) fn listen() -> Outcome<Self> {
        let interrupt = Self::default();
        let asked = Arc::clone(&interrupt.asked);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(
            |fault| Failure::failed(format!("cannot listen for Ctrl-C: {}", reason(&fault))),
        )?;
        let listen = move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if asked.swap(true, Ordering::Relaxed) {
                        std::process::exit(ENDED_BY_SIGINT);
                    }
                }
            });
        };
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(listen).map_err(
            |fault| Failure::failed(format!("cannot listen for Ctrl-C: {}", reason(&fault))),
        )?;
        Ok(interrupt)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
