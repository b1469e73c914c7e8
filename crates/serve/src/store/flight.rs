use std::sync::Arc;

use tokio::sync::watch;

use super::growing::Growing;
use super::{Entry, Store};
use crate::plane::Failure;

/// How far a fetch is, for those who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Nothing came yet.
    Asking,
    /// The head of a response that may be stored is here.
    Head(Arc<Entry>),
    /// An error that is not stored, but answers those who wait for it.
    Error(Arc<Passing>),
    /// What came is the first client's alone: the others ask for themselves.
    Own,
    /// Nothing came.
    Failed(Arc<Failure>),
}

/// A response that is not stored.
#[derive(Debug)]
pub(crate) struct Passing {
    pub(crate) status: http::StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Arc<Growing>,
}

/// What those who wait for a fetch hold of it.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(super) stage: watch::Receiver<Stage>,
}

/// A fetch that others may wait for. Dropped before it came anywhere, it lets the next one try.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(super) store: Arc<Store>,
    pub(super) key: Arc<str>,
    pub(super) stage: watch::Sender<Stage>,
}

impl Flight {
    /// Waits until there is more than nothing; `None` if it was broken off before.
    pub(crate) async fn landed(&mut self) -> Option<Stage> {
        let stage = self.stage.wait_for(|stage| !matches!(stage, Stage::Asking)).await.ok()?;
        Some(stage.clone())
    }

    /// Whether it is the same as another.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.stage.same_channel(&other.stage)
    }
}

impl Fill {
    /// Tells all who wait how far it is.
    pub(crate) fn tell(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // After the response is stored: whoever comes now finds it there or asks anew.
        let mut flights = self.store.flights.lock();
        let own = |flight: &Flight| flight.stage.same_channel(&self.stage.subscribe());
        if flights.get(&*self.key).is_some_and(own) {
            flights.remove(&*self.key);
        }
    }
}
