//! The tier on disk, which outlives the gateway.
//!
//! ```text
//! FOLDER/lock      held by the one gateway that uses the folder
//! FOLDER/purges    the purges of late, a line each: what was asked for before one of them is as good as gone
//! FOLDER/3f/9c...  the responses of one key, each with its checksum (`saved`)
//! ```
//!
//! Writing is done by a thread behind the requests' backs. A file is written beside its place and then moved there,
//! so that a gateway that is killed leaves it whole or not at all; what a machine that loses power leaves torn has
//! another checksum, and is not read. The files written longest ago go when there is no more room.

mod log;
mod writer;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::{Buf, Bytes};
use gatewright_control::cache::Moment;
use gatewright_control::config;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use self::log::Log;
use self::writer::{Files, Job};
use super::purge::{Purge, Purges};
use super::{Entry, Line, number, saved};

/// Responses that wait to be written, and the bytes of theirs; beyond, they are not written.
const QUEUED: usize = 1024;
const QUEUED_BYTES: u64 = 64 * 1024 * 1024;

/// The tier on disk.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    jobs: SyncSender<Job>,
    files: Arc<Files>,
    log: Arc<Mutex<Log>>,
    /// What the log held when it was opened, until the store has it.
    purges: Mutex<Purges<u64>>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Held until everything was written for the last time.
    lock: Mutex<Option<File>>,
}

/// The tier in numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub(crate) keys: usize,
    pub(crate) bytes: u64,
    pub(crate) size: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) written: u64,
    /// Responses that were not written because too many waited.
    pub(crate) dropped: u64,
    /// Files that could not be written or removed.
    pub(crate) failed: u64,
    /// Files that could not be read: torn, or of another version.
    pub(crate) torn: u64,
}

impl Disk {
    /// Opens the tier, with what it holds.
    pub(super) fn open(described: &config::Disk, base_dir: &Path) -> io::Result<Self> {
        let folder = base_dir.join(&described.path);
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another gateway uses it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (log, purges) = Log::open(&folder.join("purges"))?;
        let files = Arc::new(Files::new(folder.clone(), described.size.bytes()));
        let (jobs, work) = sync_channel(QUEUED);
        let writes = Arc::clone(&files);
        std::thread::Builder::new()
            .name("disk tier".to_owned())
            .spawn(move || writes.work(&work))?;
        Ok(Self {
            folder,
            jobs,
            files,
            log: Arc::new(Mutex::new(log)),
            purges: Mutex::new(purges),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// The purges that its responses are to be compared with, once.
    pub(super) fn purges(&self) -> Purges<u64> {
        std::mem::take(&mut *self.purges.lock())
    }

    /// What it has of a key.
    pub(super) async fn look(&self, key: &str, moment: Moment) -> Vec<Entry> {
        let number = number(key.as_bytes());
        if !self.files.may_have(number) {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let place = writer::place(number);
        let read = tokio::fs::read(self.folder.join(&place)).await;
        let mut entries = Vec::new();
        if let Ok(bytes) = read {
            let mut bytes = Bytes::from(bytes);
            while !bytes.is_empty() {
                match saved::read(&bytes, moment) {
                    Ok(read) => {
                        bytes.advance(read.length);
                        // Another key may have the same number.
                        if read.key == key {
                            entries.push(read.entry);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, file = %place.display(), "a stored response is dropped");
                        self.files.torn.fetch_add(1, Ordering::Relaxed);
                        self.forget(key);
                        break;
                    }
                }
            }
        }
        let count = if entries.is_empty() { &self.misses } else { &self.hits };
        count.fetch_add(1, Ordering::Relaxed);
        entries
    }

    /// Writes the responses of a key behind the requests' backs, if not too many wait.
    pub(super) fn keep(&self, key: &str, line: &Arc<Line>, moment: Moment) {
        if self.lock.lock().is_none() {
            return;
        }
        let bytes = line.weight(key) as u64;
        let queued = self.files.queued.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (key, line) = (key.into(), Arc::clone(line));
        let job = Job::Write { key, line, bytes, anchor: moment.anchor };
        if queued > QUEUED_BYTES || self.jobs.try_send(job).is_err() {
            self.files.queued.fetch_sub(bytes, Ordering::Relaxed);
            self.files.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn forget(&self, key: &str) {
        // If there is no room, it is found again.
        drop(self.jobs.try_send(Job::Remove { number: number(key.as_bytes()) }));
    }

    /// Writes a purge down: from now on it holds for what is on disk, whatever happens to the gateway.
    pub(super) fn log(&self, mark: u64, purge: &Purge) {
        if let Err(error) = self.log.lock().note(mark, purge) {
            tracing::error!(%error, "a purge was not written to the disk tier: it does not outlive this run");
        }
    }

    /// Waits until purges are written so that they outlive the machine too. Whether they are.
    pub(super) async fn settle(&self) -> bool {
        let log = Arc::clone(&self.log);
        let synced = tokio::task::spawn_blocking(move || log.lock().sync()).await;
        matches!(synced, Ok(Ok(())))
    }

    /// Waits until everything that was to be written is; then the folder is free for another gateway.
    pub(super) async fn finish(&self) {
        let (done, written) = oneshot::channel();
        let jobs = self.jobs.clone();
        let sent = tokio::task::spawn_blocking(move || jobs.send(Job::Flush { done })).await;
        if matches!(sent, Ok(Ok(()))) {
            // The thread cannot be gone while its sender is here; if it is, nothing is to be waited for.
            drop(written.await);
        }
        self.lock.lock().take();
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (keys, bytes) = self.files.held();
        Stats {
            keys,
            bytes,
            size: self.files.size,
            hits: count(&self.hits),
            misses: count(&self.misses),
            written: count(&self.files.written),
            dropped: count(&self.files.dropped),
            failed: count(&self.files.failed),
            torn: count(&self.files.torn),
        }
    }
}
