use std::io::{self, Write};

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

#[cfg(feature = "parquet")]
use crate::parquet::ParquetWriter;
use crate::{CacheResult, Invocation, Status, World};

/// How records are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values (RFC 4180) with a header line; an empty field is an absent value.
    Csv,
    /// One JSON object a line; absent values are left out.
    JsonLines,
    /// Apache Parquet, compressed with Snappy; absent values are null. Records are in the file when it is finished.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// Writes records one by one. It writes in small pieces: give it a buffered writer.
#[derive(Debug)]
pub struct RecordWriter<W: Write + Send> {
    output: Output<W>,
}

#[derive(Debug)]
enum Output<W: Write + Send> {
    Csv(Box<csv::Writer<W>>),
    JsonLines(W),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetWriter<W>>),
}

/// Why records could not be written: what the output said.
#[derive(Debug, thiserror::Error)]
#[error("cannot write records: {0}")]
pub struct WriteError(#[from] io::Error);

/// The columns of a record, in order; the names of the JSON fields too.
pub(crate) const COLUMNS: [&str; 26] = [
    "world",
    "id",
    "function",
    "route",
    "class",
    "scheduled_ns",
    "sent_ns",
    "received_ns",
    "queued_out_ns",
    "started_ns",
    "first_byte_ns",
    "finished_ns",
    "replica",
    "node",
    "attempts",
    "in_flight",
    "status",
    "code",
    "reason",
    "bytes_in",
    "bytes_out",
    "tokens_in",
    "tokens_out",
    "cache",
    "cache_key",
    "cold",
];

/// An [`Invocation`] with every column present, for CSV.
#[derive(Serialize)]
struct Row<'a> {
    world: World,
    id: u64,
    function: &'a str,
    route: Option<&'a str>,
    class: Option<&'a str>,
    scheduled: Option<Time>,
    sent: Option<Time>,
    received: Option<Time>,
    queued_out: Option<Time>,
    started: Option<Time>,
    first_byte: Option<Time>,
    finished: Option<Time>,
    replica: Option<u64>,
    node: Option<&'a str>,
    attempts: u32,
    in_flight: Option<u32>,
    status: Status,
    code: Option<u16>,
    reason: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    tokens_in: Option<u32>,
    tokens_out: Option<u32>,
    cache: Option<CacheResult>,
    cache_key: Option<u64>,
    cold: bool,
}

impl Format {
    /// The format that the ending of a file's name stands for: `.csv`, `.jsonl` and `.ndjson`, or `.parquet`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            #[cfg(feature = "parquet")]
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

impl<W: Write + Send> RecordWriter<W> {
    /// A writer of `format`; CSV begins with the names of the columns.
    ///
    /// # Errors
    /// When `output` fails.
    pub fn new(output: W, format: Format) -> Result<Self, WriteError> {
        let output = match format {
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(output);
                writer.write_record(COLUMNS).map_err(io::Error::from)?;
                Output::Csv(Box::new(writer))
            }
            Format::JsonLines => Output::JsonLines(output),
            #[cfg(feature = "parquet")]
            Format::Parquet => Output::Parquet(Box::new(ParquetWriter::new(output)?)),
        };
        Ok(Self { output })
    }

    /// Writes one record.
    ///
    /// # Errors
    /// When the output fails.
    pub fn write(&mut self, invocation: &Invocation) -> Result<(), WriteError> {
        match &mut self.output {
            Output::Csv(writer) => writer.serialize(row(invocation)).map_err(io::Error::from)?,
            Output::JsonLines(output) => {
                serde_json::to_writer(&mut *output, invocation).map_err(io::Error::from)?;
                output.write_all(b"\n")?;
            }
            #[cfg(feature = "parquet")]
            Output::Parquet(writer) => writer.write(invocation)?,
        }
        Ok(())
    }

    /// Passes on what is still buffered. A writer that is dropped without it may lose its last records.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(self) -> Result<(), WriteError> {
        match self.output {
            Output::Csv(mut writer) => writer.flush()?,
            Output::JsonLines(mut output) => output.flush()?,
            #[cfg(feature = "parquet")]
            Output::Parquet(writer) => writer.finish()?,
        }
        Ok(())
    }
}

fn row(invocation: &Invocation) -> Row<'_> {
    Row {
        world: invocation.world,
        id: invocation.id,
        function: &invocation.function,
        route: invocation.route.as_deref(),
        class: invocation.class.as_deref(),
        scheduled: invocation.scheduled,
        sent: invocation.sent,
        received: invocation.received,
        queued_out: invocation.queued_out,
        started: invocation.started,
        first_byte: invocation.first_byte,
        finished: invocation.finished,
        replica: invocation.replica,
        node: invocation.node.as_deref(),
        attempts: invocation.attempts,
        in_flight: invocation.in_flight,
        status: invocation.status,
        code: invocation.code,
        reason: invocation.reason.as_deref(),
        bytes_in: invocation.bytes_in,
        bytes_out: invocation.bytes_out,
        tokens_in: invocation.tokens_in,
        tokens_out: invocation.tokens_out,
        cache: invocation.cache,
        cache_key: invocation.cache_key,
        cold: invocation.cold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_the_format() {
        assert_eq!(Format::of_name("run.csv"), Some(Format::Csv));
        assert_eq!(Format::of_name("out.2/RUN.JSONL"), Some(Format::JsonLines));
        assert_eq!(Format::of_name("run.ndjson"), Some(Format::JsonLines));
        assert_eq!(Format::of_name("run.json"), None, "that would be one document");
        assert_eq!(Format::of_name("csv"), None);
    }

    #[test]
    fn an_output_that_fails_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("no space left"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let formats = [
            Format::Csv,
            Format::JsonLines,
            #[cfg(feature = "parquet")]
            Format::Parquet,
        ];
        for format in formats {
            let write = |mut writer: RecordWriter<Full>| {
                writer.write(&Invocation::default())?;
                writer.finish()
            };
            let error = RecordWriter::new(Full, format).and_then(write).unwrap_err();
            assert_eq!(error.to_string(), "cannot write records: no space left", "{format:?}");
        }
    }
}
