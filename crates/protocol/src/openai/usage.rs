use serde::{Deserialize, Serialize};

/// Tokens of a request and its answer, for chat, completions and embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer; embeddings have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// Their sum.
    pub total_tokens: u64,
    /// What is known of the prompt's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// What is known of the answer's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Tokens of the prompt that a prefix cache knew.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// Part of [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionTokensDetails {
    /// Tokens that the model thought and did not show.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

/// Tokens of a request and its answer, for `/v1/responses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseUsage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// What is known of them.
    #[serde(default)]
    pub input_tokens_details: PromptTokensDetails,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// What is known of them.
    #[serde(default)]
    pub output_tokens_details: CompletionTokensDetails,
    /// Their sum.
    pub total_tokens: u64,
}

/// What else a stream is to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// Whether a last chunk without choices carries the usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
    /// Whether every chunk carries the usage so far (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuous_usage_stats: Option<bool>,
}
