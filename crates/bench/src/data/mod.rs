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
    /// `.parquet`, `.txt` with a prompt a line. Give this or `synthetic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Text that is made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Synthetic>,
    /// Other names of columns: `{ prompt = "question" }` finds `prompt` in the column `question`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Which row comes next.
    pub order: Order,
}

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
    File(RowFile),
    /// With the words that it is made of.
    Synthetic(Arc<Synthetic>, Arc<[&'static str]>),
    /// A column `prompt`.
    Prompts(Arc<[String]>),
}

impl DataSpec {
    /// Finds the rows. Relative paths begin in `folder`; `seed` is that of made up text and of the order.
    ///
    /// # Errors
    /// There is no source or two of them, or it cannot be used.
    pub fn open(&self, folder: &Path, seed: u64) -> Result<Data, DataError> {
        let source = match (&self.file, &self.synthetic) {
            (Some(file), None) => Source::File(RowFile::open(&folder.join(file))?),
            (None, Some(synthetic)) => {
                synthetic.check()?;
                let words = match &synthetic.tokenizer {
                    Some(name) => {
                        let path = folder.join(name);
                        LocalTokenizer::open(&path)?.words(&path)?
                    }
                    None => synthetic::words().into(),
                };
                Source::Synthetic(Arc::new(synthetic.clone()), words)
            }
            _ => return Err(DataError::of(Path::new("data"), "give either file or synthetic")),
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
            Source::File(file) => file.check_column(name),
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

    fn name_of<'a>(&'a self, column: &'a str) -> &'a str {
        self.columns.get(column).map_or(column, String::as_str)
    }

    /// What stands in `column` for number `number` (of the request, or of its session); empty where nothing does.
    pub(crate) fn value(&mut self, number: u64, column: &str) -> Cow<'_, str> {
        let row = match (&self.source, self.order) {
            (Source::File(file), Order::InTurn) => number % file.rows(),
            (Source::File(file), Order::Random) => {
                let luck = Stream::new(self.seed, Purpose::Content, number).unit();
                ((luck * file.rows() as f64) as u64).min(file.rows() - 1)
            }
            (Source::Prompts(prompts), _) => number % prompts.len() as u64,
            (Source::Synthetic(..), _) => number,
        };
        let name = self.columns.get(column).map_or(column, String::as_str);
        match &mut self.source {
            Source::File(file) => file.value(row, name),
            Source::Prompts(prompts) => Cow::Borrowed(&prompts[row as usize]),
            Source::Synthetic(synthetic, words) => {
                Cow::Owned(synthetic.value(words, self.seed, row, name))
            }
        }
    }
}
