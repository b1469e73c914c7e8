use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::writer::Job;
use super::{Shared, scripts};

/// How long a lease lasts that is not renewed, and how often it is.
const SPAN: Duration = Duration::from_secs(3);
const RENEWED: Duration = Duration::from_secs(1);
/// How often somebody who waits looks, if nothing is told.
const LOOK: Duration = Duration::from_millis(250);

/// The right to fetch a key, of one gateway at a time. It lasts as long as this value, and a moment longer if the
/// gateway dies.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    key: Arc<str>,
    token: u64,
    renewal: AbortHandle,
    /// How long it is to be remembered that nothing can be stored of the key.
    pass: Option<Duration>,
    written: bool,
}

/// Whether a lease was had.
pub(crate) enum Leased {
    Granted(Lease),
    /// Another gateway has it; to be waited for.
    Busy(Pin<Box<dyn Future<Output = Waited> + Send>>),
    /// It could not be asked for: everyone fetches for himself.
    Unavailable,
}

/// How the waiting for another gateway's fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// It was told that the fetch is over.
    Told,
    /// Nothing was told; it may be over.
    Perhaps,
}

impl Lease {
    /// Nothing can be stored of the key: nobody need wait for one another so long.
    pub(crate) fn uncacheable(&mut self, span: Duration) {
        self.pass = Some(span);
    }

    /// What its writes are marked with.
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// What it was for was written, and it ended with that.
    pub(super) fn written(&mut self) {
        self.written = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if !self.written {
            let pass = self.pass.map_or(0, |span| span.as_millis() as u64);
            let job = Job::Release { key: Arc::clone(&self.key), token: self.token, pass };
            // If there is no room, it runs out by itself.
            drop(self.shared.jobs.try_send(job));
        }
    }
}

impl Shared {
    /// Asks for the right to fetch a key.
    pub(in crate::store) async fn lease(self: &Arc<Self>, key: &str, until: Instant) -> Leased {
        let Some(mut connection) = self.link.connection() else { return Leased::Unavailable };
        // Listened for before it is asked: it may end between the two.
        let told = self.told(key);
        let mut script = scripts::ACQUIRE.key(scripts::lease(key));
        script.key(scripts::FENCE).arg(SPAN.as_millis() as u64);
        let asked = self.link.within(until, script.invoke_async::<u64>(&mut connection)).await;
        let token = match asked {
            Ok(0) => {
                self.counts.waited.fetch_add(1, Ordering::Relaxed);
                return Leased::Busy(Box::pin(told));
            }
            Ok(token) => token,
            Err(_) => return Leased::Unavailable,
        };
        let (shared, key): (_, Arc<str>) = (Arc::clone(self), key.into());
        let renewal = tokio::spawn(renew(Arc::clone(self), Arc::clone(&key), token));
        let renewal = renewal.abort_handle();
        Leased::Granted(Lease { shared, key, token, renewal, pass: None, written: false })
    }

    /// Waits until another gateway may have ended to fetch a key. Listening begins with the call, not the wait.
    fn told(&self, key: &str) -> impl Future<Output = Waited> + use<> {
        let (mut filled, key): (_, Arc<str>) = (self.filled.subscribe(), key.into());
        let told = async move {
            loop {
                match filled.recv().await {
                    Ok(this) if this == key => return Waited::Told,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return Waited::Perhaps,
                }
            }
        };
        async move { tokio::time::timeout(LOOK, told).await.unwrap_or(Waited::Perhaps) }
    }
}

async fn renew(shared: Arc<Shared>, key: Arc<str>, token: u64) {
    loop {
        tokio::time::sleep(RENEWED).await;
        let Some(mut connection) = shared.link.connection() else { return };
        let mut script = scripts::RENEW.key(scripts::lease(&key));
        script.arg(token).arg(SPAN.as_millis() as u64);
        let until = Instant::now() + RENEWED;
        if let Ok(0) = shared.link.within(until, script.invoke_async::<u64>(&mut connection)).await
        {
            return;
        }
    }
}
