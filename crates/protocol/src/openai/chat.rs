use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Content, StreamOptions, Tool, ToolCall, ToolChoice, Usage};

/// Body of `POST /v1/chat/completions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model; a server of one model may be asked without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Whether the answer is to be streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// What else the stream is to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Longest answer in tokens, by its older name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Longest answer in tokens; counts before `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
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
    /// Functions that the model may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// Whether it may, must or must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
}

/// A message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: "system", "developer", "user", "assistant" or "tool".
    pub role: String,
    /// What is said.
    #[serde(default)]
    pub content: Option<Content>,
    /// Calls that the assistant asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call whose result a tool's message brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// Answer of `POST /v1/chat/completions` without streaming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// Its name.
    #[serde(default)]
    pub id: String,
    /// "chat.completion".
    #[serde(default = "chat_completion")]
    pub object: Cow<'static, str>,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Their tokens.
    #[serde(default)]
    pub usage: Option<Usage>,
}

fn chat_completion() -> Cow<'static, str> {
    Cow::Borrowed("chat.completion")
}

impl ChatCompletion {
    /// An answer; `created` in seconds since 1970.
    #[must_use]
    pub fn new(id: String, created: u64, model: String, choice: ChatChoice, usage: Usage) -> Self {
        let object = chat_completion();
        Self { id, object, created, model, choices: vec![choice], usage: Some(usage) }
    }
}

/// One answer of a [`ChatCompletion`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// Its number, from 0.
    #[serde(default)]
    pub index: u64,
    /// What the model says.
    pub message: Answer,
    /// Probabilities of the tokens, if they were asked for.
    #[serde(default)]
    pub logprobs: Option<serde_json::Value>,
    /// Why it ends.
    pub finish_reason: Option<FinishReason>,
}

/// What the model says, in one piece.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// "assistant".
    pub role: String,
    /// The text.
    pub content: Option<String>,
    /// Why it does not answer, if it does not.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Calls that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// Why an answer ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// It was as long as allowed.
    Length,
    /// The model asks for functions to be called.
    ToolCalls,
    /// Something was held back.
    ContentFilter,
    /// A reason of one server.
    #[serde(untagged)]
    Other(String),
}
