//! Reads files of records.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use gatewright_record::{Format, Invocation, ReadError, ReplicaEvent, read_parquet, read_records};

use crate::failure::{Failure, Outcome};

/// Whether a file's name says that it has records.
pub(crate) fn are_in(path: &Path) -> bool {
    Format::of_name(&path.to_string_lossy()).is_some()
}

/// Gives every record of a file to `take`, in order.
pub(crate) fn each(path: &Path, mut take: impl FnMut(Invocation)) -> Outcome<()> {
    let name = path.display();
    let format = Format::of_name(&path.to_string_lossy()).ok_or_else(|| {
        Failure::usage(format!("{name}: its name says no format of records"))
            .hint("records are in files that end in .csv, .jsonl or .parquet")
    })?;
    let file = File::open(path).map_err(|fault| Failure::of_reading(path, &fault))?;
    let wrong = |fault: ReadError| {
        Failure::usage(format!("{name}: {fault}"))
            .hint("records are written by `serve`, `bench` and `simulate` with --records")
    };
    if format == Format::Parquet {
        for record in read_parquet(file).map_err(wrong)? {
            take(record.map_err(wrong)?);
        }
        return Ok(());
    }
    for record in read_records(BufReader::new(file), format) {
        take(record.map_err(wrong)?);
    }
    Ok(())
}

/// What happened to replicas, as a gateway wrote it; nothing where there is no such file.
pub(crate) fn lives(path: &Path) -> Outcome<Vec<ReplicaEvent>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(|fault| Failure::of_reading(path, &fault))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|fault| {
            Failure::usage(format!("{}: line {}: {fault}", path.display(), number + 1))
                .hint("it is written by `serve` with --records FOLDER")
        })
    };
    text.lines().enumerate().map(line).collect()
}
