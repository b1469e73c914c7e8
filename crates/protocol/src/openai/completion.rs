use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{FinishReason, StreamOptions, Usage};

/// Body of `POST /v1/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRequest {
    /// The model; a server of one model may be asked without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What to go on from.
    pub prompt: Prompt,
    /// Whether the answer is to be streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What else the stream is to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Longest answer in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Shortest answer in tokens (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u64>,
    /// Whether the answer goes on to its longest (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// Number of answers wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The same seed asks for the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Randomness, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A prompt, or several at once; also the input of embeddings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Numbers of tokens.
    Tokens(Vec<u64>),
    /// Several of them.
    TokenLists(Vec<Vec<u64>>),
}

impl Prompt {
    /// How many prompts it is.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Text(_) | Self::Tokens(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenLists(lists) => lists.len(),
        }
    }
}

/// Answer of `POST /v1/completions` without streaming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Its name.
    #[serde(default)]
    pub id: String,
    /// "text_completion".
    #[serde(default = "text_completion")]
    pub object: Cow<'static, str>,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// The answers.
    pub choices: Vec<CompletionChoice>,
    /// Their tokens.
    #[serde(default)]
    pub usage: Option<Usage>,
}

fn text_completion() -> Cow<'static, str> {
    Cow::Borrowed("text_completion")
}

impl Completion {
    /// An answer; `created` in seconds since 1970.
    #[must_use]
    pub fn new(
        id: String,
        created: u64,
        model: String,
        choice: CompletionChoice,
        usage: Usage,
    ) -> Self {
        let object = text_completion();
        Self { id, object, created, model, choices: vec![choice], usage: Some(usage) }
    }
}

/// One answer of a [`Completion`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Its text.
    pub text: String,
    /// Its number, from 0.
    #[serde(default)]
    pub index: u64,
    /// Probabilities of the tokens, if they were asked for.
    #[serde(default)]
    pub logprobs: Option<serde_json::Value>,
    /// Why it ends.
    pub finish_reason: Option<FinishReason>,
}

/// One event of a streamed [`Completion`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionChunk<'a> {
    /// Name of the answer, the same in all its chunks.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// "text_completion".
    #[serde(borrow, default)]
    pub object: Cow<'a, str>,
    /// When the answer was begun, in seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// The model that answers.
    #[serde(borrow, default)]
    pub model: Cow<'a, str>,
    /// What is new; nothing in the chunk that carries the usage.
    #[serde(borrow)]
    pub choices: Vec<CompletionChunkChoice<'a>>,
    /// Outer none: the field is left out, as when no usage was asked for. Inner none: `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// What is new in one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionChunkChoice<'a> {
    /// More text.
    #[serde(borrow)]
    pub text: Cow<'a, str>,
    /// Number of the answer, from 0.
    #[serde(default)]
    pub index: u64,
    /// Probabilities of the tokens, if they were asked for.
    #[serde(default)]
    pub logprobs: Option<serde_json::Value>,
    /// Why the answer ends, in its last chunk.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}
