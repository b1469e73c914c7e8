//! What requests are filled with: rows of a file, or text that is made up.
//!
//! Row `n` is the same whatever thread asks for it and in which order, and memory does not grow with the rows: a file
//! is read where the row stands, text is made from the seed and the number.

mod file;
mod preprocess;
mod synthetic;
mod tokenizer;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gatewright_determinism::{Purpose, Stream};
use gatewright_workload::trace::Recorded;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use file::{DataError, RowFile};
pub use preprocess::{Preprocess, Preprocessed, Short, Tokens, preprocess};
pub use synthetic::{Amount, Prefix, Synthetic};
pub use tokenizer::LocalTokenizer;

/// What requests are filled with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// File of rows, seen from the scenario's folder: `.csv` with a header, `.jsonl`, `.json` with a list,
    /// `.parquet`, `.txt` with a prompt a line, each of them perhaps zipped (`.gz`). Give this, `synthetic` or `trace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Further files, whose columns stand beside those of `file`, row by row; one with fewer rows begins again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// Text that is made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Synthetic>,
    /// Text that is made up, as long as the prompts of the trace that is replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TracePrompts>,
    /// Other names of columns: `{ prompt = "question" }` finds `prompt` in the column `question`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Which row comes next.
    pub order: Order,
}

/// Text as long as the prompts of a trace. Where the trace tells which blocks of 512 tokens prompts have in common, the
/// text has them in common too; answers are as long as in the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracePrompts {
    /// File with a tokenizer whose tokens are counted, as of made up text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

const TRACE_COLUMNS: [&str; 3] = ["prompt", "prompt_tokens", "output_tokens"];

/// Which row comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// One after the other, from the first again after the last.
    #[default]
    InTurn,
    /// Any, drawn from the seed and the number of the request.
    Random,
}

/// Rows, ready to be read by any thread.
#[derive(Clone, Debug)]
pub struct Data {
    source: Source,
    columns: Arc<BTreeMap<String, String>>,
    order: Order,
    seed: u64,
}

#[derive(Clone, Debug)]
enum Source {
    /// The first one has at least one of them.
    Files(Vec<RowFile>),
    /// With the words that it is made of.
    Trace(Arc<Recorded>, Arc<[&'static str]>),
    /// With the words that it is made of.
    Synthetic(Arc<Synthetic>, Arc<[&'static str]>),
    /// A column `prompt`.
    Prompts(Arc<[String]>),
}

impl DataSpec {
    /// Finds the rows. Relative paths begin in `folder`; `seed` is that of made up text and of the order; `recorded` is
    /// the trace that is replayed, if one is.
    ///
    /// # Errors
    /// There is no source or two of them, or it cannot be used.
    pub fn open(
        &self,
        folder: &Path,
        seed: u64,
        recorded: Option<&Arc<Recorded>>,
    ) -> Result<Data, DataError> {
        let fail = |what: &str| Err(DataError::of(Path::new("data"), what));
        let words = |tokenizer: &Option<String>| match tokenizer {
            Some(name) => {
                let path = folder.join(name);
                LocalTokenizer::open(&path)?.words(&path)
            }
            None => Ok(synthetic::words().into()),
        };
        let source = match (&self.file, &self.synthetic, &self.trace) {
            (Some(file), None, None) => {
                let names = [file].into_iter().chain(&self.beside);
                let files = names.map(|name| RowFile::open(&folder.join(name)));
                Source::Files(files.collect::<Result<_, _>>()?)
            }
            _ if !self.beside.is_empty() => return fail("files stand beside a file; give file"),
            (None, Some(synthetic), None) => {
                synthetic.check()?;
                Source::Synthetic(Arc::new(synthetic.clone()), words(&synthetic.tokenizer)?)
            }
            (None, None, Some(prompts)) => {
                match recorded.filter(|recorded| recorded.has_tokens()) {
                    Some(recorded) => {
                        Source::Trace(Arc::clone(recorded), words(&prompts.tokenizer)?)
                    }
                    None => {
                        return fail("no trace is replayed that tells how long its prompts are");
                    }
                }
            }
            _ => return fail("give one of file, synthetic and trace"),
        };
        Ok(Data { source, columns: Arc::new(self.columns.clone()), order: self.order, seed })
    }
}

impl Data {
    /// A row for each prompt, of which there is at least one.
    pub(crate) fn of_prompts(prompts: &[String]) -> Self {
        let source = Source::Prompts(prompts.into());
        Self { source, columns: Arc::default(), order: Order::InTurn, seed: 0 }
    }

    pub(crate) const fn is_of_prompts(&self) -> bool {
        matches!(self.source, Source::Prompts(_))
    }

    /// Whether every row has this column, as far as is known beforehand.
    pub(crate) fn check_column(&self, column: &str) -> Result<(), DataError> {
        let name = self.name_of(column);
        match &self.source {
            Source::Files(files) => {
                let mut checked = files.iter().map(|file| file.check_column(name));
                let first = checked.next().unwrap_or(Ok(()));
                first.or_else(|error| checked.find(Result::is_ok).unwrap_or(Err(error)))
            }
            Source::Trace(..) if TRACE_COLUMNS.contains(&name) => Ok(()),
            Source::Trace(..) => {
                let known = TRACE_COLUMNS.join(", ");
                let what = format!("prompts of a trace have no column {name}; they have {known}");
                Err(DataError::of(Path::new("data"), what))
            }
            Source::Prompts(_) if name == "prompt" => Ok(()),
            Source::Prompts(_) => {
                Err(DataError::of(Path::new("data"), format!("prompts have no column {name}")))
            }
            Source::Synthetic(synthetic, _) if synthetic.columns().contains(&name) => Ok(()),
            Source::Synthetic(synthetic, _) => {
                let known = synthetic.columns().join(", ");
                let what = format!("made up text has no column {name}; it has {known}");
                Err(DataError::of(Path::new("data"), what))
            }
        }
    }

    /// Text of so many tokens that belongs to no row; `number` tells one from another.
    pub(crate) fn made_up(&self, number: u64, tokens: Amount) -> String {
        synthetic::made_up(self.seed, number, tokens)
    }

    fn name_of<'a>(&'a self, column: &'a str) -> &'a str {
        self.columns.get(column).map_or(column, String::as_str)
    }

    /// What stands in `column` for number `number` (of the request, or of its session); empty where nothing does.
    pub(crate) fn value(&mut self, number: u64, column: &str) -> Cow<'_, str> {
        let row = match (&self.source, self.order) {
            (Source::Files(files), Order::Random) => {
                let rows = files.first().map_or(1, RowFile::rows);
                let luck = Stream::new(self.seed, Purpose::Content, number).unit();
                ((luck * rows as f64) as u64).min(rows - 1)
            }
            (Source::Files(_), Order::InTurn) => number,
            (Source::Trace(recorded, _), _) => number % recorded.arrivals().len() as u64,
            (Source::Prompts(prompts), _) => number % prompts.len() as u64,
            (Source::Synthetic(..), _) => number,
        };
        let name = self.columns.get(column).map_or(column, String::as_str);
        match &mut self.source {
            Source::Files(files) => {
                let has = |file: &&mut RowFile| file.has_column(name);
                let found =
                    if files.len() > 1 { files.iter_mut().find(has) } else { files.first_mut() };
                found.map_or(Cow::Borrowed(""), |file| file.value(row % file.rows(), name))
            }
            Source::Trace(recorded, words) => {
                Cow::Owned(synthetic::recorded(recorded, words, self.seed, row, name))
            }
            Source::Prompts(prompts) => Cow::Borrowed(&prompts[row as usize]),
            Source::Synthetic(synthetic, words) => {
                Cow::Owned(synthetic.value(words, self.seed, row, name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gatewright_workload::trace::TraceOptions;
    use gatewright_workload::trace::{Selection, TraceReader};

    use super::*;

    fn trace(lines: &str) -> Arc<Recorded> {
        let reader = TraceReader::new(lines.as_bytes(), TraceOptions::default()).unwrap();
        Arc::new(Recorded::read(reader, &Selection::default()).unwrap())
    }

    fn words(text: &str) -> Vec<&str> {
        text.split(' ').collect()
    }

    #[test]
    fn prompts_are_as_long_as_those_of_a_trace() {
        let recorded = trace(
            r#"{"timestamp":0,"input_length":1100,"output_length":7,"hash_ids":[1,2,3]}
{"timestamp":5,"input_length":600,"output_length":8,"hash_ids":[1,4]}
{"timestamp":9,"input_length":20,"output_length":0}"#,
        );
        let spec = DataSpec { trace: Some(TracePrompts::default()), ..DataSpec::default() };
        let mut data = spec.open(Path::new(""), 1, Some(&recorded)).unwrap();
        let mut prompt = |row| data.value(row, "prompt").into_owned();
        let (first, second, third) = (prompt(0), prompt(1), prompt(2));
        let lengths = [&first, &second, &third].map(|text| words(text).len());
        assert_eq!(lengths, [1_100, 600, 20]);
        assert_eq!(words(&first)[..512], words(&second)[..512], "they have a block in common");
        assert_ne!(words(&first)[512..600], words(&second)[512..600]);
        assert_eq!(prompt(3), first, "a trace that is over begins again");
        assert_eq!(data.value(1, "output_tokens"), "8");
        assert_eq!(data.value(2, "output_tokens"), "1");
        assert!(data.check_column("messages").is_err());
        let error = spec.open(Path::new(""), 1, None).unwrap_err().to_string();
        assert!(error.contains("no trace is replayed"), "{error}");
    }

    #[test]
    fn files_stand_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.csv", "id\n1\n2\n3\n");
        write("b.jsonl", "{\"prompt\":\"x\",\"id\":9}\n{\"prompt\":\"y\"}\n");
        let spec = |order| DataSpec {
            file: Some("a.csv".into()),
            beside: vec!["b.jsonl".into()],
            order,
            ..DataSpec::default()
        };
        let mut data = spec(Order::InTurn).open(folder.path(), 1, None).unwrap();
        assert!(data.check_column("id").is_ok() && data.check_column("prompt").is_ok());
        assert!(data.check_column("none").is_err());
        let row = |data: &mut Data, n| {
            (data.value(n, "id").into_owned(), data.value(n, "prompt").into_owned())
        };
        let pair = |id: &str, prompt: &str| (id.to_owned(), prompt.to_owned());
        assert_eq!(row(&mut data, 1), pair("2", "y"));
        assert_eq!(row(&mut data, 2), pair("3", "x"), "the shorter one begins again");
        let mut data = spec(Order::Random).open(folder.path(), 1, None).unwrap();
        let known = [pair("1", "x"), pair("2", "y"), pair("3", "x")];
        assert!((0..50).all(|n| known.contains(&row(&mut data, n))), "rows stay together");
        let alone = DataSpec { file: None, ..spec(Order::InTurn) };
        assert!(alone.open(folder.path(), 1, None).is_err());
    }
}
