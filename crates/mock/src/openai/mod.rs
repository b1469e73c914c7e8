//! A language model behind OpenAI's API.

mod ask;
mod embeddings;
mod envelope;
mod format;
mod history;
mod responses;
mod script;
mod stream;
mod tokenize;

use std::sync::Arc;

use bytes::Bytes;
use gatewright_protocol::openai::{
    ChatRequest, CompletionRequest, EmbeddingRequest, Model, ModelList, ResponseRequest,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde::de::DeserializeOwned;

pub(crate) use format::json;
pub(crate) use stream::TokenStream;

use crate::body::{Body, Reset};
use crate::clock::Clock;
use crate::config::OpenAiConfig;
use crate::engine::{Engine, Job};
use crate::fate::{Fate, Fates};
use crate::refusal::Refusal;
use crate::stats::{Counters, count};
use crate::visit::Visit;
use ask::Ask;
use envelope::Envelope;
use history::{Histories, Said};
use stream::Phase;

/// A language model's server.
#[derive(Debug)]
pub(crate) struct OpenAi {
    config: OpenAiConfig,
    output_tokens: gatewright_sim::Sampler,
    engine: Arc<Engine>,
    seed: u64,
    /// Seconds since 1970 at which the server started.
    created: u64,
    counters: Arc<Counters>,
    /// What was said in responses, for those that go on from them.
    histories: Histories,
}

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Pooling,
    Tokenize,
    Detokenize,
    Models,
    Model,
    Health,
}

impl Endpoint {
    /// None for a path that is not OpenAI's.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/responses" => Self::Responses,
            "/v1/embeddings" => Self::Embeddings,
            "/pooling" => Self::Pooling,
            "/tokenize" | "/v1/tokenize" => Self::Tokenize,
            "/detokenize" | "/v1/detokenize" => Self::Detokenize,
            "/v1/models" => Self::Models,
            "/health" => Self::Health,
            _ if path.starts_with(MODEL_PATH) => Self::Model,
            _ => return None,
        })
    }

    const fn method(self) -> &'static str {
        match self {
            Self::Models | Self::Model | Self::Health => "GET",
            _ => "POST",
        }
    }

    /// Whether it runs the model, and so faults can befall it.
    const fn works(self) -> bool {
        matches!(
            self,
            Self::Chat | Self::Completions | Self::Responses | Self::Embeddings | Self::Pooling
        )
    }
}

const MODEL_PATH: &str = "/v1/models/";

/// Why there is no answer.
pub(crate) enum Failure {
    /// There is one, and it says no.
    Refused(Refusal),
    /// The connection is to be reset.
    Reset(Reset),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Reset> for Failure {
    fn from(reset: Reset) -> Self {
        Self::Reset(reset)
    }
}

impl OpenAi {
    pub(crate) fn new(
        config: OpenAiConfig,
        seed: u64,
        clock: Clock,
        fates: Arc<Fates>,
        counters: Arc<Counters>,
    ) -> Self {
        let engine = Engine::new(&config, seed, clock, fates, Arc::clone(&counters));
        Self {
            output_tokens: config.output_tokens.sampler(),
            engine: Arc::new(engine),
            seed,
            created: unix_seconds(),
            histories: Histories::default(),
            counters,
            config,
        }
    }

    pub(crate) async fn answer(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        body: &Bytes,
        visit: &Visit,
    ) -> Result<Response<Body>, Reset> {
        match Box::pin(self.try_answer(endpoint, head, body, visit)).await {
            Ok(response) => Ok(response),
            Err(Failure::Refused(refusal)) => Ok(refusal.into_response()),
            Err(Failure::Reset(reset)) => Err(reset),
        }
    }

    async fn try_answer(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        body: &Bytes,
        visit: &Visit,
    ) -> Result<Response<Body>, Failure> {
        if head.method.as_str() != endpoint.method() {
            return Err(Refusal::method(endpoint.method()).into());
        }
        if endpoint != Endpoint::Health {
            self.check_key(head)?;
        }
        let fate = if endpoint.works() { visit.fate() } else { Fate::Good };
        if let Fate::Error(status) = fate {
            count(&self.counters.errors);
            return Err(Refusal::injected(status).into());
        }
        match endpoint {
            Endpoint::Chat => {
                let request: ChatRequest = read(body)?;
                self.generate(Ask::chat(&request, &self.config)?, fate, visit).await
            }
            Endpoint::Completions => {
                let request: CompletionRequest = read(body)?;
                self.generate(Ask::completion(&request, &self.config)?, fate, visit).await
            }
            Endpoint::Responses => {
                let request: ResponseRequest = read(body)?;
                let before = self.histories.before(request.previous_response_id.as_deref())?;
                let mut ask = Ask::response(&request, &before, &self.config)?;
                ask.remember = Some((before.last().cloned(), request.input));
                self.generate(ask, fate, visit).await
            }
            Endpoint::Embeddings | Endpoint::Pooling => {
                let request: EmbeddingRequest = read(body)?;
                self.embed(&request, endpoint, fate, visit).await
            }
            Endpoint::Tokenize => Ok(whole(json(&self.tokenize(&read(body)?)?))),
            Endpoint::Detokenize => Ok(whole(json(&tokenize::detokenize(&read(body)?)?))),
            Endpoint::Models => {
                let models = self.config.models.iter().map(|id| self.model(id)).collect();
                Ok(whole(json(&ModelList::new(models))))
            }
            Endpoint::Model => {
                let id = head.uri.path().strip_prefix(MODEL_PATH).unwrap_or_default();
                if !self.config.models.iter().any(|model| model == id) {
                    return Err(Refusal::no_model(id).into());
                }
                Ok(whole(json(&self.model(id))))
            }
            Endpoint::Health => Ok(Response::new(Body::from(Bytes::new()))),
        }
    }

    fn check_key(&self, head: &Parts) -> Result<(), Refusal> {
        let Some(key) = &self.config.api_key else { return Ok(()) };
        let sent = head.headers.get(http::header::AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if sent == Some(key) { Ok(()) } else { Err(Refusal::key()) }
    }

    fn model(&self, id: &str) -> Model {
        Model {
            id: id.to_owned(),
            object: "model".into(),
            created: self.created,
            owned_by: "gatewright".to_owned(),
            max_model_len: Some(self.config.context),
        }
    }

    /// Lets the model answer.
    async fn generate(
        &self,
        mut ask: Ask,
        fate: Fate,
        visit: &Visit,
    ) -> Result<Response<Body>, Failure> {
        let number = visit.number;
        let script = ask.script(&self.config, &self.output_tokens, self.seed, number)?;
        let entry = self.engine.enter();
        if entry.is_full() {
            return Err(Refusal::full().into());
        }
        let envelope = Envelope {
            id: format!("{}{number:016x}", ask.prefix),
            created: unix_seconds(),
            model: ask.model,
            prompt_tokens: ask.prompt.tokens,
            cached_tokens: 0,
            tokens: script.tokens,
            finish: script.finish.clone(),
            function: script.function().map(str::to_owned),
        };
        if let Some((before, input)) = ask.remember.take() {
            let answer = history::answer(&envelope, script.clone().whole());
            self.histories.keep(&envelope.id, Said::new(before, input, answer));
        }
        let format = ask.format.with_id(&envelope);
        let job = Job { number, prompt: ask.prompt, tokens: script.tokens, fate };
        if let Fate::Stall(..) = fate {
            count(&self.counters.stalls);
        }
        let timer = visit.timer().clone();
        let engine = Arc::clone(&self.engine);
        let start = Box::pin(engine.start(entry, job, visit.arrival, timer.clone()));
        let (reset, counters) = (visit.reset.clone(), Arc::clone(&self.counters));
        if ask.stream {
            let phase = Phase::Starting(start);
            let stream = TokenStream { phase, script, format, envelope, timer, reset, counters };
            return Ok(events(stream));
        }
        let running = start.await.ok_or_else(|| reset.set())?;
        let envelope = Envelope { cached_tokens: running.cached(), ..envelope };
        // What takes time is done before the answer is due.
        let body = format.whole(envelope, script.whole());
        if !running.finish(&timer).await {
            count(&self.counters.resets);
            return Err(reset.set().into());
        }
        Ok(whole(body))
    }
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |span| span.as_secs())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::unreadable(&error))
}

fn whole(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn events(stream: TokenStream) -> Response<Body> {
    let mut response = Response::new(Body::Tokens(Box::new(stream)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
