//! Reads files of records.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use gatewright_record::{Format, Invocation, read_records};

use crate::failure::{Failure, Outcome};

/// Gives every record of a file to `take`, in order.
pub(crate) fn each(path: &Path, mut take: impl FnMut(Invocation)) -> Outcome<()> {
    let name = path.display();
    let format = Format::of_name(&path.to_string_lossy()).ok_or_else(|| {
        Failure::usage(format!("{name}: its name says no format of records"))
            .hint("records are in files that end in .csv or .jsonl")
    })?;
    let file = File::open(path).map_err(|fault| Failure::of_reading(path, &fault))?;
    for record in read_records(BufReader::new(file), format) {
        let record = record.map_err(|fault| {
            Failure::usage(format!("{name}: {fault}"))
                .hint("records are written by `serve`, `bench` and `simulate` with --records")
        })?;
        take(record);
    }
    Ok(())
}
