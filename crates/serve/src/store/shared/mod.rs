//! The tier that gateways share: Redis or Valkey.
//!
//! No request waits for it longer than `cache.shared_deadline`, and none fails because of it: what it does not say in
//! time is not there. After a few failures in a row it is left alone until it answers again (`link`). Writing is done
//! behind the requests' backs (`writer`), purges and fills of other gateways are heard of in `feed`. One gateway at
//! a time has the lease to fetch a key; the others wait for what it stores (`lease`).
//!
//! ```text
//! gatewright:entry:KEY   hash    a field for each variant (`saved`), and `fence`, the token it was written under
//! gatewright:lease:KEY   string  token of who fetches the key now
//! gatewright:pass:KEY    string  there is nothing to store of this key: nobody waits for it
//! gatewright:fence       number  the last token
//! gatewright:purges      stream  the purges of late; what was asked for before one of them is as good as gone
//! ```

mod feed;
mod lease;
mod link;
mod scripts;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use gatewright_control::cache::Moment;
use gatewright_control::config::SharedUrl;
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::lease::{Lease, Leased, Waited};
use self::link::Link;
use self::writer::Job;
use super::purge::Purge;
use super::{Entry, Store, saved};
use crate::clock::Clock;

/// Operations that wait to be carried out behind the requests' backs, and the bytes of theirs; beyond, they are
/// dropped.
const QUEUED: usize = 1024;
const QUEUED_BYTES: u64 = 64 * 1024 * 1024;
/// Fills of others that are heard of and not looked at yet.
const FILLED: usize = 1024;
/// Purges that could not be told yet; beyond, everything counts as purged.
const PENDING: usize = 1024;

/// The shared tier, as one gateway sees it.
#[derive(Debug)]
pub(crate) struct Shared {
    link: Link,
    /// How long a request waits for it, all in all.
    pub(super) deadline: Duration,
    /// Tells this gateway's purges from those of others.
    name: String,
    jobs: mpsc::Sender<Job>,
    queued_bytes: AtomicU64,
    /// Purges that the others were not told of.
    pending: Mutex<Vec<Purge>>,
    /// Keys that another gateway has ended to fetch.
    filled: broadcast::Sender<Arc<str>>,
    counts: Counts,
}

/// What a tier that is begun works with.
#[derive(Debug)]
pub(super) struct Work {
    jobs: mpsc::Receiver<Job>,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    waited: AtomicU64,
}

/// The tier in numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) server: String,
    /// Whether it is used now.
    pub(crate) up: bool,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) written: u64,
    /// Writes that were not made because too many waited.
    pub(crate) dropped: u64,
    /// Operations that it refused, as when it is full.
    pub(crate) refused: u64,
    /// Operations that failed or took too long.
    pub(crate) failed: u64,
    /// Times that it was given up for a while.
    pub(crate) given_up: u64,
    /// Requests that waited for another gateway's fetch.
    pub(crate) waited: u64,
}

/// What the tier has of a key.
#[derive(Debug)]
pub(super) enum Look {
    Found(Vec<Entry>),
    Nothing,
    /// Its responses cannot be stored.
    Uncacheable,
    /// It did not say, in time or at all.
    Unavailable,
}

impl Shared {
    /// Whoever holds the work must begin it.
    pub(super) fn new(
        url: &SharedUrl,
        tls: Option<ClientConfig>,
        deadline: Duration,
        name: String,
        clock: Clock,
    ) -> Result<(Arc<Self>, Work), String> {
        let (jobs, work) = mpsc::channel(QUEUED);
        let shared = Self {
            link: Link::new(url, tls, clock)?,
            deadline,
            name,
            jobs,
            queued_bytes: AtomicU64::new(0),
            pending: Mutex::default(),
            filled: broadcast::channel(FILLED).0,
            counts: Counts::default(),
        };
        Ok((Arc::new(shared), Work { jobs: work }))
    }

    /// Starts the tasks behind it.
    pub(super) fn begin(self: &Arc<Self>, work: Work, store: Weak<Store>, tasks: &mut JoinSet<()>) {
        tasks.spawn(writer::write(Arc::clone(self), work.jobs));
        tasks.spawn(feed::follow(Arc::clone(self), store));
    }

    /// Waits until it is connected, or it is known that it is not.
    pub(super) async fn tried(&self) {
        self.link.tried().await;
    }

    /// What it has of a key.
    pub(super) async fn look(&self, key: &str, store: &Store, until: Instant) -> Look {
        let Some(mut connection) = self.link.connection() else { return Look::Unavailable };
        let mut ask = redis::pipe();
        ask.cmd("HGETALL").arg(scripts::entry(key));
        ask.cmd("EXISTS").arg(scripts::pass(key));
        ask.cmd("XREVRANGE").arg(scripts::PURGES).arg("+").arg("-").arg("COUNT").arg(1);
        type Answer = (Vec<(Vec<u8>, Vec<u8>)>, bool, Vec<(String, Vec<String>)>);
        // Marked before it is read: a purge that comes after is one of what is read.
        let marks = store.marks();
        let moment = store.moment();
        let asked = self.link.within(until, ask.query_async::<Answer>(&mut connection)).await;
        let Ok((fields, pass, purges)) = asked else { return Look::Unavailable };
        let last = purges.first().and_then(|(id, _)| feed::mark(id));
        if last.is_some_and(|last| last > marks.shared) {
            // It was told of purges that this gateway has not heard of yet.
            let heard = self.link.within(until, feed::catch_up(self, store, &mut connection)).await;
            if heard.is_err() {
                return Look::Unavailable;
            }
        }
        if pass {
            return Look::Uncacheable;
        }
        let entries: Vec<Entry> = fields
            .into_iter()
            .filter(|(name, _)| name != scripts::FENCE_FIELD.as_bytes())
            .filter_map(|(_, value)| entry_of(key, value, moment))
            .map(|mut entry| {
                entry.marks.local = marks.local;
                entry
            })
            .collect();
        let found = !entries.is_empty() && !self.is_pending(key, &entries);
        let count = if found { &self.counts.hits } else { &self.counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        if found { Look::Found(entries) } else { Look::Nothing }
    }

    /// Whether something of it was purged here, and the others could not be told yet.
    fn is_pending(&self, key: &str, entries: &[Entry]) -> bool {
        let pending = self.pending.lock();
        let fits = |purge: &Purge, entry: &Entry| purge.matcher.fits(key, &entry.meta.tags);
        pending.iter().any(|purge| entries.iter().any(|entry| fits(purge, entry)))
    }

    /// Writes a response behind the requests' backs, if not too many wait.
    pub(super) fn keep(
        self: &Arc<Self>,
        key: &str,
        entry: Arc<Entry>,
        lease: Option<Lease>,
        moment: Moment,
    ) {
        let ttl = entry.meta.useful_for(moment.now);
        let bytes = entry.weight() as u64;
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let job = Job::Write { key: key.into(), entry, bytes, ttl, lease, anchor: moment.anchor };
        if !self.link.is_up() || queued > QUEUED_BYTES || self.jobs.try_send(job).is_err() {
            // With it goes its lease, which says that it has ended.
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells the others of a purge; what is stored here of the tier counts as purged at once.
    pub(super) fn purge(&self, purge: &Purge) {
        self.note_pending(purge.clone());
        // Who reads the jobs tells all that are pending; if it has too many, the next purge or connection does.
        drop(self.jobs.try_send(Job::Purge { done: None }));
    }

    fn note_pending(&self, purge: Purge) {
        let mut pending = self.pending.lock();
        if pending.contains(&purge) {
            return;
        }
        if pending.len() >= PENDING {
            let all = super::Matcher::Prefix("/".to_owned());
            pending.clear();
            pending.push(Purge { matcher: all, soft: false });
            return;
        }
        pending.push(purge);
    }

    /// Waits a moment until the others were told of every purge. Whether they were.
    pub(super) async fn settle(&self) -> bool {
        let (done, told) = tokio::sync::oneshot::channel();
        if !self.link.is_up() || self.jobs.try_send(Job::Purge { done: Some(done) }).is_err() {
            return self.pending.lock().is_empty();
        }
        let told = tokio::time::timeout(Duration::from_secs(1), told).await;
        matches!(told, Ok(Ok(()))) && self.pending.lock().is_empty()
    }

    /// Waits until what is queued was written, or it is clear that it will not be.
    pub(super) async fn finish(&self) {
        let (done, written) = tokio::sync::oneshot::channel();
        if self.link.is_up() && self.jobs.send(Job::Purge { done: Some(done) }).await.is_ok() {
            drop(tokio::time::timeout(Duration::from_secs(2), written).await);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let trouble = self.link.trouble();
        Stats {
            server: self.link.server().to_owned(),
            up: self.link.is_up(),
            hits: count(&self.counts.hits),
            misses: count(&self.counts.misses),
            written: count(&self.counts.written),
            dropped: count(&self.counts.dropped),
            refused: trouble.refused,
            failed: trouble.failed,
            given_up: trouble.given_up,
            waited: count(&self.counts.waited),
        }
    }
}

/// Reads a value; what cannot be read is not there.
fn entry_of(key: &str, value: Vec<u8>, moment: Moment) -> Option<Entry> {
    match saved::read(&Bytes::from(value), moment) {
        Ok(read) if read.key == key => Some(read.entry),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "a value in the shared tier is not read");
            None
        }
    }
}
