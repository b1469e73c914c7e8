//! What the tiers behind the memory have of a key, before its upstream is asked.

use std::sync::Arc;

use gatewright_control::cache::{CacheStatus, Forward, ForwardReason, Plan, SendAs, Serve};
use http::Response;

use super::Plane;
use super::cached::result_of;
use super::fetch::{Fetch, Filled};
use super::wanted::Wanted;
use crate::answer::Body;
use crate::records::Trail;
use crate::store::{Leased, Line, Recall, Stage, Tier, Waited};

impl Plane {
    /// Asks the tiers for a fetch, and for the right to make it. `None` if that answered it.
    pub(super) async fn recall(&self, mut fetch: Fetch) -> Option<Fetch> {
        let now = self.store.moment().now;
        let asks_upstream =
            matches!(fetch.forward.why, ForwardReason::Request | ForwardReason::Method);
        if self.store.tiers().is_empty()
            || asks_upstream
            || !fetch.forward.store
            || fetch.line.is_uncacheable(now)
        {
            return Some(fetch);
        }
        let until = self.store.patience();
        for tier in Tier::ALL {
            match self.store.recall(tier, &fetch.key, until).await {
                Recall::Found(line) => fetch = self.found(fetch, line, tier)?,
                Recall::Uncacheable => return Some(self.uncacheable(fetch)),
                Recall::Nothing | Recall::Unavailable => {}
            }
        }
        if fetch.fill.is_none() {
            return Some(fetch);
        }
        self.leased(fetch, until).await
    }

    /// Looks in the tiers for a request that wants nothing else.
    pub(super) async fn recall_only(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        key: &str,
        trail: &mut Trail,
    ) -> Option<Response<Body>> {
        let until = self.store.patience();
        for tier in Tier::ALL {
            let Recall::Found(line) = self.store.recall(tier, key, until).await else { continue };
            let Plan::Serve(serve) = self.plan(wanted, &line, false, false) else { continue };
            let status = CacheStatus { detail: Some(tier.name()), ..serve.status };
            let response =
                self.serve(wanted, key, &line, &Serve { status, ..serve.clone() }, trail)?;
            if let Some(send) = serve.revalidate {
                self.revalidate(wanted, key, send, &line);
            }
            return Some(response);
        }
        None
    }

    /// Waits for the right to fetch, unless what another gateway fetched meanwhile will do.
    async fn leased(&self, mut fetch: Fetch, mut until: tokio::time::Instant) -> Option<Fetch> {
        while self.store.moment().now < fetch.wanted.deadline {
            let waits = match self.store.lease(&fetch.key, until).await {
                Leased::Granted(lease) => {
                    fetch.lease = Some(lease);
                    break;
                }
                Leased::Unavailable => break,
                Leased::Busy(waits) => waits,
            };
            let waited = waits.await;
            until = self.store.patience();
            match self.store.recall(Tier::Shared, &fetch.key, until).await {
                Recall::Found(line) => fetch = self.found(fetch, line, Tier::Shared)?,
                Recall::Uncacheable => return Some(self.uncacheable(fetch)),
                Recall::Unavailable => break,
                Recall::Nothing => {}
            }
            if waited == Waited::Told {
                // It brought nothing that will do: not one gateway after another, then.
                break;
            }
        }
        Some(fetch)
    }

    /// A tier has something of the key. `None` if that answers the request, and nothing is to be fetched.
    fn found(&self, mut fetch: Fetch, line: Arc<Line>, tier: Tier) -> Option<Fetch> {
        let plan = self.plan(&fetch.wanted, &line, false, false);
        fetch.line = line;
        match plan {
            Plan::Serve(serve) => {
                let entry = Arc::clone(&fetch.line.variants[serve.variant].0);
                if let Some(fill) = &fetch.fill {
                    fill.tell(Stage::Head(Arc::clone(&entry)));
                }
                let status = CacheStatus { detail: Some(tier.name()), ..serve.status };
                let (age, result) = (serve.age.as_secs(), result_of(serve.status));
                fetch.answer(Filled::Entry { entry, shape: serve.shape, age, status, result });
                let send = serve.revalidate?;
                let why = ForwardReason::Stale;
                fetch.forward = Forward { why, send, lead: true, store: true, fallback: None };
            }
            Plan::Forward(forward) => {
                // Whether others wait for it was decided before.
                fetch.forward = Forward { lead: fetch.forward.lead, ..forward };
            }
            Plan::Collapse | Plan::NotCached => {}
        }
        Some(fetch)
    }

    /// What the upstream answers is for one client alone: the others ask for themselves.
    fn uncacheable(&self, mut fetch: Fetch) -> Fetch {
        fetch.note_uncacheable(self);
        if let Some(fill) = fetch.fill.take() {
            fill.tell(Stage::Own);
        }
        fetch.forward.lead = false;
        fetch.forward.send = SendAs::AsReceived;
        fetch
    }
}
