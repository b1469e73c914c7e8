//! A table as Apache Parquet: what a file of CSV holds, with types.

use std::io;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::failure::{Failure, Outcome};

/// What a column holds: the narrowest that fits all of its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Flag,
    Whole,
    Number,
    Text,
}

impl Kind {
    fn of<'a>(cells: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut told = cells.filter(|cell| !cell.is_empty()).peekable();
        if told.peek().is_none() {
            return Self::Text;
        }
        if told.clone().all(|cell| cell.parse::<bool>().is_ok()) {
            Self::Flag
        } else if told.clone().all(|cell| cell.parse::<i64>().is_ok()) {
            Self::Whole
        } else if told.all(|cell| cell.parse::<f64>().is_ok()) {
            Self::Number
        } else {
            Self::Text
        }
    }

    const fn physical(self) -> Physical {
        match self {
            Self::Flag => Physical::BOOLEAN,
            Self::Whole => Physical::INT64,
            Self::Number => Physical::DOUBLE,
            Self::Text => Physical::BYTE_ARRAY,
        }
    }
}

/// A table of CSV with a header as Parquet; an empty cell is a missing value.
pub(crate) fn parquet_table(text: &str) -> Outcome<Vec<u8>> {
    let failed = |fault: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot write the table as Parquet: {fault}"))
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|fault| failed(&fault))?.iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().map_err(|fault| failed(&fault))?;
    write(&names, &rows).map_err(|fault| failed(&fault))
}

fn write(names: &[String], rows: &[csv::StringRecord]) -> ParquetResult<Vec<u8>> {
    let cells = |nth: usize| rows.iter().map(move |row| row.get(nth).unwrap_or_default());
    let kinds: Vec<Kind> = (0..names.len()).map(|nth| Kind::of(cells(nth))).collect();
    let field = |(name, kind): (&String, &Kind)| {
        let builder = Type::primitive_type_builder(name, kind.physical())
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type((*kind == Kind::Text).then_some(LogicalType::String));
        builder.build().map(Arc::new)
    };
    let fields = names.iter().zip(&kinds).map(field).collect::<ParquetResult<Vec<_>>>()?;
    let schema = Type::group_type_builder("table").with_fields(fields).build()?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let mut nth = 0;
    while let Some(mut column) = group.next_column()? {
        let there: Vec<i16> = cells(nth).map(|cell| i16::from(!cell.is_empty())).collect();
        let told = cells(nth).filter(|cell| !cell.is_empty());
        let there = Some(&there[..]);
        match column.untyped() {
            ColumnWriter::BoolColumnWriter(column) => {
                let values: Vec<bool> = told.filter_map(|cell| cell.parse().ok()).collect();
                column.write_batch(&values, there, None)?;
            }
            ColumnWriter::Int64ColumnWriter(column) => {
                let values: Vec<i64> = told.filter_map(|cell| cell.parse().ok()).collect();
                column.write_batch(&values, there, None)?;
            }
            ColumnWriter::DoubleColumnWriter(column) => {
                let values: Vec<f64> = told.filter_map(|cell| cell.parse().ok()).collect();
                column.write_batch(&values, there, None)?;
            }
            ColumnWriter::ByteArrayColumnWriter(column) => {
                let values: Vec<ByteArray> = told.map(ByteArray::from).collect();
                column.write_batch(&values, there, None)?;
            }
            _ => return Err(ParquetError::External(Box::new(io::Error::other("no such column")))),
        }
        column.close()?;
        nth += 1;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_types_of_their_cells() {
        let bytes = parquet_table("a,b,c,d,e\n1,1.5,true,x,\n,2,false,\"y, z\",\n3,,,,\n").unwrap();
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, &bytes).unwrap();
        let rows: Vec<_> =
            gatewright_record::parquet_rows(file).unwrap().collect::<Result<_, _>>().unwrap();
        let text = serde_json::to_string(&rows).unwrap();
        let expected =
            r#"[{"a":1,"b":1.5,"c":true,"d":"x"},{"b":2.0,"c":false,"d":"y, z"},{"a":3}]"#;
        let (read, expected): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(expected).unwrap());
        assert_eq!(read, expected);
    }
}
