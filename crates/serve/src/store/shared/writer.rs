//! What is done to the shared tier behind the requests' backs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatewright_control::cache::WallAnchor;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Entry, Lease, Shared, feed, saved, scripts};
use crate::store::number;

/// How long one operation may take that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(1);

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    Write {
        key: Arc<str>,
        entry: Arc<Entry>,
        /// What it counts for in the queue.
        bytes: u64,
        ttl: Duration,
        lease: Option<Lease>,
        anchor: WallAnchor,
    },
    /// A lease is over, and nothing was stored.
    Release { key: Arc<str>, token: u64, pass: u64 },
    /// Tell of the purges that are pending.
    Purge { done: Option<oneshot::Sender<()>> },
}

/// Does what comes, in its order, until nobody is left to send more.
pub(super) async fn write(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Write { key, entry, bytes, ttl, lease, anchor } => {
                store(&shared, &key, &entry, ttl, lease, anchor).await;
                shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            Job::Release { key, token, pass } => release(&shared, &key, token, pass).await,
            Job::Purge { done } => {
                if let Some(mut connection) = shared.link.connection() {
                    let until = Instant::now() + PATIENCE;
                    // What was not told stays pending.
                    let _told =
                        shared.link.within(until, feed::tell(&shared, &mut connection)).await;
                }
                if let Some(done) = done {
                    // Whoever asked may have gone.
                    let _heard = done.send(());
                }
            }
        }
    }
}

async fn store(
    shared: &Shared,
    key: &str,
    entry: &Entry,
    ttl: Duration,
    mut lease: Option<Lease>,
    anchor: WallAnchor,
) {
    let Some(mut connection) = shared.link.connection() else { return };
    let Some(value) = saved::write(key, entry, anchor) else { return };
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
    let token = lease.as_ref().map_or(0, Lease::token);
    let selecting = rmp_serde::to_vec(&entry.meta.selecting).expect("plain data is msgpack");
    let field = format!("{:016x}", number(&selecting));
    let mut script = scripts::STORE.key(scripts::entry(key));
    script.key(scripts::lease(key)).key(scripts::pass(key));
    script.arg(field).arg(&value[..]).arg(ttl).arg(token).arg(scripts::FILLED).arg(key);
    let until = Instant::now() + PATIENCE;
    if shared.link.within(until, script.invoke_async::<u64>(&mut connection)).await.is_ok() {
        shared.counts.written.fetch_add(1, Ordering::Relaxed);
        lease.iter_mut().for_each(Lease::written);
    }
}

async fn release(shared: &Shared, key: &str, token: u64, pass: u64) {
    let Some(mut connection) = shared.link.connection() else { return };
    let mut script = scripts::RELEASE.key(scripts::lease(key));
    script.key(scripts::pass(key)).arg(token).arg(scripts::FILLED).arg(key).arg(pass);
    let until = Instant::now() + PATIENCE;
    // If it is not done, the lease runs out.
    let _done = shared.link.within(until, script.invoke_async::<()>(&mut connection)).await;
}
