//! Files that a command writes: there whole, or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gatewright_record::{Format, RecordWriter, WriteError};

use crate::failure::{Failure, Outcome};

/// Records on their way into a file: they appear under its name when they are complete.
#[derive(Debug)]
pub(crate) struct RecordFile {
    writer: RecordWriter<BufWriter<File>>,
    draft: Draft,
}

/// A file under another name, that gets its own when it is complete, and is removed if it never is.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    draft: PathBuf,
    complete: bool,
    kept: bool,
}

impl RecordFile {
    /// A file of records in the format that its name's ending stands for.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let name = path.to_string_lossy();
        let format = Format::of_name(&name).ok_or_else(|| {
            Failure::usage(format!("{name}: its name says no format of records"))
                .hint("end it in .csv, .jsonl or .parquet")
        })?;
        let (draft, file) = Draft::create(path)?;
        let writer = RecordWriter::new(BufWriter::new(file), format)
            .map_err(|fault| Failure::failed(format!("{name}: {fault}")))?;
        Ok(Self { writer, draft })
    }

    pub(crate) fn writer(&mut self) -> &mut RecordWriter<BufWriter<File>> {
        &mut self.writer
    }

    /// Gives the file its name.
    pub(crate) fn finish(self) -> Outcome<()> {
        let Self { writer, mut draft } = self;
        let written = writer.finish().and_then(|()| draft.complete().map_err(WriteError::from));
        written.map_err(|fault| Failure::failed(format!("{}: {fault}", draft.path.display())))
    }
}

/// Writes a file in one go.
pub(crate) fn write(path: &Path, text: &str) -> Outcome<()> {
    write_bytes(path, text.as_bytes())
}

/// The same of what is no text.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let (mut draft, mut file) = Draft::create(path)?;
    file.write_all(bytes)
        .and_then(|()| draft.complete())
        .map_err(|fault| Failure::of_writing(path, &fault))
}

impl Draft {
    pub(crate) fn create(path: &Path) -> Outcome<(Self, File)> {
        Self::open(path, |draft| File::create(draft))
    }

    /// Goes on with what there is of it: its first `length` bytes.
    pub(crate) fn go_on(path: &Path, length: u64) -> Outcome<(Self, File)> {
        Self::open(path, |draft| {
            let mut file = File::options().write(true).create(true).truncate(false).open(draft)?;
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        })
    }

    fn open(path: &Path, open: impl Fn(&Path) -> io::Result<File>) -> Outcome<(Self, File)> {
        let refused = |fault: io::Error| Failure::of_writing(path, &fault);
        if path.is_dir() {
            return Err(refused(io::ErrorKind::IsADirectory.into()));
        }
        let draft = Self::name(path);
        let file = open(&draft).map_err(refused)?;
        let complete = draft == path;
        Ok((Self { path: path.to_owned(), draft, complete, kept: false }, file))
    }

    /// The name of a file until it is complete; its own for pipes and devices, which are written to as they are.
    pub(crate) fn name(path: &Path) -> PathBuf {
        let mut draft = path.as_os_str().to_owned();
        if !path.metadata().is_ok_and(|about| !about.is_file()) {
            draft.push(".partial");
        }
        PathBuf::from(draft)
    }

    /// What there is of it stays, even if it is never completed.
    pub(crate) const fn keep(mut self) -> Self {
        self.kept = true;
        self
    }

    pub(crate) fn complete(&mut self) -> io::Result<()> {
        if !self.complete {
            std::fs::rename(&self.draft, &self.path)?;
            self.complete = true;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.complete && !self.kept {
            // What is left of a run that failed; if it cannot be removed, its name says what it is.
            drop(std::fs::remove_file(&self.draft));
        }
    }
}
