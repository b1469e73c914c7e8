use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use gatewright_record::parquet_rows;
use serde::Deserializer as _;
use serde_json::{Map, Value};

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct DataError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl DataError {
    pub(super) fn of(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

/// A file of rows, read where a row stands. Only where every 32nd row begins is kept, a quarter of a byte a row.
#[derive(Clone, Debug)]
pub struct RowFile {
    rows: Arc<Rows>,
    /// The rows of one piece, as it was read last.
    piece: u64,
    texts: Vec<String>,
    /// The row that was understood last.
    row: Option<u64>,
    values: Map<String, Value>,
}

#[derive(Debug)]
struct Rows {
    path: PathBuf,
    kind: Kind,
    file: File,
    /// Columns of the first row.
    names: Vec<String>,
    /// Where pieces of rows begin, and where the last one ends.
    starts: Vec<u64>,
    count: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Csv { header: Vec<String> },
    JsonLines,
}

/// Rows of a piece.
const PIECE: u64 = 32;
const MAX_ROW: usize = 64 << 20;

impl RowFile {
    /// Finds the rows of a file.
    ///
    /// # Errors
    /// It cannot be read, its name says no format, it has no row, or a row is none.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let fail = |what: String| DataError::of(path, what);
        let file = File::open(path).map_err(|fault| fail(fault.to_string()))?;
        let is_packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
        let name = if is_packed { path.with_extension("") } else { path.to_owned() };
        let ending = name.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let file = if is_packed { unpacked(|out| unzip(file, out)).map_err(fail)? } else { file };
        let kind = match ending.as_str() {
            "txt" | "text" => Kind::Text,
            "csv" => Kind::Csv { header: Vec::new() },
            "jsonl" | "ndjson" | "json" | "parquet" => Kind::JsonLines,
            _ => {
                let what = "its name says no format of data; \
                            end it in .txt, .csv, .jsonl, .json or .parquet, perhaps with .gz behind";
                return Err(fail(what.into()));
            }
        };
        let file = match ending.as_str() {
            "json" => unpacked(|out| unpack_list(file, out)).map_err(fail)?,
            "parquet" => unpacked(|out| unpack_parquet(file, out)).map_err(fail)?,
            _ => file,
        };
        let rows = indexed(path, file, kind)?;
        if rows.count == 0 {
            return Err(fail("it has no rows".into()));
        }
        let rows = Arc::new(rows);
        Ok(Self { rows, piece: u64::MAX, texts: Vec::new(), row: None, values: Map::new() })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.rows.path
    }

    /// Number of rows, at least 1.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.count
    }

    /// Whether the first row has this column.
    pub(super) fn has_column(&self, name: &str) -> bool {
        self.rows.names.iter().any(|own| own == name)
    }

    pub(crate) fn check_column(&self, name: &str) -> Result<(), DataError> {
        let fail = || {
            let what = format!("it has no column \"{name}\"; data.columns maps other names to it");
            DataError::of(&self.rows.path, what)
        };
        self.has_column(name).then_some(()).ok_or_else(fail)
    }

    /// What stands in `column` of row `row`; empty where nothing does.
    pub(crate) fn value(&mut self, row: u64, column: &str) -> Cow<'_, str> {
        if self.row != Some(row) {
            self.row = Some(row);
            if let Err(what) = self.understand(row) {
                tracing::warn!(row, what, path = %self.rows.path.display(), "a row of data cannot be used");
                self.values.clear();
            }
        }
        match self.values.get(column) {
            Some(Value::String(text)) => Cow::Borrowed(text),
            None | Some(Value::Null) => Cow::Borrowed(""),
            Some(other) => Cow::Owned(other.to_string()),
        }
    }

    fn understand(&mut self, row: u64) -> Result<(), String> {
        let rows = Arc::clone(&self.rows);
        if self.piece != row / PIECE {
            self.texts = read(&rows.file, &rows.starts, row / PIECE, &rows.kind)
                .map_err(|fault| fault.to_string())?;
            self.piece = row / PIECE;
        }
        let text = self.texts.get((row % PIECE) as usize).ok_or("the file has become shorter")?;
        self.values = parse(text, &rows.kind)?;
        Ok(())
    }
}

fn parse(text: &str, kind: &Kind) -> Result<Map<String, Value>, String> {
    match kind {
        Kind::Text => Ok(Map::from_iter([("prompt".to_owned(), Value::from(text))])),
        Kind::JsonLines => serde_json::from_str(text).map_err(|fault| fault.to_string()),
        Kind::Csv { header } => {
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .from_reader(text.as_bytes());
            let record = reader.records().next().ok_or("it is empty")?;
            let record = record.map_err(|fault| fault.to_string())?;
            let pairs = header.iter().cloned().zip(record.iter().map(Value::from));
            Ok(pairs.collect())
        }
    }
}

fn read(file: &File, starts: &[u64], piece: u64, kind: &Kind) -> io::Result<Vec<String>> {
    let piece = piece as usize;
    let (Some(&start), Some(&end)) = (starts.get(piece), starts.get(piece + 1)) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let mut bytes = vec![0; (end - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    let mut rows = Vec::with_capacity(PIECE as usize);
    let mut input = bytes.as_slice();
    while let Some((row, _)) = next_row(&mut input, kind)? {
        if !row.trim().is_empty() {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The next row and how many bytes it takes; a row of CSV goes on while a quotation mark is open.
fn next_row(input: &mut impl io::BufRead, kind: &Kind) -> io::Result<Option<(String, u64)>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        input.read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let quotes = bytes.iter().filter(|byte| **byte == b'"').count();
        let open = matches!(kind, Kind::Csv { .. }) && quotes % 2 == 1;
        if !open || bytes.len() == before || bytes.len() > MAX_ROW {
            break;
        }
    }
    let count = bytes.len() as u64;
    let text = String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))?;
    Ok(Some((text.trim_end_matches(['\n', '\r']).to_owned(), count)))
}

fn indexed(path: &Path, file: File, mut kind: Kind) -> Result<Rows, DataError> {
    let fail = |what: String| DataError::of(path, what);
    let handle = file.try_clone().map_err(|fault| fail(fault.to_string()))?;
    let mut input = BufReader::with_capacity(1 << 18, handle);
    let (mut at, mut count, mut line) = (0, 0, 0u64);
    let (mut starts, mut names) = (Vec::new(), Vec::new());
    while let Some((row, bytes)) =
        next_row(&mut input, &kind).map_err(|fault| fail(fault.to_string()))?
    {
        line += 1;
        let is_header = matches!(&kind, Kind::Csv { header } if header.is_empty());
        if is_header {
            let named =
                parse(&row, &Kind::Csv { header: (0..4_096).map(|n| n.to_string()).collect() })
                    .map_err(&fail)?;
            let mut header: Vec<_> = named
                .into_iter()
                .map(|(n, name)| (n.parse::<usize>().unwrap_or(0), name))
                .collect();
            header.sort_by_key(|(n, _)| *n);
            let header =
                header.into_iter().filter_map(|(_, name)| Some(name.as_str()?.trim().to_owned()));
            kind = Kind::Csv { header: header.collect() };
        } else if !row.trim().is_empty() {
            if count == 0 {
                let first =
                    parse(&row, &kind).map_err(|what| fail(format!("line {line}: {what}")))?;
                names = first.into_iter().map(|(name, _)| name).collect();
            }
            if count % PIECE == 0 {
                starts.push(at);
            }
            count += 1;
        }
        at += bytes;
    }
    starts.push(at);
    if let Kind::Csv { header } = &kind {
        names.clone_from(header);
    }
    Ok(Rows { path: path.to_owned(), kind, file, names, starts, count })
}

/// A format whose rows have no places of their own becomes lines of JSON in a file without a name, which is gone with the
/// process: memory does not grow with it.
fn unpacked(
    unpack: impl FnOnce(&mut BufWriter<&File>) -> Result<(), String>,
) -> Result<File, String> {
    let told = |fault: io::Error| format!("a copy of its rows cannot be kept: {fault}");
    let mut file = tempfile::tempfile().map_err(told)?;
    let mut out = BufWriter::with_capacity(1 << 18, &file);
    unpack(&mut out)?;
    out.flush().map_err(told)?;
    drop(out);
    file.rewind().map_err(told)?;
    Ok(file)
}

fn unzip(file: File, out: &mut impl Write) -> Result<(), String> {
    let mut input = MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file));
    io::copy(&mut input, out).map_err(|fault| format!("it cannot be unzipped: {fault}"))?;
    Ok(())
}

fn unpack_parquet(file: File, out: &mut impl Write) -> Result<(), String> {
    for row in parquet_rows(file)? {
        write_row(&row?, out).map_err(|fault| fault.to_string())?;
    }
    Ok(())
}

fn unpack_list(file: File, out: &mut impl Write) -> Result<(), String> {
    let mut list = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 18, file));
    let read = list.deserialize_seq(EachRow(out)).and_then(|()| list.end());
    read.map_err(|fault| format!("it is no list of objects: {fault}"))
}

fn write_row(row: &Map<String, Value>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

/// Writes every row of a list as soon as it is read.
struct EachRow<'a, W>(&'a mut W);

impl<'de, W: Write> serde::de::Visitor<'de> for EachRow<'_, W> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(row) = list.next_element::<Map<String, Value>>()? {
            write_row(&row, self.0).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
