use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gatewright_bench::{
    Amount, DataError, LocalTokenizer, Preprocess, RowFile, Short, Tokens, preprocess,
};
use tiktoken_rs::CoreBPE;

use super::bench::parse_amount;
use crate::failure::{Exit, Failure, Outcome};
use crate::files::Draft;
use crate::output;
use crate::render::count;

/// Prepare the data that benchmarks of language models are filled with.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright data preprocess questions.csv prompts.jsonl --column question --prompt-tokens 512
  gatewright data preprocess book.txt prompts.jsonl --prompt-tokens '{ mean = 512, deviation = 128, min = 64 }' \\
      --short concatenate --output-tokens 128
  gatewright bench http://127.0.0.1:8000 --openai chat --data prompts.jsonl --rate 4")]
pub(crate) struct DataCommand {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Preprocess(PreprocessArgs),
}

/// Bring prompts to a number of tokens.
///
/// Longer ones are cut, shorter ones are dealt with as --short says. The result has a row with prompt, prompt_tokens and
/// output_tokens for each, as `bench --data` takes it.
#[derive(Debug, Args)]
struct PreprocessArgs {
    /// Rows: .csv with a header, .jsonl, .json with a list, .parquet, .txt with a prompt a line, perhaps with .gz behind.
    input: PathBuf,

    /// File to write, .jsonl.
    output: PathBuf,

    /// Column with the prompts.
    #[arg(long, value_name = "NAME", default_value = "prompt")]
    column: String,

    /// Tokens of each prompt: 128, or { mean = 128, deviation = 32, min = 16, max = 512 }.
    #[arg(long, value_name = "TOKENS", value_parser = parse_amount)]
    prompt_tokens: Amount,

    /// Tokens of each answer, in the same ways.
    #[arg(long, value_name = "TOKENS", value_parser = parse_amount)]
    output_tokens: Option<Amount>,

    /// What becomes of prompts that are too short.
    #[arg(long, value_enum, default_value_t = ShortArg::Ignore)]
    short: ShortArg,

    /// What stands between prompts that are put together.
    #[arg(long, value_name = "TEXT", default_value = "\n")]
    delimiter: String,

    /// What prompts are filled up with.
    #[arg(long, value_name = "TEXT", default_value = " the")]
    pad: String,

    /// How tokens are counted: o200k_base (GPT-4o and later), cl100k_base (GPT-4; near to Llama 3 and Qwen), p50k_base,
    /// r50k_base (GPT-2), or a file in Hugging Face's format, tokenizer.json.
    #[arg(long, value_name = "NAME|FILE", value_parser = parse_tokenizer, default_value = "o200k_base")]
    tokenizer: TokenizerArg,

    /// Seed of the lengths.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShortArg {
    /// They are left out
    Ignore,
    /// The next ones are put behind them
    Concatenate,
    /// They are filled up
    Pad,
    /// They are an error
    Error,
}

/// The tokenizers that are part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tokenizer {
    /// GPT-4o and later
    #[value(name = "o200k_base")]
    O200k,
    /// GPT-4 and GPT-3.5; near to Llama 3 and Qwen
    #[value(name = "cl100k_base")]
    Cl100k,
    /// Codex
    #[value(name = "p50k_base")]
    P50k,
    /// GPT-3 and GPT-2
    #[value(name = "r50k_base")]
    R50k,
}

/// One of these, or a file.
#[derive(Clone, Debug)]
enum TokenizerArg {
    Embedded(Tokenizer),
    File(PathBuf),
}

fn parse_tokenizer(text: &str) -> Result<TokenizerArg, String> {
    if let Ok(known) = Tokenizer::from_str(text, false) {
        return Ok(TokenizerArg::Embedded(known));
    }
    let path = PathBuf::from(text);
    if path.extension().is_some_and(|ending| ending == "json") {
        return Ok(TokenizerArg::File(path));
    }
    Err("known are o200k_base, cl100k_base, p50k_base, r50k_base, and files that end in .json"
        .into())
}

impl TokenizerArg {
    fn open(&self) -> Result<Box<dyn Tokens>, DataError> {
        Ok(match self {
            Self::Embedded(known) => Box::new(known.open()),
            Self::File(path) => Box::new(LocalTokenizer::open(path)?),
        })
    }
}

struct Encoding(&'static CoreBPE);

impl Tokens for Encoding {
    fn encode(&self, text: &str) -> Vec<u32> {
        self.0.encode_ordinary(text)
    }

    fn decode(&self, tokens: &[u32]) -> Option<String> {
        self.0.decode(tokens).ok()
    }
}

impl Tokenizer {
    fn open(self) -> Encoding {
        Encoding(match self {
            Self::O200k => tiktoken_rs::o200k_base_singleton(),
            Self::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            Self::P50k => tiktoken_rs::p50k_base_singleton(),
            Self::R50k => tiktoken_rs::r50k_base_singleton(),
        })
    }
}

impl DataCommand {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        match self.command {
            Task::Preprocess(arguments) => arguments.run(quiet),
        }
    }
}

impl PreprocessArgs {
    fn run(self, quiet: bool) -> Outcome {
        let wrong = |error: DataError| {
            Failure::usage(error).hint("`gatewright data preprocess --help` says what files hold")
        };
        let mut rows = RowFile::open(&self.input).map_err(wrong)?;
        let settings = Preprocess {
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            short: match self.short {
                ShortArg::Ignore => Short::Ignore,
                ShortArg::Concatenate => Short::Concatenate(self.delimiter),
                ShortArg::Pad => Short::Pad(self.pad),
                ShortArg::Error => Short::Error,
            },
            seed: self.seed,
        };
        let (mut draft, file) = Draft::create(&self.output)?;
        let mut file = BufWriter::new(file);
        let mut write = |row: &serde_json::Value| writeln!(file, "{row}");
        let tokenizer = self.tokenizer.open().map_err(wrong)?;
        let made = preprocess(&mut rows, &self.column, &*tokenizer, &settings, &mut write)
            .map_err(wrong)?;
        file.flush()
            .and_then(|()| draft.complete())
            .map_err(|fault| Failure::of_writing(&self.output, &fault))?;
        if !quiet {
            let (written, ignored) = (count(made.written), count(made.ignored));
            let path = self.output.display();
            output::note(&format!(
                "wrote {written} prompts to {path}; {ignored} rows were too short"
            ));
        }
        Ok(Exit::Done)
    }
}
