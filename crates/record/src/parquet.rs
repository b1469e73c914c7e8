//! Records as Apache Parquet: the same columns in groups of rows, so that neither side holds a whole file in memory.

use std::io::{self, Write};
use std::sync::Arc;

use gatewright_determinism::Time;
use parquet::basic::Compression;
use parquet::column::writer::{ColumnWriter, ColumnWriterImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

use crate::read::{ReadError, disorder};
use crate::{Invocation, World};

const SCHEMA: &str = "message record {
    REQUIRED BYTE_ARRAY world (UTF8);
    REQUIRED INT64 id (INTEGER(64,false));
    REQUIRED BYTE_ARRAY function (UTF8);
    OPTIONAL BYTE_ARRAY route (UTF8);
    OPTIONAL BYTE_ARRAY class (UTF8);
    OPTIONAL INT64 scheduled_ns (INTEGER(64,false));
    OPTIONAL INT64 sent_ns (INTEGER(64,false));
    OPTIONAL INT64 received_ns (INTEGER(64,false));
    OPTIONAL INT64 queued_out_ns (INTEGER(64,false));
    OPTIONAL INT64 started_ns (INTEGER(64,false));
    OPTIONAL INT64 first_byte_ns (INTEGER(64,false));
    OPTIONAL INT64 finished_ns (INTEGER(64,false));
    OPTIONAL INT64 replica (INTEGER(64,false));
    OPTIONAL BYTE_ARRAY node (UTF8);
    REQUIRED INT32 attempts (INTEGER(32,false));
    OPTIONAL INT32 in_flight (INTEGER(32,false));
    REQUIRED BYTE_ARRAY status (UTF8);
    OPTIONAL INT32 code (INTEGER(16,false));
    OPTIONAL BYTE_ARRAY reason (UTF8);
    REQUIRED INT64 bytes_in (INTEGER(64,false));
    REQUIRED INT64 bytes_out (INTEGER(64,false));
    OPTIONAL INT32 tokens_in (INTEGER(32,false));
    OPTIONAL INT32 tokens_out (INTEGER(32,false));
    OPTIONAL BYTE_ARRAY cache (UTF8);
    OPTIONAL INT64 cache_key (INTEGER(64,false));
    REQUIRED BOOLEAN cold;
}";

/// Rows of a group: some megabytes while it is put together.
const GROUP: usize = 16_384;

/// Writes groups of records.
#[derive(Debug)]
pub(crate) struct ParquetWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<Invocation>,
}

/// What stands in a column of a record.
enum Cell<'a> {
    None,
    Number(u64),
    Text(&'a str),
    Flag(bool),
}

impl<W: Write + Send> ParquetWriter<W> {
    pub(crate) fn new(output: W) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(told)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(output, schema, Arc::new(properties));
        Ok(Self { writer: writer.map_err(told)?, rows: Vec::new() })
    }

    pub(crate) fn write(&mut self, invocation: &Invocation) -> io::Result<()> {
        self.rows.push(invocation.clone());
        if self.rows.len() < GROUP { Ok(()) } else { self.write_group().map_err(told) }
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        let written = if self.rows.is_empty() { Ok(()) } else { self.write_group() };
        written.and_then(|()| self.writer.finish().map(drop)).map_err(told)?;
        self.writer.inner_mut().flush()
    }

    fn write_group(&mut self) -> ParquetResult<()> {
        let mut group = self.writer.next_row_group()?;
        let mut nth = 0;
        while let Some(mut column) = group.next_column()? {
            let cells = self.rows.iter().map(|row| cell(row, nth));
            let number = |cell: &Cell<'_>| match cell {
                Cell::Number(number) => Some(*number),
                _ => None,
            };
            match column.untyped() {
                ColumnWriter::Int64ColumnWriter(column) => {
                    fill(column, cells, |cell| number(cell).map(u64::cast_signed))?;
                }
                ColumnWriter::Int32ColumnWriter(column) => {
                    fill(column, cells, |cell| {
                        number(cell).map(|number| (number as u32).cast_signed())
                    })?;
                }
                ColumnWriter::BoolColumnWriter(column) => {
                    fill(column, cells, |cell| match cell {
                        Cell::Flag(flag) => Some(*flag),
                        _ => None,
                    })?;
                }
                ColumnWriter::ByteArrayColumnWriter(column) => {
                    fill(column, cells, |cell| match cell {
                        Cell::Text(text) => Some(ByteArray::from(*text)),
                        _ => None,
                    })?;
                }
                _ => return Err(ParquetError::General("a column of no known kind".to_owned())),
            }
            column.close()?;
            nth += 1;
        }
        group.close()?;
        self.rows.clear();
        Ok(())
    }
}

/// What the output said, where it was that.
fn told(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => io::Error::other(inner.to_string()),
        other => io::Error::other(other),
    }
}

fn fill<'a, T: DataType>(
    column: &mut ColumnWriterImpl<'_, T>,
    cells: impl Iterator<Item = Cell<'a>>,
    value: impl Fn(&Cell<'a>) -> Option<T::T>,
) -> ParquetResult<()> {
    let (mut values, mut there) = (Vec::new(), Vec::new());
    for cell in cells {
        let value = value(&cell);
        there.push(i16::from(value.is_some()));
        values.extend(value);
    }
    let is_optional = column.get_descriptor().max_def_level() > 0;
    column.write_batch(&values, is_optional.then_some(&there[..]), None).map(drop)
}

/// What stands in column number `nth` of the schema.
fn cell(row: &Invocation, nth: usize) -> Cell<'_> {
    let time = |time: Option<Time>| number(time.map(Time::as_nanos));
    match nth {
        0 => Cell::Text(world(row.world)),
        1 => Cell::Number(row.id),
        2 => Cell::Text(&row.function),
        3 => text(&row.route),
        4 => text(&row.class),
        5 => time(row.scheduled),
        6 => time(row.sent),
        7 => time(row.received),
        8 => time(row.queued_out),
        9 => time(row.started),
        10 => time(row.first_byte),
        11 => time(row.finished),
        12 => number(row.replica),
        13 => text(&row.node),
        14 => Cell::Number(row.attempts.into()),
        15 => number(row.in_flight),
        16 => Cell::Text(row.status.name()),
        17 => number(row.code),
        18 => text(&row.reason),
        19 => Cell::Number(row.bytes_in),
        20 => Cell::Number(row.bytes_out),
        21 => number(row.tokens_in),
        22 => number(row.tokens_out),
        23 => row.cache.map_or(Cell::None, |result| Cell::Text(result.name())),
        24 => number(row.cache_key),
        25 => Cell::Flag(row.cold),
        _ => Cell::None,
    }
}

fn text(text: &Option<Arc<str>>) -> Cell<'_> {
    text.as_deref().map_or(Cell::None, Cell::Text)
}

fn number<'a>(number: Option<impl Into<u64>>) -> Cell<'a> {
    number.map_or(Cell::None, |number| Cell::Number(number.into()))
}

const fn world(world: World) -> &'static str {
    match world {
        World::Bench => "bench",
        World::Serve => "serve",
        World::Simulate => "simulate",
    }
}

/// Reads records from Parquet one by one, as [`crate::RecordWriter`] writes them. The numbers of errors are those of
/// rows, from 1.
///
/// # Errors
/// It is no Parquet file.
pub fn read_parquet<R: ChunkReader + 'static>(
    input: R,
) -> Result<impl Iterator<Item = Result<Invocation, ReadError>>, ReadError> {
    let rows = parquet_rows(input).map_err(|problem| ReadError { line: 0, problem })?;
    Ok((1..).zip(rows).map(|(line, row)| {
        let record: Result<Invocation, String> = row.and_then(|row| {
            serde_json::from_value(Value::Object(row)).map_err(|fault| fault.to_string())
        });
        let record = record.and_then(|record| match disorder(&record) {
            None => Ok(record),
            Some(problem) => Err(problem),
        });
        record.map_err(|problem| ReadError { line, problem })
    }))
}

/// The rows of any Parquet file as objects of JSON, without the columns that are empty there.
///
/// # Errors
/// It is no Parquet file.
pub fn parquet_rows<R: ChunkReader + 'static>(
    input: R,
) -> Result<impl Iterator<Item = Result<Map<String, Value>, String>>, String> {
    let reader = SerializedFileReader::new(input).map_err(|fault| fault.to_string())?;
    // What a file says of itself is believed by the reader of rows; a file without a column has none.
    if reader.metadata().file_metadata().schema_descr().num_columns() == 0 {
        return Err("it has no columns".to_owned());
    }
    let rows = RowIter::from_file_into(Box::new(reader));
    Ok(rows.map(|row| row.map(|row| object(&row)).map_err(|fault| fault.to_string())))
}

fn object(row: &parquet::record::Row) -> Map<String, Value> {
    let there = row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null));
    there.map(|(name, field)| (name.clone(), json(field))).collect()
}

fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => (*value).into(),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => {
            let name = |field: &Field| match json(field) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            map.entries().iter().map(|(key, value)| (name(key), json(value))).collect()
        }
        Field::Float16(_) | Field::Decimal(_) => field.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invocation::{any_invocation, full_invocation};
    use crate::write::COLUMNS;
    use crate::{Format, RecordWriter};

    fn write(records: &[Invocation]) -> bytes::Bytes {
        let mut bytes = Vec::new();
        let mut writer = RecordWriter::new(&mut bytes, Format::Parquet).unwrap();
        records.iter().for_each(|record| writer.write(record).unwrap());
        writer.finish().unwrap();
        bytes.into()
    }

    #[test]
    fn the_columns_are_those_of_the_other_formats() {
        let schema = parse_message_type(SCHEMA).unwrap();
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, COLUMNS);
    }

    #[test]
    fn many_groups_are_read_again() {
        let record = |id| Invocation { id, ..full_invocation() };
        let records: Vec<_> = (0..GROUP as u64 * 2 + 5).map(record).collect();
        let bytes = write(&records);
        let reader = SerializedFileReader::new(bytes.clone()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 3);
        let again: Vec<_> = read_parquet(bytes).unwrap().map(Result::unwrap).collect();
        assert!(again == records);
        assert_eq!(read_parquet(write(&[])).unwrap().count(), 0);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(read_parquet(bytes::Bytes::from_static(b"no such file")).is_err());
        let backwards = Invocation {
            sent: Some(Time::from_nanos(9)),
            finished: Some(Time::from_nanos(8)),
            ..Invocation::default()
        };
        let bytes = write(&[Invocation::default(), backwards]);
        let error = read_parquet(bytes).unwrap().find_map(Result::err).unwrap();
        assert_eq!(error.to_string(), "line 2: sent_ns = 9 is after finished_ns = 8");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(any_invocation(), 0..20)) {
            let again: Vec<_> = read_parquet(write(&records)).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(again, records);
        }
    }
}
