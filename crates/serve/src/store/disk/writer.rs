use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use gatewright_control::cache::WallAnchor;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::store::{Line, number, saved};

/// What a file takes on disk is a multiple of this.
const BLOCK: u64 = 4096;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    Write {
        key: Arc<str>,
        line: Arc<Line>,
        bytes: u64,
        anchor: WallAnchor,
    },
    Remove {
        number: u64,
    },
    /// Say when all before it is done.
    Flush {
        done: oneshot::Sender<()>,
    },
}

/// The files of the tier.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    pub(super) size: u64,
    held: Mutex<Held>,
    /// Bytes that wait to be written.
    pub(super) queued: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) torn: AtomicU64,
}

/// What is there.
#[derive(Debug, Default)]
struct Held {
    /// Bytes of each, and which place in the order is its own.
    files: HashMap<u64, (u64, u64)>,
    /// In the order of their writing. A place that is another one's by now is passed over.
    order: VecDeque<(u64, u64)>,
    bytes: u64,
    next: u64,
    /// Nothing is there but these.
    complete: bool,
}

/// Where the responses of the key of this number are, from the folder of the tier.
pub(super) fn place(number: u64) -> PathBuf {
    Path::new(&format!("{:02x}", number >> 56)).join(format!("{number:016x}"))
}

impl Held {
    fn add(&mut self, number: u64, bytes: u64) {
        self.remove(number);
        self.files.insert(number, (bytes, self.next));
        self.order.push_back((number, self.next));
        self.bytes += bytes;
        self.next += 1;
        if self.order.len() > 2 * self.files.len() + 64 {
            let files = &self.files;
            self.order
                .retain(|(number, place)| files.get(number).is_some_and(|own| own.1 == *place));
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some((bytes, _)) = self.files.remove(&number) {
            self.bytes -= bytes;
        }
    }

    /// The one written longest ago.
    fn oldest(&mut self) -> Option<u64> {
        while let Some((number, place)) = self.order.pop_front() {
            if self.files.get(&number).is_some_and(|own| own.1 == place) {
                return Some(number);
            }
        }
        None
    }
}

impl Files {
    pub(super) fn new(folder: PathBuf, size: u64) -> Self {
        Self {
            folder,
            size,
            held: Mutex::default(),
            queued: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            torn: AtomicU64::new(0),
        }
    }

    /// Whether the key of this number is there, as far as that is known.
    pub(super) fn may_have(&self, number: u64) -> bool {
        let held = self.held.lock();
        !held.complete || held.files.contains_key(&number)
    }

    /// Keys and bytes that are there.
    pub(super) fn held(&self) -> (usize, u64) {
        let held = self.held.lock();
        (held.files.len(), held.bytes)
    }

    /// Does what comes, until nobody is left to send more.
    pub(super) fn work(&self, jobs: &Receiver<Job>) {
        if let Err(error) = self.take_stock() {
            self.note_failure("the folder of the disk tier cannot be read", &error);
        }
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Write { key, line, bytes, anchor } => {
                    if let Err(error) = self.write(&key, &line, anchor) {
                        self.note_failure("a response was not written to the disk tier", &error);
                    }
                    self.queued.fetch_sub(bytes, Ordering::Relaxed);
                }
                Job::Remove { number } => self.remove(number),
                // Whoever asked may have gone.
                Job::Flush { done } => drop(done.send(())),
            }
        }
    }

    /// What an earlier gateway left.
    fn take_stock(&self) -> io::Result<()> {
        let mut found: Vec<(SystemTime, u64, u64)> = Vec::new();
        for part in fs::read_dir(&self.folder)? {
            let part = part?.path();
            if !part.is_dir() {
                continue;
            }
            for file in fs::read_dir(part)? {
                let file = file?;
                let name = file.file_name();
                let number = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
                let Some(number) = number else {
                    // It was being written when the gateway was killed.
                    fs::remove_file(file.path())?;
                    continue;
                };
                let about = file.metadata()?;
                found.push((about.modified()?, number, taken(about.len())));
            }
        }
        found.sort_unstable();
        let mut held = self.held.lock();
        found.into_iter().for_each(|(_, number, bytes)| held.add(number, bytes));
        held.complete = true;
        drop(held);
        self.make_room(0);
        Ok(())
    }

    fn write(&self, key: &str, line: &Line, anchor: WallAnchor) -> io::Result<()> {
        let number = number(key.as_bytes());
        let variants = line.variants.iter();
        let parts: Vec<_> =
            variants.filter_map(|variant| saved::write(key, &variant.0, anchor)).collect();
        let whole = parts.concat();
        let bytes = taken(whole.len() as u64);
        if bytes > self.size {
            self.remove(number);
            return Ok(());
        }
        self.held.lock().remove(number);
        self.make_room(bytes);
        let path = self.folder.join(place(number));
        let beside = path.with_extension("new");
        let moved = fs::write(&beside, &whole).and_then(|()| fs::rename(&beside, &path));
        let written = match moved {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                fs::write(&beside, &whole).and_then(|()| fs::rename(&beside, &path))
            }
            moved => moved,
        };
        if let Err(error) = written {
            // Half of it would take room that nobody knows of, and an older one would be taken for this.
            drop(fs::remove_file(&beside));
            drop(fs::remove_file(&path));
            return Err(error);
        }
        self.held.lock().add(number, bytes);
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the oldest files until so many bytes find room.
    fn make_room(&self, bytes: u64) {
        loop {
            let mut held = self.held.lock();
            if held.bytes + bytes <= self.size {
                return;
            }
            let Some(number) = held.oldest() else { return };
            drop(held);
            self.remove(number);
        }
    }

    fn remove(&self, number: u64) {
        match fs::remove_file(self.folder.join(place(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.note_failure("a file of the disk tier cannot be removed", &error);
            }
            _ => {}
        }
        self.held.lock().remove(number);
    }

    fn note_failure(&self, what: &str, error: &io::Error) {
        let before = self.failed.fetch_add(1, Ordering::Relaxed);
        // Said at the first one and then ever more rarely.
        if (before + 1).is_power_of_two() {
            tracing::warn!(%error, failed = before + 1, "{what}");
        }
    }
}

fn taken(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_one_that_is_written_again_is_new() {
        let mut held = Held::default();
        (0..4).for_each(|number| held.add(number, 10));
        held.add(0, 20);
        assert_eq!(held.bytes, 50);
        assert_eq!(held.oldest(), Some(1));
        held.remove(1);
        held.remove(2);
        assert_eq!(held.oldest(), Some(3));
        (0..10_000).for_each(|_| held.add(0, 20));
        assert!(held.order.len() < 100, "the order does not grow with rewriting");
    }
}
