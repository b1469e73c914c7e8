//! Messages of OpenAI's HTTP API as they are on the wire, with what vLLM adds (`ignore_eos`, `min_tokens`,
//! `/tokenize`).
//!
//! Reading is lenient: unknown fields are ignored, and what a server may leave out is optional. Writing is
//! exact: a field that OpenAI always sends is sent, as `null` where it is empty. Numbers of tokens are the
//! sender's own.

mod chat;
mod chat_chunk;
mod completion;
mod content;
mod embedding;
mod error;
mod model;
mod response;
mod response_event;
mod tokenize;
mod tool;
mod usage;

pub use chat::{Answer, ChatChoice, ChatCompletion, ChatRequest, FinishReason, Message};
pub use chat_chunk::{ChatChunk, ChatChunkChoice, ChatDelta, FunctionDelta, ToolCallDelta};
pub use completion::{
    Completion, CompletionChoice, CompletionChunk, CompletionChunkChoice, CompletionRequest, Prompt,
};
pub use content::{Content, Part};
pub use embedding::{Embedding, EmbeddingRequest, EmbeddingValues, Embeddings};
pub use error::{ErrorBody, ErrorObject};
pub use model::{Model, ModelList};
pub use response::{
    IncompleteDetails, InputItem, OutputItem, OutputText, Response, ResponseInput, ResponseRequest,
    ResponseStatus, ResponseTool,
};
pub use response_event::ResponseEvent;
pub use tokenize::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};
pub use tool::{FunctionCall, FunctionSpec, Tool, ToolCall, ToolChoice};
pub use usage::{
    CompletionTokensDetails, PromptTokensDetails, ResponseUsage, StreamOptions, Usage,
};
