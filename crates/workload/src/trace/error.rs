use std::io;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the trace: {problem}")]
pub struct TraceError {
    /// Number of the line, from 1.
    pub line: u64,
    /// What is wrong with it.
    #[source]
    pub problem: TraceProblem,
}

/// What is wrong with a line of a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceProblem {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It is longer than any line of a trace.
    #[error("it is longer than {0} bytes; is this a trace?")]
    TooLong(usize),
    /// The file does not begin as the format does.
    #[error(
        "it is not the first line of a trace of the format {0}; leave the format out to have it told"
    )]
    NotTheFormat(&'static str),
    /// The file begins as no known format does.
    #[error(
        "it begins as no known trace does (azure_llm, azure_functions_2021, azure_functions_2019, mooncake, opendc)"
    )]
    NoKnownFormat,
    /// A column is missing.
    #[error("column {0} is missing")]
    Missing(&'static str),
    /// A column holds something else than it should.
    #[error("column {column} holds \"{text}\", which is not {wanted}")]
    Column {
        /// Name of the column.
        column: &'static str,
        /// What it holds.
        text: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// It is not a request as JSON.
    #[error("it is not a request as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is earlier than what was given already.
    #[error("it is too far out of order; sort the trace by time")]
    Disorder,
    /// It is later than any trace goes.
    #[error("it is more than a century after the trace's beginning; is a column in another unit?")]
    Late,
    /// There is more than fits.
    #[error("there are more than {0}; take a part of the trace")]
    TooMuch(&'static str),
}
