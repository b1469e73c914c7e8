use std::rc::Rc;

use gatewright_determinism::Time;

use crate::body::ResetFlag;
use crate::fate::Fate;
use crate::timer::Timer;
use crate::worker::Worker;

/// One request, as it came.
pub(crate) struct Visit {
    /// Its number in the run, from 0.
    pub(crate) number: u64,
    /// When it was read.
    pub(crate) arrival: Time,
    /// Resets the connection it came by.
    pub(crate) reset: ResetFlag,
    pub(crate) worker: Rc<Worker>,
}

impl Visit {
    pub(crate) fn timer(&self) -> &Timer {
        &self.worker.timer
    }

    pub(crate) fn fate(&self) -> Fate {
        self.worker.server.fates.of(self.worker.server.config.seed, self.number)
    }
}
