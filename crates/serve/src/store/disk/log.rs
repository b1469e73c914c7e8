use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::purge::{Purge, Purges, RECENT};

/// The purges of late, written down.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    lines: Vec<Noted>,
    floor: u64,
}

/// A line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Noted {
    /// All that was asked for before this mark counts as purged.
    Floor(u64),
    Purge {
        mark: u64,
        purge: Purge,
    },
}

impl Log {
    /// Opens a log, or begins one; what it holds.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Purges<u64>)> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let (mut purges, mut lines, mut floor) = (Purges::default(), Vec::new(), 0);
        // A line that a killed gateway did not finish is not one yet: nobody was told that it was purged.
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Noted::Floor(mark) => {
                    floor = mark;
                    purges.forget_until(mark);
                }
                Noted::Purge { mark, ref purge } => {
                    purges.note(mark, purge.clone());
                    lines.push(line);
                }
            }
        }
        let mut log = Self { path: path.to_owned(), file: File::open("/dev/null")?, lines, floor };
        log.rewrite()?;
        Ok((log, purges))
    }

    /// Writes a purge down.
    pub(super) fn note(&mut self, mark: u64, purge: &Purge) -> io::Result<()> {
        let line = Noted::Purge { mark, purge: purge.clone() };
        self.file.write_all(text(&line).as_bytes())?;
        self.lines.push(line);
        if self.lines.len() > 2 * RECENT { self.rewrite() } else { Ok(()) }
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes it anew with the last of its lines, beside its place and then there.
    fn rewrite(&mut self) -> io::Result<()> {
        if self.lines.len() > RECENT {
            let kept = self.lines.split_off(self.lines.len() - RECENT);
            if let Some(Noted::Purge { mark, .. }) = self.lines.last() {
                self.floor = *mark;
            }
            self.lines = kept;
        }
        let beside = self.path.with_extension("new");
        let mut whole = text(&Noted::Floor(self.floor));
        self.lines.iter().for_each(|line| whole.push_str(&text(line)));
        fs::write(&beside, whole)?;
        self.file = OpenOptions::new().append(true).open(&beside)?;
        self.file.sync_data()?;
        fs::rename(&beside, &self.path)
    }
}

fn text(line: &Noted) -> String {
    let mut text = serde_json::to_string(line).expect("strings and numbers are always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::purge::{Fate, Matcher};

    fn of(path: &str) -> Purge {
        Purge { matcher: Matcher::Path(path.to_owned()), soft: false }
    }

    #[test]
    fn purges_outlive_the_gateway() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let (mut log, purges) = Log::open(&path).unwrap();
        assert_eq!(purges.last(), None);
        log.note(1, &of("/a")).unwrap();
        log.note(2, &of("/b")).unwrap();
        drop(log);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"purge\":{\"mark\":3,");
        fs::write(&path, torn).unwrap();

        let (mut log, purges) = Log::open(&path).unwrap();
        assert_eq!(purges.last(), Some(2));
        assert_eq!(purges.fate("http://h/a", &[], 0), Fate::Purged);
        assert_eq!(purges.fate("http://h/a", &[], 1), Fate::Kept);
        log.note(3, &of("/c")).unwrap();
        assert_eq!(Log::open(&path).unwrap().1.last(), Some(3), "after a torn line");
    }

    #[test]
    fn a_long_log_is_cut_and_what_is_older_counts_as_purged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("purges");
        let (mut log, _) = Log::open(&path).unwrap();
        let last = 2 * RECENT as u64 + 10;
        (1..=last).for_each(|mark| log.note(mark, &of("/a")).unwrap());
        drop(log);
        let (log, purges) = Log::open(&path).unwrap();
        assert!(log.lines.len() <= RECENT);
        assert_eq!(purges.fate("http://h/b", &[], 1), Fate::Purged);
        assert_eq!(purges.fate("http://h/b", &[], last - 1), Fate::Kept);
    }
}
