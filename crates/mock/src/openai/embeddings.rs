use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatewright_determinism::{Purpose, Stream};
use gatewright_protocol::openai::{self, EmbeddingRequest, EmbeddingValues, Embeddings, Usage};
use http::Response;
use serde_json::{Value, json};

use super::format::json as written;
use super::{Endpoint, Failure, OpenAi, whole};
use crate::body::Body;
use crate::engine::Job;
use crate::fate::Fate;
use crate::prompt::{Prompt, PromptBuilder};
use crate::refusal::Refusal;
use crate::stats::count;
use crate::visit::Visit;

/// Most inputs of one request, and most numbers of all its vectors.
const MAX_INPUTS: usize = 2048;
const MAX_NUMBERS: u64 = 4 << 20;
const MAX_DIMENSIONS: u64 = 65_536;

impl OpenAi {
    pub(super) async fn embed(
        &self,
        request: &EmbeddingRequest,
        endpoint: Endpoint,
        fate: Fate,
        visit: &Visit,
    ) -> Result<Response<Body>, Failure> {
        let dimensions = request.dimensions.unwrap_or(self.config.embedding_dimensions);
        let inputs = inputs(&request.input);
        check(dimensions, &inputs)?;
        let base64 = match request.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let what = format!("\"{other}\" is unknown; write \"float\" or \"base64\"");
                return Err(Refusal::bad("encoding_format", what).into());
            }
        };
        let tokens = inputs.iter().map(|input| input.tokens).sum();
        if tokens > self.config.context {
            let what = format!("{tokens} tokens are more than {}", self.config.context);
            return Err(Refusal::bad("input", what).into());
        }
        let entry = self.engine.enter();
        if entry.is_full() {
            return Err(Refusal::full().into());
        }
        if let Fate::Stall(..) = fate {
            count(&self.counters.stalls);
        }
        let prompt = Prompt { tokens, ..Prompt::default() };
        let job = Job { number: visit.number, prompt, tokens: 0, fate };
        let start = Arc::clone(&self.engine);
        let start = Box::pin(start.start(entry, job, visit.arrival, visit.timer().clone()));
        let running = start.await.ok_or_else(|| visit.reset.set())?;
        // What takes time is done before the answer is due.
        let vector = |input: &Prompt| vector(self.seed, input.hash, dimensions, base64);
        let vectors: Vec<_> = inputs.iter().map(vector).collect();
        let usage = Usage { prompt_tokens: tokens, total_tokens: tokens, ..Usage::default() };
        let model = request.model.clone().unwrap_or_else(|| self.config.models[0].clone());
        let body = if endpoint == Endpoint::Pooling {
            written(&pooled(&vectors, &model, &usage, visit.number))
        } else {
            written(&Embeddings::new(vectors, model, usage))
        };
        if !running.finish(visit.timer()).await {
            count(&self.counters.resets);
            return Err(visit.reset.set().into());
        }
        Ok(whole(body))
    }
}

/// The same numbers as vLLM's `/pooling` has them.
fn pooled(vectors: &[EmbeddingValues], model: &str, usage: &Usage, number: u64) -> Value {
    let one = |(index, data)| json!({ "index": index, "object": "pooling", "data": data });
    let data: Vec<_> = vectors.iter().enumerate().map(one).collect();
    let id = format!("pool-{number:016x}");
    json!({ "id": id, "object": "list", "model": model, "data": data, "usage": usage })
}

fn check(dimensions: u64, inputs: &[Prompt]) -> Result<(), Refusal> {
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let what = format!("{dimensions} is out of range; give 1 to {MAX_DIMENSIONS}");
        return Err(Refusal::bad("dimensions", what));
    }
    if !(1..=MAX_INPUTS).contains(&inputs.len()) {
        let what = format!("{} inputs are out of range; give 1 to {MAX_INPUTS}", inputs.len());
        return Err(Refusal::bad("input", what));
    }
    if inputs.len() as u64 * dimensions > MAX_NUMBERS {
        let what = format!("more than {MAX_NUMBERS} numbers in all; give fewer inputs");
        return Err(Refusal::bad("input", what));
    }
    Ok(())
}

fn inputs(input: &openai::Prompt) -> Vec<Prompt> {
    let text = |text: &str| {
        let mut prompt = PromptBuilder::new(0, u64::MAX);
        prompt.text(text);
        prompt.build()
    };
    let numbers = |numbers: &[u64]| {
        let mut prompt = PromptBuilder::new(0, u64::MAX);
        numbers.iter().for_each(|&number| prompt.token(number));
        prompt.build()
    };
    match input {
        openai::Prompt::Text(one) => vec![text(one)],
        openai::Prompt::Texts(texts) => texts.iter().map(|one| text(one)).collect(),
        openai::Prompt::Tokens(one) => vec![numbers(one)],
        openai::Prompt::TokenLists(lists) => lists.iter().map(|one| numbers(one)).collect(),
    }
}

/// A vector of length 1 whose direction depends on the seed and the input's hash alone.
fn vector(seed: u64, hash: u64, dimensions: u64, base64: bool) -> EmbeddingValues {
    let mut luck = Stream::new(seed, Purpose::Content, hash);
    let values: Vec<f64> = (0..dimensions).map(|_| luck.normal()).collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let unit = values.into_iter().map(|value| (value / length.max(f64::MIN_POSITIVE)) as f32);
    if base64 {
        let bytes: Vec<u8> = unit.flat_map(f32::to_le_bytes).collect();
        EmbeddingValues::Base64(STANDARD.encode(bytes))
    } else {
        EmbeddingValues::Floats(unit.collect())
    }
}
