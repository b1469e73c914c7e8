use std::fmt::Write as _;
use std::path::Path;

use gatewright_determinism::{Purpose, Stream};
use gatewright_workload::trace::Recorded;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DataError;

/// Text that is made up, of an exact number of tokens.
///
/// It is made of 1,024 common words each of which is one token, alone and after a space, for the tokenizers of OpenAI
/// (`o200k_base`, `cl100k_base`, `p50k_base`, `r50k_base`, which is GPT-2's), those made from them (Llama 3, Qwen) and
/// BERT's: so many words are so many tokens, and no tokenizer has to be found. What a server puts around a prompt
/// (a chat template, a mark at the start) it counts as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Synthetic {
    /// Tokens of each prompt, its prefix not counted.
    pub prompt_tokens: Amount,
    /// Tokens of each answer, for targets of OpenAI's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Amount>,
    /// Beginnings that prompts share, as those of one application do: what a server may have in its cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<Prefix>,
    /// File with a tokenizer in Hugging Face's format (`tokenizer.json`), seen from the scenario's folder, whose tokens are
    /// counted; for models with a tokenizer of another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// A number that varies: always the same, or normally distributed and cut off.
///
/// In configuration: `128`, or `{ mean = 128, deviation = 32, min = 16, max = 512 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a number, or { mean = 128, deviation = 32, min = 16, max = 512 }")]
pub enum Amount {
    /// Always this.
    Fixed(u64),
    /// Normally distributed.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        #[serde(default)]
        deviation: f64,
        /// Least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<u64>,
        /// Most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<u64>,
    },
}

/// Beginnings of the same length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// How often one of these is taken, beside those of other lengths.
    #[serde(default = "one")]
    pub weight: f64,
    /// How many different ones there are.
    pub count: u64,
    /// Tokens of each.
    pub tokens: u64,
}

const fn one() -> f64 {
    1.0
}

const MAX_TOKENS: u64 = 4_000_000;
/// What is drawn for one row: each from a stream of its own.
const LENGTHS: u64 = 0;
const WORDS: u64 = 1;
const PREFIX_WORDS: u64 = 2;
const OTHER_WORDS: u64 = 3;
const BLOCK_WORDS: u64 = 4;
/// Tokens of a block of a trace.
const BLOCK: u64 = 512;

pub(super) fn words() -> &'static [&'static str] {
    static WORDS: std::sync::OnceLock<Vec<&str>> = std::sync::OnceLock::new();
    WORDS.get_or_init(|| include_str!("words.txt").lines().collect())
}

impl Amount {
    pub(super) fn draw(self, stream: &mut Stream) -> u64 {
        match self {
            Self::Fixed(count) => count,
            Self::Normal { mean, deviation, min, max } => {
                let drawn = (mean + deviation * stream.normal() + 0.5).max(0.0) as u64;
                drawn.max(min.unwrap_or(1)).min(max.unwrap_or(MAX_TOKENS))
            }
        }
    }

    pub(crate) fn check(self, name: &str) -> Result<(), DataError> {
        let fail = |what: String| Err(DataError::of(Path::new("data.synthetic"), what));
        match self {
            Self::Fixed(count) if count == 0 || count > MAX_TOKENS => {
                fail(format!("{name} = {count} is not usable; give 1 to {MAX_TOKENS}"))
            }
            Self::Normal { mean, deviation, min, max } => {
                let most = MAX_TOKENS as f64;
                let usable = (1.0..=most).contains(&mean) && (0.0..=most).contains(&deviation);
                let ordered = min.unwrap_or(1) <= max.unwrap_or(MAX_TOKENS) && min != Some(0);
                if usable && ordered && max.is_none_or(|max| max <= MAX_TOKENS) {
                    return Ok(());
                }
                fail(format!("{name} is not usable; give a mean and a deviation, and min <= max"))
            }
            Self::Fixed(_) => Ok(()),
        }
    }
}

impl Synthetic {
    pub(super) fn columns(&self) -> &'static [&'static str] {
        const COLUMNS: [&str; 4] = ["prompt", "prefix", "prompt_tokens", "output_tokens"];
        if self.output_tokens.is_some() { &COLUMNS } else { &COLUMNS[..3] }
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        self.prompt_tokens.check("prompt_tokens")?;
        self.output_tokens.map_or(Ok(()), |amount| amount.check("output_tokens"))?;
        let usable = |prefix: &Prefix| {
            prefix.weight > 0.0 && prefix.count > 0 && prefix.tokens <= MAX_TOKENS
        };
        if self.prefix.iter().all(usable) {
            return Ok(());
        }
        let what = "a prefix is not usable; give a weight and a count of more than 0";
        Err(DataError::of(Path::new("data.synthetic"), what))
    }

    /// What row `row` has in `column`, made of `words`.
    pub(super) fn value(&self, words: &[&str], seed: u64, row: u64, column: &str) -> String {
        let mut lengths = stream(seed, row, LENGTHS);
        let prompt = self.prompt_tokens.draw(&mut lengths);
        let output = self.output_tokens.map(|amount| amount.draw(&mut lengths));
        match column {
            "prompt_tokens" => prompt.to_string(),
            "output_tokens" => output.map_or_else(String::new, |tokens| tokens.to_string()),
            "prefix" => self.prefix_of(words, seed, &mut lengths),
            "prompt" => {
                let mut text = self.prefix_of(words, seed, &mut lengths);
                write_words(&mut text, words, &mut stream(seed, row, WORDS), prompt);
                text
            }
            _ => String::new(),
        }
    }

    fn prefix_of(&self, words: &[&str], seed: u64, luck: &mut Stream) -> String {
        let mut text = String::new();
        let total: f64 = self.prefix.iter().map(|prefix| prefix.weight).sum();
        let mut left = luck.unit() * total;
        for (number, prefix) in (0..).zip(&self.prefix) {
            left -= prefix.weight;
            if left < 0.0 {
                let which = ((luck.unit() * prefix.count as f64) as u64).min(prefix.count - 1);
                let id = which.wrapping_mul(1_000).wrapping_add(number);
                write_words(&mut text, words, &mut stream(seed, id, PREFIX_WORDS), prefix.tokens);
                break;
            }
        }
        text
    }
}

/// Text that belongs to no row.
pub(super) fn made_up(seed: u64, number: u64, tokens: Amount) -> String {
    let mut luck = stream(seed, number, OTHER_WORDS);
    let count = tokens.draw(&mut luck);
    let mut text = String::new();
    write_words(&mut text, words(), &mut luck, count);
    text
}

/// What row `row` of a trace's prompts has in `column`.
pub(super) fn recorded(
    recorded: &Recorded,
    words: &[&str],
    seed: u64,
    row: u64,
    column: &str,
) -> String {
    let Some(arrival) = recorded.arrivals().get(row as usize) else { return String::new() };
    // What the trace does not tell is at least one token.
    let (tokens_in, tokens_out) = (arrival.tokens_in.max(1), arrival.tokens_out.max(1));
    match column {
        "prompt_tokens" => tokens_in.to_string(),
        "output_tokens" => tokens_out.to_string(),
        "prompt" => {
            let mut text = String::new();
            let mut left = u64::from(tokens_in);
            for &block in recorded.blocks(row) {
                let count = left.min(BLOCK);
                write_words(&mut text, words, &mut stream(seed, block, BLOCK_WORDS), count);
                left -= count;
            }
            write_words(&mut text, words, &mut stream(seed, row, WORDS), left);
            text
        }
        _ => String::new(),
    }
}

fn stream(seed: u64, row: u64, what: u64) -> Stream {
    let own = Stream::new(seed, Purpose::Content, row).bits();
    Stream::new(own, Purpose::Content, what)
}

fn write_words(text: &mut String, words: &[&str], luck: &mut Stream, count: u64) {
    for _ in 0..count {
        let word = words[((luck.unit() * words.len() as f64) as usize).min(words.len() - 1)];
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{word}").expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        text.split(' ').filter(|word| !word.is_empty()).count()
    }

    #[test]
    fn prompts_have_the_tokens_that_are_asked_for() {
        let synthetic: Synthetic = toml::from_str(
            "prompt_tokens = { mean = 100, deviation = 30, min = 50, max = 150 }\noutput_tokens = 7\n\
             prefix = [{ count = 2, tokens = 20, weight = 3 }, { count = 1, tokens = 5 }]",
        )
        .unwrap();
        synthetic.check().unwrap();
        let mut lengths = Vec::new();
        let mut prefixes = std::collections::BTreeMap::<String, u32>::new();
        for row in 0..2_000 {
            let prompt = synthetic.value(words(), 1, row, "prompt");
            let tokens: usize = synthetic.value(words(), 1, row, "prompt_tokens").parse().unwrap();
            let prefix = synthetic.value(words(), 1, row, "prefix");
            assert!(prompt.starts_with(&prefix), "{row}");
            assert_eq!(count(&prompt), tokens + count(&prefix), "{row}");
            assert!((50..=150).contains(&tokens));
            assert_eq!(synthetic.value(words(), 1, row, "output_tokens"), "7");
            assert_eq!(prompt, synthetic.value(words(), 1, row, "prompt"), "the same once more");
            lengths.push(tokens as f64);
            *prefixes.entry(prefix).or_default() += 1;
        }
        let mean = lengths.iter().sum::<f64>() / 2_000.0;
        assert!((mean - 100.0).abs() < 3.0, "{mean}");
        assert_eq!(prefixes.len(), 3);
        let short = prefixes.iter().find(|(text, _)| count(text) == 5).unwrap().1;
        assert!((400..600).contains(short), "a quarter of them: {short}");
    }

    #[test]
    fn no_two_prompts_are_the_same() {
        let synthetic = Synthetic {
            prompt_tokens: Amount::Fixed(8),
            output_tokens: None,
            prefix: Vec::new(),
            tokenizer: None,
        };
        let prompts: std::collections::BTreeSet<_> =
            (0..1_000).map(|row| synthetic.value(words(), 1, row, "prompt")).collect();
        assert_eq!(prompts.len(), 1_000);
        assert_ne!(
            synthetic.value(words(), 2, 0, "prompt"),
            synthetic.value(words(), 1, 0, "prompt")
        );
        assert!(words().iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase())));
        assert_eq!(words().len(), 1_024);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "prompt_tokens = 0",
            "prompt_tokens = { mean = 10, min = 5, max = 3 }",
            "prompt_tokens = { mean = -1 }",
            "prompt_tokens = 1\nprefix = [{ count = 0, tokens = 1 }]",
        ] {
            let synthetic: Synthetic = toml::from_str(text).unwrap();
            assert!(synthetic.check().is_err(), "{text}");
        }
    }
}
