use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Content, ErrorObject, ResponseUsage, ToolChoice};

/// Body of `POST /v1/responses`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseRequest {
    /// The model; a server of one model may be asked without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is said.
    pub input: ResponseInput,
    /// What the system says before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The response that this one goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<String>,
    /// Whether the answer is to be streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Longest answer in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Shortest answer in tokens (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u64>,
    /// Whether the answer goes on to its longest (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// The same seed asks for the same answer (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Randomness, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Functions that the model may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ResponseTool>>,
    /// Whether it may, must or must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
}

/// What is said to the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResponseInput {
    /// Text.
    Text(String),
    /// Messages, calls and their results.
    Items(Vec<InputItem>),
}

/// One item of [`ResponseInput`]; which fields it has depends on its kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InputItem {
    /// "message" if it is left out, "function_call", "function_call_output", ...
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Who speaks, in a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What is said, in a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Arguments of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// Result of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Content>,
}

/// A function that the model may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseTool {
    /// Its kind: "function", or one of the server's own.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// Answer of `POST /v1/responses`, and what the first and last events of its stream carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Its name.
    #[serde(default)]
    pub id: String,
    /// "response".
    #[serde(default)]
    pub object: Cow<'static, str>,
    /// When it was begun, in seconds since 1970.
    #[serde(default)]
    pub created_at: u64,
    /// How far it is.
    #[serde(default)]
    pub status: ResponseStatus,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<ErrorObject>,
    /// Why it is incomplete.
    #[serde(default)]
    pub incomplete_details: Option<IncompleteDetails>,
    /// What the system said before.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Longest answer in tokens.
    #[serde(default)]
    pub max_output_tokens: Option<u64>,
    /// The model that answers.
    #[serde(default)]
    pub model: String,
    /// What the model says.
    #[serde(default)]
    pub output: Vec<OutputItem>,
    /// Whether several functions may be asked for at once.
    #[serde(default)]
    pub parallel_tool_calls: bool,
    /// The response that this one goes on from.
    #[serde(default)]
    pub previous_response_id: Option<String>,
    /// Randomness.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Whether functions may, must or must not be asked for.
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Functions that the model may ask for.
    #[serde(default)]
    pub tools: Vec<ResponseTool>,
    /// Share of the likeliest tokens.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Tokens, once they are known.
    #[serde(default)]
    pub usage: Option<ResponseUsage>,
    /// The client's own notes.
    #[serde(default)]
    pub metadata: serde_json::Map<String, Value>,
}

/// How far a [`Response`] or an item of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// Under way.
    #[default]
    InProgress,
    /// Done.
    Completed,
    /// Ended before it was done.
    Incomplete,
    /// Went wrong.
    Failed,
    /// Another word of the server.
    #[serde(untagged)]
    Other(String),
}

/// Part of [`Response`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncompleteDetails {
    /// "max_output_tokens" or "content_filter".
    pub reason: String,
}

/// One item of what the model says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// Text.
    Message {
        /// Its name.
        id: String,
        /// How far it is.
        status: ResponseStatus,
        /// "assistant".
        role: String,
        /// Its text.
        content: Vec<OutputText>,
    },
    /// A function to be called.
    FunctionCall {
        /// Its name.
        id: String,
        /// Names the call in the item that brings its result.
        call_id: String,
        /// Name of the function.
        name: String,
        /// Its arguments, as a text that should be JSON.
        arguments: String,
        /// How far it is.
        status: ResponseStatus,
    },
    /// Something else.
    #[serde(other)]
    Unknown,
}

/// Text of an [`OutputItem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputText {
    /// "output_text".
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The text.
    #[serde(default)]
    pub text: String,
    /// Sources.
    #[serde(default)]
    pub annotations: Vec<Value>,
}

impl OutputText {
    /// This text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self { kind: Cow::Borrowed("output_text"), text, annotations: Vec::new() }
    }
}
