use std::io::{self, BufRead, Read};

use gatewright_determinism::Time;

use crate::write::COLUMNS;
use crate::{Format, Invocation};

/// Reads records of `format` one by one, as [`crate::RecordWriter`] writes them.
///
/// CSV columns may come in any order, and those of optional values may be missing; a column that is not one of
/// a record is an error. Empty lines are skipped.
pub fn read_records<R: BufRead>(input: R, format: Format) -> Records<R> {
    let input = Bounded { input, left: MAX_RECORD_BYTES };
    let source = match format {
        #[cfg(feature = "parquet")]
        Format::Parquet => Source::Elsewhere,
        Format::Csv => {
            let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(input);
            Source::Csv { reader: Box::new(reader), header: None, row: csv::StringRecord::new() }
        }
        Format::JsonLines => Source::JsonLines { input, line: Vec::new(), number: 0 },
    };
    Records { source, broken: false }
}

/// Iterator over records; it ends at the end of the input or after the first error.
#[derive(Debug)]
pub struct Records<R: BufRead> {
    source: Source<R>,
    broken: bool,
}

/// What is wrong with a file of records, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ReadError {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Debug)]
enum Source<R: BufRead> {
    Csv {
        reader: Box<csv::Reader<Bounded<R>>>,
        header: Option<csv::StringRecord>,
        row: csv::StringRecord,
    },
    JsonLines {
        input: Bounded<R>,
        line: Vec<u8>,
        number: u64,
    },
    #[cfg(feature = "parquet")]
    /// Parquet is not read from its beginning to its end.
    Elsewhere,
}

/// No record is longer; a file that has none of our line ends, or an open quote, must not fill the memory.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// An input that fails when one record takes more than its bytes.
#[derive(Debug)]
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(too_long)?;
        Ok(count)
    }
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the record is longer than 1 MiB; is this a file of records, and is a quote left open?",
    )
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Invocation, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        let record = match &mut self.source {
            Source::Csv { reader, header, row } => next_row(reader, header, row),
            Source::JsonLines { input, line, number } => next_line(input, line, number),
            #[cfg(feature = "parquet")]
            Source::Elsewhere => {
                let problem = "Parquet is read by `read_parquet`".to_owned();
                Err(ReadError { line: 0, problem })
            }
        };
        let checked = record.and_then(|record| match record {
            Some((line, invocation)) => match disorder(&invocation) {
                None => Ok(Some(invocation)),
                Some(problem) => Err(ReadError { line, problem }),
            },
            None => Ok(None),
        });
        self.broken = checked.is_err();
        checked.transpose()
    }
}

type Numbered = Option<(u64, Invocation)>;

fn next_row<R: BufRead>(
    reader: &mut csv::Reader<Bounded<R>>,
    header: &mut Option<csv::StringRecord>,
    row: &mut csv::StringRecord,
) -> Result<Numbered, ReadError> {
    let header = match header {
        Some(header) => header,
        None => {
            if !read_row(reader, row)? {
                return Ok(None);
            }
            check_header(row)?;
            header.insert(row.clone())
        }
    };
    if !read_row(reader, row)? {
        return Ok(None);
    }
    let line = row.position().map_or(0, csv::Position::line);
    let invocation =
        row.deserialize(Some(header)).map_err(|error| csv_problem(&error, line, header))?;
    Ok(Some((line, invocation)))
}

fn read_row<R: BufRead>(
    reader: &mut csv::Reader<Bounded<R>>,
    row: &mut csv::StringRecord,
) -> Result<bool, ReadError> {
    reader.get_mut().left = MAX_RECORD_BYTES;
    let line = reader.position().line();
    let none = csv::StringRecord::new();
    reader.read_record(row).map_err(|error| csv_problem(&error, line, &none))
}

fn check_header(row: &csv::StringRecord) -> Result<(), ReadError> {
    let line = row.position().map_or(1, csv::Position::line);
    let fail = |problem| Err(ReadError { line, problem });
    for (index, name) in row.iter().enumerate() {
        if !COLUMNS.contains(&name) {
            let known = COLUMNS.join(", ");
            return fail(format!(
                "\"{name}\" is not a column of a record; the columns are {known}"
            ));
        }
        if row.iter().take(index).any(|other| other == name) {
            return fail(format!("column \"{name}\" is there twice"));
        }
    }
    Ok(())
}

fn csv_problem(error: &csv::Error, line: u64, header: &csv::StringRecord) -> ReadError {
    let line = error.position().map_or(line, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is not UTF-8", err.field() + 1),
        csv::ErrorKind::Deserialize { err, .. } => {
            let field = err.field().and_then(|field| header.get(usize::try_from(field).ok()?));
            match field {
                Some(name) => format!("column \"{name}\": {}", err.kind()),
                None => err.kind().to_string(),
            }
        }
        _ => error.to_string(),
    };
    ReadError { line, problem }
}

fn next_line<R: BufRead>(
    input: &mut Bounded<R>,
    line: &mut Vec<u8>,
    number: &mut u64,
) -> Result<Numbered, ReadError> {
    loop {
        line.clear();
        *number += 1;
        let fail = |problem: String| ReadError { line: *number, problem };
        let mut bounded = (&mut input.input).take(MAX_RECORD_BYTES + 1);
        bounded.read_until(b'\n', line).map_err(|error| fail(error.to_string()))?;
        if line.len() as u64 > MAX_RECORD_BYTES {
            return Err(fail(too_long().to_string()));
        }
        if line.is_empty() {
            return Ok(None);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let invocation =
            serde_json::from_slice(line).map_err(|error| fail(json_problem(&error)))?;
        return Ok(Some((*number, invocation)));
    }
}

/// What serde_json says, without its own idea of the line, which is always the first here.
fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("{what} (column {})", error.column())
}

/// A record whose end comes before one of its moments was not measured.
pub(crate) fn disorder(invocation: &Invocation) -> Option<String> {
    let finished = invocation.finished?;
    let moments = [
        ("scheduled_ns", invocation.scheduled),
        ("sent_ns", invocation.sent),
        ("received_ns", invocation.received),
        ("queued_out_ns", invocation.queued_out),
        ("started_ns", invocation.started),
        ("first_byte_ns", invocation.first_byte),
    ];
    let after =
        |&(_, moment): &(&str, Option<Time>)| moment.is_some_and(|moment| moment > finished);
    let (name, moment) = moments.into_iter().find(after)?;
    let (moment, finished) = (moment.unwrap_or_default().as_nanos(), finished.as_nanos());
    Some(format!("{name} = {moment} is after finished_ns = {finished}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RecordWriter;
    use crate::invocation::any_invocation;

    const FORMATS: [Format; 2] = [Format::Csv, Format::JsonLines];

    fn write(invocations: &[Invocation], format: Format) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = RecordWriter::new(&mut bytes, format).unwrap();
        invocations.iter().for_each(|invocation| writer.write(invocation).unwrap());
        writer.finish().unwrap();
        bytes
    }

    fn read(bytes: &[u8], format: Format) -> Result<Vec<Invocation>, ReadError> {
        read_records(bytes, format).collect()
    }

    fn error(text: &str, format: Format) -> String {
        read(text.as_bytes(), format).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_run_is_an_empty_file() {
        for format in FORMATS {
            assert_eq!(read(&write(&[], format), format).unwrap(), []);
            assert_eq!(read(b"", format).unwrap(), []);
        }
        let header = String::from_utf8(write(&[], Format::Csv)).unwrap();
        assert_eq!(header.trim_end(), COLUMNS.join(","));
    }

    #[test]
    fn the_columns_are_the_json_fields() {
        let full = crate::invocation::full_invocation();
        let json = String::from_utf8(write(&[full], Format::JsonLines)).unwrap();
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&json).unwrap();
        for column in COLUMNS {
            assert!(fields.contains_key(column), "{column} is not a field");
        }
        assert_eq!(fields.len(), COLUMNS.len());
    }

    #[test]
    fn csv_columns_may_be_reordered_and_optional_ones_left_out() {
        let text = "id,world,function,status,attempts,bytes_in,bytes_out,cold,finished_ns\n\
                    7,serve,square,lost,2,0,0,true,12\n\n";
        let [invocation] = &read(text.as_bytes(), Format::Csv).unwrap()[..] else { panic!() };
        assert_eq!((invocation.id, invocation.attempts, invocation.cold), (7, 2, true));
        assert_eq!(invocation.finished, Some(Time::from_nanos(12)));
        assert_eq!(invocation.code, None);
    }

    #[test]
    fn errors_say_which_line_and_what() {
        let good = String::from_utf8(write(&[Invocation::default(); 1], Format::Csv)).unwrap();
        let csv = [
            (
                "id,wrld\n",
                "line 1: \"wrld\" is not a column of a record; the columns are world, id",
            ),
            ("id,id\n", "line 1: column \"id\" is there twice"),
            ("id,world\n1\n", "line 2: 1 fields where the header has 2"),
            ("id,world\n1,mars\n", "line 2: "),
            ("id\n1\n", "line 2: missing field `world`"),
            (
                &format!("{good}{}", good.replace(",0,", ",x,")),
                "line 3: unknown variant `world`, expected one of `bench`",
            ),
        ];
        for (text, start) in csv {
            let error = error(text, Format::Csv);
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
        let number = good.replace("bench,0,", "bench,-1,");
        assert_eq!(
            error(&number, Format::Csv),
            "line 2: column \"id\": invalid digit found in string"
        );

        let good = String::from_utf8(write(&[Invocation::default()], Format::JsonLines)).unwrap();
        let json = [
            ("{}\n", "line 1: missing field `world` (column 2)"),
            (&format!("{good}\n{good}nonsense\n"), "line 4: expected ident"),
            (&format!("{good}{{\"world\":"), "line 2: EOF while parsing a value"),
        ];
        for (text, start) in json {
            let error = error(text, Format::JsonLines);
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_request_that_ends_before_it_began_is_an_error() {
        let backwards = Invocation {
            sent: Some(Time::from_nanos(9)),
            finished: Some(Time::from_nanos(8)),
            ..Invocation::default()
        };
        for format in FORMATS {
            let error = read(&write(std::slice::from_ref(&backwards), format), format).unwrap_err();
            assert_eq!(error.problem, "sent_ns = 9 is after finished_ns = 8", "{format:?}");
        }
    }

    #[test]
    fn an_endless_record_does_not_fill_the_memory() {
        for (start, format) in [("id,world\n\"", Format::Csv), ("{\"world\":\"", Format::JsonLines)]
        {
            let endless = start.as_bytes().chain(io::BufReader::new(io::repeat(b'x')));
            let error = read_records(endless, format).next().unwrap().unwrap_err();
            assert!(error.problem.contains("longer than 1 MiB"), "{error}");
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let mut records = read_records("nonsense\n{}\n".as_bytes(), Format::JsonLines);
        assert!(records.next().unwrap().is_err());
        assert!(records.next().is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            invocations in prop::collection::vec(any_invocation(), 0..20),
        ) {
            for format in FORMATS {
                let again = read(&write(&invocations, format), format).unwrap();
                prop_assert_eq!(&again, &invocations);
            }
        }

        #[test]
        fn broken_input_is_an_error_or_fewer_records_but_never_a_panic(
            invocations in prop::collection::vec(any_invocation(), 1..5),
            cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            for format in FORMATS {
                let mut bytes = write(&invocations, format);
                let at = cut.index(bytes.len());
                bytes.splice(at..(at + noise.len()).min(bytes.len()), noise.iter().copied());
                let mut last_error = None;
                for record in read_records(&bytes[..], format) {
                    prop_assert!(last_error.is_none());
                    last_error = record.err();
                }
                let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
                if let Some(error) = last_error {
                    prop_assert!((1..=lines).contains(&error.line), "{}", error);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for format in FORMATS {
                read_records(&bytes[..], format).for_each(drop);
            }
        }
    }
}
