use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// In words.
    pub message: String,
    /// Its kind, such as "invalid_request_error".
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// The field of the request that is wrong.
    #[serde(default)]
    pub param: Option<String>,
    /// A word (OpenAI) or the status (vLLM).
    #[serde(default)]
    pub code: Option<Value>,
}
