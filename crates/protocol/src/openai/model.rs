use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// "list".
    #[serde(default)]
    pub object: Cow<'static, str>,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// These models.
    #[must_use]
    pub const fn new(data: Vec<Model>) -> Self {
        Self { object: Cow::Borrowed("list"), data }
    }
}

/// A model that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// "model".
    #[serde(default)]
    pub object: Cow<'static, str>,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub created: u64,
    /// Whose it is.
    #[serde(default)]
    pub owned_by: String,
    /// Most tokens of prompt and answer together (vLLM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u64>,
}
