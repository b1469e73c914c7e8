use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Prompt, Usage};

/// Body of `POST /v1/embeddings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingRequest {
    /// The model; a server of one model may be asked without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What to embed.
    pub input: Prompt,
    /// How vectors are written: "float" (default) or "base64" (little-endian `f32`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
    /// Length of a vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
}

/// Answer of `POST /v1/embeddings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// "list".
    #[serde(default = "list")]
    pub object: Cow<'static, str>,
    /// A vector for each input, in order.
    pub data: Vec<Embedding>,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// Tokens of the inputs.
    #[serde(default)]
    pub usage: Option<Usage>,
}

fn list() -> Cow<'static, str> {
    Cow::Borrowed("list")
}

impl Embeddings {
    /// An answer: a vector for each input.
    #[must_use]
    pub fn new(vectors: Vec<EmbeddingValues>, model: String, usage: Usage) -> Self {
        let object = Cow::Borrowed("embedding");
        let data = (0..).zip(vectors);
        let data =
            data.map(|(index, embedding)| Embedding { object: object.clone(), index, embedding });
        Self { object: list(), data: data.collect(), model, usage: Some(usage) }
    }
}

/// The vector of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// "embedding".
    #[serde(default)]
    pub object: Cow<'static, str>,
    /// Number of the input, from 0.
    #[serde(default)]
    pub index: u64,
    /// Its vector.
    pub embedding: EmbeddingValues,
}

/// A vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingValues {
    /// Its numbers.
    Floats(Vec<f32>),
    /// Their bytes (little-endian) in base64.
    Base64(String),
}
