//! A language model's server with continuous batching, as vLLM and its like have it: in each step every running
//! request gets its next token, and prompts are worked through beside them as far as the step's budget of tokens goes.

mod batch;
mod blocks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use batch::{Asked, Batcher, Given};

use crate::Law;

/// How a language model's server works off its requests, in steps. Requests that a replica was handed beyond `batch`
/// wait inside it; `concurrency` of the function says how many it is handed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmModel {
    /// Tokens of a prompt, where no trace tells them: a law of numbers, such as { log_normal = { mean = 800, cv = 1 } }.
    pub prompt: Law,
    /// Tokens of an answer, where no trace tells them.
    pub output: Law,
    /// Requests that run at a time, 1 to 65,536 (vLLM's `max_num_seqs`).
    #[serde(default = "default_batch")]
    pub batch: u32,
    /// Tokens of a step, of prompts and of answers (vLLM's `max_num_batched_tokens`): a longer prompt takes several.
    #[serde(default = "default_budget")]
    pub token_budget: u32,
    /// Tokens of a block of the key-value cache.
    #[serde(default = "default_block")]
    pub block_tokens: u32,
    /// Blocks of the key-value cache: requests beyond it wait, and running ones are put back when it is full. Without
    /// end unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks: Option<u32>,
    /// What prompts have in common; nothing unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<SharedPrefix>,
    /// How long a step takes.
    pub step: StepTime,
}

/// Beginnings that prompts share, such as system prompts: what is in the cache of them is not worked through again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedPrefix {
    /// Number of different beginnings; each request has one of them, all equally often.
    pub count: u32,
    /// Tokens of each.
    pub tokens: u32,
}

/// Seconds of a step: the sum of these (the form of Vidur's and of other models of inference).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepTime {
    /// Of every step.
    pub base: f64,
    /// For each token of a prompt.
    pub per_prompt_token: f64,
    /// For each request that gets a token.
    pub per_request: f64,
    /// For each token that these have before them.
    pub per_context_token: f64,
}

const fn default_batch() -> u32 {
    256
}

const fn default_budget() -> u32 {
    8_192
}

const fn default_block() -> u32 {
    16
}

impl LlmModel {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The first number out of range.
    pub fn check(&self) -> Result<(), String> {
        let law = |name: &str, law: &Law| law.check().map_err(|fault| format!("{name}: {fault}"));
        law("prompt", &self.prompt)?;
        law("output", &self.output)?;
        let whole = [
            ("batch", self.batch, 65_536),
            ("token_budget", self.token_budget, 10_000_000),
            ("block_tokens", self.block_tokens, 65_536),
            ("kv_blocks", self.kv_blocks.unwrap_or(1), 1_000_000_000),
            ("prefix.count", self.prefix.map_or(1, |prefix| prefix.count), 1_000_000),
            ("prefix.tokens", self.prefix.map_or(1, |prefix| prefix.tokens), 10_000_000),
        ];
        for (name, value, most) in whole {
            if !(1..=most).contains(&value) {
                return Err(format!("{name} is {value}; give 1 to {most}"));
            }
        }
        let StepTime { base, per_prompt_token, per_request, per_context_token } = self.step;
        let seconds = [base, per_prompt_token, per_request, per_context_token];
        if !seconds.iter().all(|part| (0.0..=3_600.0).contains(part)) {
            return Err("step: give seconds, 0 to 3600".to_owned());
        }
        // A step that takes no time would let time stand still.
        if base + per_request < 1e-9 {
            return Err("step: `base` or `per_request` must be above 0".to_owned());
        }
        Ok(())
    }
}
