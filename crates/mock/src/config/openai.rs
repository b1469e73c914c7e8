use std::num::NonZeroU32;

use gatewright_sim::Law;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_law, check_range};
use crate::MockError;

/// A language model behind OpenAI's API, batching continuously.
///
/// A request waits for one of `slots`, then for its prefill, which ends with the first token; then comes a token
/// every `itl` seconds. So, for a request that finds the server idle,
/// TTFT = `ttft` + `prefill_per_token` * (prompt tokens - cached ones), and token k is due k gaps later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// Models that `/v1/models` lists, at least one. Any name may be asked for; no name is the first.
    pub models: Vec<String>,
    /// Key that a client must send (`Authorization: Bearer`); any or none if left out.
    pub api_key: Option<String>,
    /// Most tokens of prompt and answer together, 1 to 100 million.
    pub context: u64,
    /// Law of the number of tokens of an answer (where a law says seconds, read tokens), unless the request asks
    /// for fewer or says `ignore_eos`.
    pub output_tokens: Law,
    /// Time from the start of the prefill to the first token, besides `prefill_per_token`.
    pub ttft: Law,
    /// Seconds of prefill for each token of the prompt that the prefix cache does not know, 0 to 1.
    pub prefill_per_token: f64,
    /// Prompts that are prefilled at a time; the others wait in line. No limit if left out.
    pub prefill_parallel: Option<NonZeroU32>,
    /// Gap between two tokens of an answer that has the server for itself.
    pub itl: Law,
    /// Seconds by which each further request in the batch lengthens every gap, 0 to 10.
    pub itl_per_request: f64,
    /// Requests in the batch at most; the others wait in line. No limit if left out.
    pub slots: Option<NonZeroU32>,
    /// Requests that may wait; one more is answered 503 at once.
    pub queue: u32,
    /// What prompts have in common is prefilled once; every prompt is new if left out.
    pub prefix_cache: Option<PrefixCache>,
    /// Length of the vectors of `/v1/embeddings` where the request does not say, 1 to 65536.
    pub embedding_dimensions: u64,
    /// Tokens that a picture in a prompt counts.
    pub image_tokens: u64,
}

/// A cache of prefilled blocks of tokens, as vLLM's: a block is known if it and all before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixCache {
    /// Blocks that it holds, 1 to 10 million; the least recently used makes room.
    pub blocks: u32,
    /// Tokens of a block, 1 to 4096.
    pub block_tokens: u32,
}

impl Default for PrefixCache {
    fn default() -> Self {
        Self { blocks: 100_000, block_tokens: 16 }
    }
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            models: vec!["mock".to_owned()],
            api_key: None,
            context: 131_072,
            output_tokens: Law::Fixed(128.0),
            ttft: Law::Fixed(0.15),
            prefill_per_token: 0.0,
            prefill_parallel: None,
            itl: Law::Fixed(0.01),
            itl_per_request: 0.0,
            slots: NonZeroU32::new(256),
            queue: 10_000,
            prefix_cache: None,
            embedding_dimensions: 384,
            image_tokens: 576,
        }
    }
}

impl OpenAiConfig {
    pub(super) fn check(&self) -> Result<(), MockError> {
        if self.models.is_empty() {
            let what = "there is no model; name one".to_owned();
            return Err(MockError::Config { key: "openai.models".to_owned(), what });
        }
        check_range("openai.context", self.context as f64, 1.0, 1e8)?;
        check_law("openai.output_tokens", &self.output_tokens)?;
        check_law("openai.ttft", &self.ttft)?;
        check_range("openai.prefill_per_token", self.prefill_per_token, 0.0, 1.0)?;
        check_law("openai.itl", &self.itl)?;
        check_range("openai.itl_per_request", self.itl_per_request, 0.0, 10.0)?;
        check_range(
            "openai.embedding_dimensions",
            self.embedding_dimensions as f64,
            1.0,
            65_536.0,
        )?;
        check_range("openai.image_tokens", self.image_tokens as f64, 0.0, 1e6)?;
        let Some(cache) = self.prefix_cache else { return Ok(()) };
        check_range("openai.prefix_cache.blocks", f64::from(cache.blocks), 1.0, 1e7)?;
        check_range("openai.prefix_cache.block_tokens", f64::from(cache.block_tokens), 1.0, 4096.0)
    }
}
