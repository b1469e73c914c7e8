use serde::{Deserialize, Serialize};

use super::Message;

/// Body of `POST /tokenize` (vLLM): a prompt or messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenizeRequest {
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Text.
    #[serde(default, alias = "text", skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Or a conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
}

/// Answer of `POST /tokenize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokenized {
    /// Number of tokens.
    pub count: u64,
    /// Most tokens of prompt and answer together.
    #[serde(default)]
    pub max_model_len: Option<u64>,
    /// Their numbers.
    #[serde(default)]
    pub tokens: Vec<u64>,
}

/// Body of `POST /detokenize` (vLLM).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetokenizeRequest {
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Numbers of tokens.
    pub tokens: Vec<u64>,
}

/// Answer of `POST /detokenize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detokenized {
    /// Their text.
    pub prompt: String,
}
