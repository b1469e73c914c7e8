use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{Store, disk, shared};

/// The store in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    keys: usize,
    pub(crate) bytes: u64,
    memory: u64,
    stored: u64,
    pub(crate) evicted: u64,
    purged: u64,
    revalidations: u64,
    fetching: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<disk::Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<shared::Stats>,
}

/// A tier behind the memory in numbers, for metrics.
#[derive(Debug)]
pub(crate) struct TierNumbers {
    pub(crate) name: &'static str,
    pub(crate) up: bool,
    pub(crate) results: Vec<(&'static str, u64)>,
}

impl Stats {
    /// The tiers there are.
    pub(crate) fn tiers(&self) -> impl Iterator<Item = TierNumbers> {
        let disk = self.disk.as_ref().map(|disk| TierNumbers {
            name: "disk",
            up: true,
            results: vec![
                ("hit", disk.hits),
                ("miss", disk.misses),
                ("written", disk.written),
                ("dropped", disk.dropped),
                ("failed", disk.failed),
                ("torn", disk.torn),
            ],
        });
        let shared = self.shared.as_ref().map(|shared| TierNumbers {
            name: "shared",
            up: shared.up,
            results: vec![
                ("hit", shared.hits),
                ("miss", shared.misses),
                ("written", shared.written),
                ("dropped", shared.dropped),
                ("refused", shared.refused),
                ("failed", shared.failed),
                ("given_up", shared.given_up),
                ("waited", shared.waited),
            ],
        });
        disk.into_iter().chain(shared)
    }
}

impl Store {
    /// The store in numbers.
    pub(crate) fn stats(&self) -> Stats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            keys: self.lines.len(),
            bytes: self.lines.bytes(),
            memory: self.lines.memory(),
            stored: count(&self.counts.stored),
            evicted: self.lines.evicted(),
            purged: count(&self.counts.purged),
            revalidations: count(&self.counts.revalidations),
            fetching: self.flights.lock().len(),
            disk: self.tiers.disk().map(disk::Disk::stats),
            shared: self.tiers.shared().map(|shared| shared.stats()),
        }
    }
}
