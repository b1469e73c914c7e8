use std::path::Path;
use std::sync::Arc;

use tokenizers::Tokenizer;

use super::preprocess::Tokens;
use super::{DataError, synthetic};

/// A tokenizer in Hugging Face's format, read from a file such as `tokenizer.json`.
#[derive(Debug)]
pub struct LocalTokenizer {
    tokenizer: Tokenizer,
}

/// Fewer words than that would make prompts that are all alike.
const LEAST_WORDS: usize = 64;

impl LocalTokenizer {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let tokenizer = Tokenizer::from_file(path)
            .map_err(|fault| DataError::of(path, format!("it is no tokenizer: {fault}")))?;
        Ok(Self { tokenizer })
    }

    /// Words of which so many are so many tokens.
    pub(super) fn words(&self, path: &Path) -> Result<Arc<[&'static str]>, DataError> {
        // Of a word that is another token after a space, three would not be three.
        let fits = |word: &&str| self.encode(&format!("{word} {word} {word}")).len() == 3;
        let words: Arc<[&'static str]> = synthetic::words().iter().copied().filter(fits).collect();
        let text = words.join(" ");
        if words.len() < LEAST_WORDS || self.encode(&text).len() != words.len() {
            let what = "common words are not tokens of it, so no text of an exact length can be made up; \
                        give data in a file";
            return Err(DataError::of(path, what));
        }
        Ok(words)
    }
}

impl Tokens for LocalTokenizer {
    fn encode(&self, text: &str) -> Vec<u32> {
        let encoded = self.tokenizer.encode_fast(text, false);
        encoded.map(|encoded| encoded.get_ids().to_vec()).unwrap_or_default()
    }

    fn decode(&self, tokens: &[u32]) -> Option<String> {
        let text = self.tokenizer.decode(tokens, false).ok()?;
        // Half a character is decoded as one that stands for none.
        (!text.ends_with('\u{fffd}')).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataSpec;

    /// A tokenizer that knows the first `count` common words, and letters.
    fn file(count: usize) -> tempfile::TempDir {
        let words = synthetic::words().iter().take(count).map(|word| (*word).to_owned());
        let letters = ('a'..='z').flat_map(|letter| [letter.to_string(), format!("##{letter}")]);
        let all = ["[UNK]".to_owned()].into_iter().chain(letters).chain(words);
        let mut vocabulary = serde_json::Map::new();
        for word in all {
            let next = vocabulary.len();
            vocabulary.entry(word).or_insert(next.into());
        }
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
            "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": false },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary,
            },
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        folder
    }

    #[test]
    fn text_is_made_up_of_its_words() {
        let folder = file(200);
        let spec: DataSpec =
            toml::from_str("synthetic = { prompt_tokens = 50, tokenizer = \"tokenizer.json\" }")
                .unwrap();
        let mut data = spec.open(folder.path(), 1, None).unwrap();
        let tokenizer = LocalTokenizer::open(&folder.path().join("tokenizer.json")).unwrap();
        for row in 0..50 {
            let text = data.value(row, "prompt").into_owned();
            let tokens = tokenizer.encode(&text);
            assert_eq!(tokens.len(), 50, "{text}");
            assert_eq!(tokenizer.decode(&tokens), Some(text));
        }
        assert_eq!(tokenizer.encode("zqx").len(), 3);
    }

    #[test]
    fn one_that_cannot_be_used_is_refused() {
        let folder = file(10);
        let spec: DataSpec =
            toml::from_str("synthetic = { prompt_tokens = 50, tokenizer = \"tokenizer.json\" }")
                .unwrap();
        let error = spec.open(folder.path(), 1, None).unwrap_err().to_string();
        assert!(error.contains("common words are not tokens"), "{error}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = spec.open(folder.path(), 1, None).unwrap_err().to_string();
        assert!(error.contains("it is no tokenizer"), "{error}");
    }
}
