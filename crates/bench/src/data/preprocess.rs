use std::path::Path;

use gatewright_determinism::{Purpose, Stream};
use serde_json::{Value, json};

use super::{Amount, DataError, RowFile};

/// Takes text apart into tokens, and puts it together again.
pub trait Tokens {
    /// The tokens of a text.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// The text of tokens; none if they end inside of a character.
    fn decode(&self, tokens: &[u32]) -> Option<String>;
}

/// How prompts are brought to a length.
#[derive(Clone, Debug)]
pub struct Preprocess {
    /// Tokens of each prompt.
    pub prompt_tokens: Amount,
    /// Tokens of each answer, if they are to be written as well.
    pub output_tokens: Option<Amount>,
    /// What becomes of prompts that are too short.
    pub short: Short,
    /// Seed of the lengths.
    pub seed: u64,
}

/// What becomes of a prompt that is too short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Short {
    /// It is left out.
    Ignore,
    /// The next ones are put behind it, with this between them.
    Concatenate(String),
    /// This is put behind it, as often as it takes.
    Pad(String),
    /// It is an error.
    Error,
}

/// What became of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preprocessed {
    /// Prompts that were written.
    pub written: u64,
    /// Rows that were left out because they were too short.
    pub ignored: u64,
}

const MAX_PADS: usize = 1_000_000;

/// Gives `write` a row with `prompt`, `prompt_tokens` and perhaps `output_tokens` for each row whose `column` has a
/// prompt that can be brought to its length. Longer prompts are cut.
///
/// # Errors
/// A row that cannot be read, a prompt that is too short if that is an error, an output that fails.
pub fn preprocess(
    rows: &mut RowFile,
    column: &str,
    tokens: &dyn Tokens,
    settings: &Preprocess,
    write: &mut dyn FnMut(&Value) -> std::io::Result<()>,
) -> Result<Preprocessed, DataError> {
    settings.prompt_tokens.check("prompt_tokens")?;
    settings.output_tokens.map_or(Ok(()), |amount| amount.check("output_tokens"))?;
    rows.check_column(column)?;
    let mut counts = Preprocessed::default();
    let mut row = 0;
    while row < rows.rows() {
        let mut luck = Stream::new(settings.seed, Purpose::Content, counts.written);
        let wanted = settings.prompt_tokens.draw(&mut luck) as usize;
        let output = settings.output_tokens.map(|amount| amount.draw(&mut luck));
        let first = row;
        let mut prompt = rows.value(row, column).into_owned();
        row += 1;
        let mut encoded = tokens.encode(&prompt);
        if let Short::Concatenate(between) = &settings.short {
            while encoded.len() < wanted && row < rows.rows() {
                prompt.push_str(between);
                prompt.push_str(&rows.value(row, column));
                row += 1;
                encoded = tokens.encode(&prompt);
            }
        }
        if let Short::Pad(pad) = &settings.short {
            for _ in 0..MAX_PADS {
                if encoded.len() >= wanted || pad.is_empty() {
                    break;
                }
                let missing = wanted - encoded.len();
                prompt.push_str(&pad.repeat(missing.div_ceil(tokens.encode(pad).len().max(1))));
                encoded = tokens.encode(&prompt);
            }
        }
        if encoded.len() < wanted {
            if settings.short == Short::Error {
                let what = format!("row {first} has {} tokens, {wanted} are wanted", encoded.len());
                return Err(DataError::of(rows.path(), what));
            }
            counts.ignored += 1;
            continue;
        }
        let (prompt, count) = cut(tokens, &encoded, wanted);
        let mut made = json!({ "prompt": prompt, "prompt_tokens": count });
        if let Some(output) = output {
            made["output_tokens"] = output.into();
        }
        write(&made).map_err(|fault| DataError::of(Path::new("output"), fault.to_string()))?;
        counts.written += 1;
    }
    Ok(counts)
}

/// The first tokens as a text that is so many tokens again; one or two fewer where they would end inside of a
/// character, or join with what follows.
fn cut(tokens: &dyn Tokens, encoded: &[u32], wanted: usize) -> (String, usize) {
    for take in (0..=wanted).rev() {
        let Some(text) = tokens.decode(&encoded[..take]) else { continue };
        let count = tokens.encode(&text).len();
        if count <= wanted {
            return (text, count);
        }
    }
    (String::new(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each character.
    struct Characters;

    impl Tokens for Characters {
        fn encode(&self, text: &str) -> Vec<u32> {
            text.chars().map(u32::from).collect()
        }

        fn decode(&self, tokens: &[u32]) -> Option<String> {
            tokens.iter().map(|token| char::from_u32(*token)).collect()
        }
    }

    fn made(short: Short) -> Result<(Vec<String>, Preprocessed), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "abcdefgh\nij\nklm\n").unwrap();
        let mut rows = RowFile::open(&path).unwrap();
        let settings = Preprocess {
            prompt_tokens: Amount::Fixed(5),
            output_tokens: Some(Amount::Fixed(3)),
            short,
            seed: 1,
        };
        let mut prompts = Vec::new();
        let counts = preprocess(&mut rows, "prompt", &Characters, &settings, &mut |row| {
            assert_eq!((&row["prompt_tokens"], &row["output_tokens"]), (&5.into(), &3.into()));
            prompts.push(row["prompt"].as_str().unwrap().to_owned());
            Ok(())
        });
        counts.map(|counts| (prompts, counts)).map_err(|error| error.to_string())
    }

    #[test]
    fn prompts_are_cut_and_short_ones_dealt_with() {
        let (prompts, counts) = made(Short::Ignore).unwrap();
        assert_eq!((prompts, counts.ignored), (vec!["abcde".to_owned()], 2));
        let (prompts, _) = made(Short::Concatenate("-".into())).unwrap();
        assert_eq!(prompts, ["abcde", "ij-kl"]);
        let (prompts, _) = made(Short::Pad("xy".into())).unwrap();
        assert_eq!(prompts, ["abcde", "ijxyx", "klmxy"]);
        let error = made(Short::Error).unwrap_err();
        assert!(error.contains("row 1 has 2 tokens, 5 are wanted"), "{error}");
    }
}
