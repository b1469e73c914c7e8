use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use gatewright_control::System;
use gatewright_control::{Event, Outcome, RequestKey};

use super::Driver;
use crate::call::Call;

/// Holds a request in the system until its end; dropped before, it says that nobody waits any more.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) driver: Arc<Driver>,
    pub(crate) key: RequestKey,
    pub(crate) call: Arc<Call>,
}

impl Ticket {
    /// Nobody waits any more.
    pub(crate) fn cancel(&self) {
        if self.call.end().is_none() {
            self.driver.handle(Event::Cancel { request: self.key });
        }
    }

    /// Has another attempt made if there may be one; see [`System::try_again`].
    pub(crate) fn try_again(&self, after: Option<Duration>, busy: bool) -> bool {
        let key = self.key;
        self.driver.act(|core, now| core.system.try_again(now, key, after, busy, &mut core.effects))
    }

    /// The attempt at an upstream is over.
    pub(crate) fn finished(&self, outcome: Outcome) {
        self.driver.finished(self.key, outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel();
    }
}
