//! The tiers behind the memory: a disk, and a server that gateways share.

use std::path::Path;
use std::sync::Arc;

use gatewright_control::cache::Moment;
use gatewright_control::config;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::disk::Disk;
use super::purge::{Purge, Purges};
use super::shared::{Lease, Leased, Look, Shared, Work};
use super::{Entry, Line, Store};
use crate::ServeError;
use crate::clock::Clock;

/// The tiers behind the memory.
#[derive(Debug, Default)]
pub(crate) struct Tiers {
    disk: Option<Disk>,
    shared: Option<Arc<Shared>>,
    work: Mutex<Option<Work>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A tier behind the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Disk,
    Shared,
}

/// What a tier says of a key.
#[derive(Debug)]
pub(crate) enum Recall {
    /// Something is there; whether it will do is for the rules to say.
    Found(Arc<Line>),
    Nothing,
    /// What the upstream answers cannot be stored.
    Uncacheable,
    /// It did not say, in time or at all.
    Unavailable,
}

impl Tier {
    pub(crate) const ALL: [Self; 2] = [Self::Disk, Self::Shared];

    /// For `Cache-Status`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Shared => "shared",
        }
    }
}

impl Tiers {
    /// Opens the tiers that are described.
    pub(crate) fn open(
        described: &config::Cache,
        base_dir: &Path,
        name: String,
        clock: Clock,
    ) -> Result<Self, ServeError> {
        let disk = described.disk.as_ref().map(|disk| {
            let wrong = |source| ServeError::Disk { path: base_dir.join(&disk.path), source };
            Disk::open(disk, base_dir).map_err(wrong)
        });
        let shared = described.shared.as_ref().map(|url| {
            let wrong = |what| ServeError::Shared { server: url.server().to_owned(), what };
            let tls = || {
                crate::tls::client(described.shared_tls.as_ref(), base_dir)
                    .map_err(|source| ServeError::Tls { at: "cache.shared".to_owned(), source })
            };
            let tls = url.is_secure().then(tls).transpose()?;
            Shared::new(url, tls, described.shared_deadline.get(), name, clock).map_err(wrong)
        });
        let (disk, shared) = (disk.transpose()?, shared.transpose()?);
        let (shared, work) = shared.unzip();
        Ok(Self { disk, shared, work: Mutex::new(work), tasks: Mutex::default() })
    }

    pub(super) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.disk.is_none() && self.shared.is_none()
    }

    /// The purges that what is on disk is to be compared with.
    pub(super) fn purges(&self) -> Purges<u64> {
        self.disk.as_ref().map(Disk::purges).unwrap_or_default()
    }

    /// Starts what works behind the requests' backs; it ends with the store.
    pub(super) fn begin(&self, store: &Arc<Store>) {
        if let (Some(shared), Some(work)) = (&self.shared, self.work.lock().take()) {
            shared.begin(work, Arc::downgrade(store), &mut self.tasks.lock());
        }
    }

    /// Waits until the shared tier is there, or it is known that it is not.
    pub(crate) async fn tried(&self) {
        if let Some(shared) = &self.shared {
            shared.tried().await;
        }
    }

    /// Keeps a response that was stored in memory.
    pub(super) fn keep(
        &self,
        key: &str,
        line: &Arc<Line>,
        entry: Arc<Entry>,
        lease: Option<Lease>,
        moment: Moment,
    ) {
        if let Some(disk) = &self.disk {
            disk.keep(key, line, moment);
        }
        if let Some(shared) = &self.shared {
            shared.keep(key, entry, lease, moment);
        }
    }

    /// Makes a purge of this gateway hold in all tiers.
    pub(super) fn purge(&self, mark: u64, purge: &Purge) {
        self.log(mark, purge);
        if let Some(shared) = &self.shared {
            shared.purge(purge);
        }
    }

    /// Makes a purge hold on disk.
    pub(super) fn log(&self, mark: u64, purge: &Purge) {
        if let Some(disk) = &self.disk {
            disk.log(mark, purge);
        }
    }

    /// Waits until the purges so far are sure. Whether those who share a tier were told, if there is one.
    pub(crate) async fn settle(&self) -> Option<bool> {
        if let Some(disk) = &self.disk
            && !disk.settle().await
        {
            tracing::error!("a purge is not on the disk yet: it may not outlive a loss of power");
        }
        match &self.shared {
            Some(shared) => Some(shared.settle().await),
            None => None,
        }
    }

    /// Writes what is still to be written.
    pub(crate) async fn finish(&self) {
        if let Some(disk) = &self.disk {
            disk.finish().await;
        }
        if let Some(shared) = &self.shared {
            shared.finish().await;
        }
    }
}

impl Store {
    /// Until when a request that begins now to ask the shared tier waits for it, all in all.
    pub(crate) fn patience(&self) -> Instant {
        let shared = self.tiers.shared.as_ref();
        Instant::now() + shared.map(|shared| shared.deadline).unwrap_or_default()
    }

    /// Asks a tier for a key that the memory has nothing good of.
    pub(crate) async fn recall(&self, tier: Tier, key: &str, until: Instant) -> Recall {
        let found = |entries| Recall::Found(self.restore(key, entries));
        match tier {
            Tier::Disk => {
                let Some(disk) = &self.tiers.disk else { return Recall::Nothing };
                let entries = disk.look(key, self.moment()).await;
                if entries.is_empty() { Recall::Nothing } else { found(entries) }
            }
            Tier::Shared => {
                let Some(shared) = &self.tiers.shared else { return Recall::Nothing };
                match shared.look(key, self, until).await {
                    Look::Found(entries) => found(entries),
                    Look::Nothing => Recall::Nothing,
                    Look::Uncacheable => Recall::Uncacheable,
                    Look::Unavailable => Recall::Unavailable,
                }
            }
        }
    }

    /// Asks for the right to fetch a key, which one of those who share the tier has at a time.
    pub(crate) async fn lease(&self, key: &str, until: Instant) -> Leased {
        match &self.tiers.shared {
            Some(shared) => shared.lease(key, until).await,
            None => Leased::Unavailable,
        }
    }
}
