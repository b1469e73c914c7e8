use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{FinishReason, Usage};

/// One event of a streamed [`ChatCompletion`](super::ChatCompletion).
///
/// Texts are borrowed where they can be: a writer makes many of these out of one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk<'a> {
    /// Name of the answer, the same in all its chunks.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// "chat.completion.chunk".
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
    pub choices: Vec<ChatChunkChoice<'a>>,
    /// Outer none: the field is left out, as when no usage was asked for. Inner none: `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// What is new in one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatChunkChoice<'a> {
    /// Number of the answer, from 0.
    #[serde(default)]
    pub index: u64,
    /// What is new.
    #[serde(borrow)]
    pub delta: ChatDelta<'a>,
    /// Probabilities of the tokens, if they were asked for.
    #[serde(default)]
    pub logprobs: Option<serde_json::Value>,
    /// Why the answer ends, in its last chunk.
    #[serde(default)]
    pub finish_reason: Option<FinishReason>,
}

/// Part of [`ChatChunkChoice`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatDelta<'a> {
    /// "assistant", in the first chunk.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Cow<'a, str>>,
    /// More text.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Cow<'a, str>>,
    /// More of the model's thoughts (vLLM, DeepSeek).
    #[serde(borrow, default, alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<Cow<'a, str>>,
    /// More of the calls that it asks for.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta<'a>>>,
}

/// More of one call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCallDelta<'a> {
    /// Number of the call, from 0.
    #[serde(default)]
    pub index: u64,
    /// Its name, in its first delta.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// "function", in its first delta.
    #[serde(rename = "type", borrow, default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Cow<'a, str>>,
    /// What to call.
    #[serde(borrow, default)]
    pub function: FunctionDelta<'a>,
}

/// Part of [`ToolCallDelta`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDelta<'a> {
    /// Name of the function, in the call's first delta.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// More of its arguments.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Cow<'a, str>>,
}
