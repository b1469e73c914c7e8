use gatewright_protocol::openai::{
    ChatRequest, CompletionRequest, Content, EmbeddingRequest, Message, Prompt, ResponseInput,
    ResponseRequest, StreamOptions,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    AnswerKind, BenchError, Data, Dialogue, DialogueForm, Target, ToolTurns, WeightedTarget,
};

/// A language model behind OpenAI's API, to be asked with prompts.
#[derive(Clone, Debug)]
pub struct OpenAi {
    /// `http://host[:port]`, with or without `/v1`.
    pub url: String,
    /// What is asked.
    pub api: OpenAiApi,
    /// The model; a server of one model may be asked without.
    pub model: Option<String>,
    /// Prompts, one after the other, from the first again after the last; at least one.
    pub prompts: Vec<String>,
    /// Tokens of each answer: the longest one, and with `exact_tokens` the only length.
    pub max_tokens: Option<u64>,
    /// Whether the model shall go on to the longest answer (`ignore_eos`, known to vLLM and others).
    pub exact_tokens: bool,
    /// Whether answers are streamed.
    pub stream: bool,
    /// What stands as the model's answers in the later turns of a conversation.
    pub replies: Replies,
    /// Calls that the model has to make, in chats and responses.
    pub tools: ToolTurns,
    /// Path of the API, if it is another than OpenAI's, such as `/api/v2/chat`.
    pub path: Option<String>,
    /// Further fields of each request, such as `temperature`; they go over those that are set otherwise.
    pub extra: Map<String, Value>,
    /// Key that is sent as a bearer token.
    pub api_key: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

/// Which of OpenAI's APIs is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenAiApi {
    /// `/v1/chat/completions`.
    #[default]
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/responses`.
    Responses,
    /// `/v1/embeddings`, which has no stream and no tokens in its answer.
    Embeddings,
}

/// What stands as the model's answers in the later turns of a chat, where requests come in sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replies {
    /// What the server answered. Prompts, too, then go on from what was said before.
    #[default]
    Real,
    /// What the data has: messages with all that was said in the file. Prompts stand for themselves.
    Recorded,
    /// What the server remembers (`previous_response_id`): it is told only what is new. Of responses only.
    Server,
}

impl OpenAiApi {
    /// Name of the field with what was said, where that is more than one text.
    const fn said(self) -> Option<&'static str> {
        match self {
            Self::Chat => Some("messages"),
            Self::Responses => Some("input"),
            Self::Completions | Self::Embeddings => None,
        }
    }

    /// Whether its requests can go on from answers before.
    pub(crate) const fn has_turns(self) -> bool {
        self.said().is_some()
    }
}

impl OpenAi {
    /// Streamed chat with one prompt.
    #[must_use]
    pub fn chat(url: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api: OpenAiApi::Chat,
            model: None,
            prompts: vec![prompt.into()],
            max_tokens: None,
            exact_tokens: false,
            stream: true,
            replies: Replies::default(),
            tools: ToolTurns::default(),
            path: None,
            extra: Map::new(),
            api_key: None,
            headers: Vec::new(),
        }
    }

    /// The requests as targets of equal weight, one for each prompt, for [`Plan::mix`](crate::Plan::mix). With data,
    /// one whose prompt (or `messages`) and number of tokens are filled from it.
    ///
    /// # Errors
    /// There is no prompt, or the bodies cannot be written.
    pub fn targets(&self, data: Option<&Data>) -> Result<Vec<WeightedTarget>, BenchError> {
        self.check()?;
        if let Some(data) = data {
            return Ok(vec![self.target(self.template(data)?)]);
        }
        if self.prompts.is_empty() {
            return Err(BenchError::Request("there is no prompt; give at least one".into()));
        }
        self.prompts.iter().map(|prompt| Ok(self.target(self.written(prompt)?))).collect()
    }

    fn check(&self) -> Result<(), BenchError> {
        let fail = |what: &str| Err(BenchError::Request(what.to_owned()));
        if self.replies == Replies::Server && self.api != OpenAiApi::Responses {
            return fail("only a server of responses remembers what was said; ask for responses");
        }
        if self.tools.turns > 0 && !self.api.has_turns() {
            return fail("only chats and responses have tools; ask for one of them");
        }
        Ok(self.tools.result_tokens.check("tool_result_tokens")?)
    }

    fn written(&self, prompt: &str) -> Result<Vec<u8>, BenchError> {
        let fail = |error: serde_json::Error| BenchError::Request(error.to_string());
        let body = self.body(prompt).map_err(fail)?;
        if self.extra.is_empty() && self.tools.turns == 0 {
            return Ok(body);
        }
        let mut body: Map<String, Value> = serde_json::from_slice(&body).map_err(fail)?;
        if self.tools.turns > 0 {
            body.insert("tools".to_owned(), Value::Array(vec![self.some_tool()]));
            body.insert("tool_choice".to_owned(), "required".into());
        }
        body.extend(self.extra.clone());
        serde_json::to_vec(&body).map_err(fail)
    }

    fn target(&self, body: Vec<u8>) -> WeightedTarget {
        let (url, headers) = (self.endpoint(), self.all_headers());
        let target = Target { url, method: "POST".into(), headers, body };
        let form = match self.api {
            OpenAiApi::Responses => DialogueForm::Items,
            _ => DialogueForm::Messages,
        };
        let dialogue = Dialogue { form, tools: self.tools };
        WeightedTarget { name: None, weight: 1.0, target, answer: AnswerKind::OpenAi, dialogue }
    }

    /// A tool for models that have to call one, where nobody says which.
    fn some_tool(&self) -> Value {
        let query = json!({ "type": "string", "description": "Words to look for." });
        let mut function = json!({
            "name": "look_up",
            "description": "Looks something up.",
            "parameters": {
                "type": "object", "properties": { "query": query }, "required": ["query"],
            },
        });
        if self.api == OpenAiApi::Responses {
            function["type"] = "function".into();
            return function;
        }
        json!({ "type": "function", "function": function })
    }

    /// The body with places for what the data has: `prompt` or `messages`, and `output_tokens`.
    fn template(&self, data: &Data) -> Result<Vec<u8>, BenchError> {
        const RECORDED: &str = "{{messages|messages}}";
        const REAL: &str = "{{messages|conversation}}";
        const TURN: &str = "{{prompt|turn}}";
        const TOKENS: &str = "{{output_tokens|raw}}";
        const PREVIOUS: &str = "{{turn|previous}}";
        const CHOICE: &str = "{{turn|tool_choice}}";
        let has = |column| data.check_column(column).is_ok();
        let body = self.written("{{prompt}}")?;
        let mut body: Value = serde_json::from_slice(&body)
            .map_err(|error| BenchError::Request(error.to_string()))?;
        if let Some(name) = self.api.said() {
            match (has("messages"), self.replies) {
                (true, Replies::Recorded) => body[name] = RECORDED.into(),
                (true, Replies::Real | Replies::Server) => body[name] = REAL.into(),
                (false, Replies::Real | Replies::Server) => body[name] = TURN.into(),
                (false, Replies::Recorded) => {}
            }
        }
        if self.replies == Replies::Server {
            body["previous_response_id"] = PREVIOUS.into();
        }
        if self.tools.turns > 0 && !self.extra.contains_key("tool_choice") {
            body["tool_choice"] = CHOICE.into();
        }
        if self.max_tokens.is_none() && self.api != OpenAiApi::Embeddings && has("output_tokens") {
            let names: &[&str] = match self.api {
                OpenAiApi::Chat => &["max_tokens", "max_completion_tokens"],
                OpenAiApi::Responses => &["max_output_tokens"],
                OpenAiApi::Completions | OpenAiApi::Embeddings => &["max_tokens"],
            };
            names.iter().for_each(|name| body[name] = TOKENS.into());
            if self.exact_tokens {
                body["min_tokens"] = TOKENS.into();
                body["ignore_eos"] = true.into();
            }
        }
        // Messages and numbers stand without quotation marks.
        let text = [RECORDED, REAL, TURN, TOKENS, PREVIOUS, CHOICE]
            .iter()
            .fold(body.to_string(), |text, place| text.replace(&format!("\"{place}\""), place));
        Ok(text.into_bytes())
    }

    fn endpoint(&self) -> String {
        let base = self.url.trim_end_matches('/');
        if let Some(path) = &self.path {
            return format!("{base}/{}", path.trim_start_matches('/'));
        }
        let base = base.strip_suffix("/v1").unwrap_or(base);
        match self.api {
            OpenAiApi::Chat => format!("{base}/v1/chat/completions"),
            OpenAiApi::Completions => format!("{base}/v1/completions"),
            OpenAiApi::Responses => format!("{base}/v1/responses"),
            OpenAiApi::Embeddings => format!("{base}/v1/embeddings"),
        }
    }

    fn all_headers(&self) -> Vec<(String, String)> {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if let Some(key) = &self.api_key {
            headers.push(("authorization".to_owned(), format!("Bearer {key}")));
        }
        headers.extend(self.headers.iter().cloned());
        headers
    }

    fn body(&self, prompt: &str) -> Result<Vec<u8>, serde_json::Error> {
        let include_usage = Some(true);
        let stream_options =
            self.stream.then(|| StreamOptions { include_usage, ..StreamOptions::default() });
        let exact = self.exact_tokens && self.max_tokens.is_some();
        let (ignore_eos, min_tokens) = (exact.then_some(true), self.max_tokens.filter(|_| exact));
        let (model, stream, max_tokens) = (self.model.clone(), Some(self.stream), self.max_tokens);
        match self.api {
            OpenAiApi::Chat => {
                let content = Some(Content::Text(prompt.to_owned()));
                let message = Message { role: "user".into(), content, ..Message::default() };
                serde_json::to_vec(&ChatRequest {
                    model,
                    messages: vec![message],
                    stream,
                    stream_options,
                    // Both names: older servers know the one, OpenAI wants the other.
                    max_tokens,
                    max_completion_tokens: max_tokens,
                    min_tokens,
                    ignore_eos,
                    ..ChatRequest::default()
                })
            }
            OpenAiApi::Completions => serde_json::to_vec(&CompletionRequest {
                model,
                prompt: Prompt::Text(prompt.to_owned()),
                stream,
                stream_options,
                max_tokens,
                min_tokens,
                ignore_eos,
                n: None,
                seed: None,
                temperature: None,
            }),
            OpenAiApi::Responses => serde_json::to_vec(&ResponseRequest {
                model,
                input: ResponseInput::Text(prompt.to_owned()),
                instructions: None,
                previous_response_id: None,
                stream,
                max_output_tokens: max_tokens,
                min_tokens,
                ignore_eos,
                seed: None,
                temperature: None,
                tools: None,
                tool_choice: None,
            }),
            OpenAiApi::Embeddings => serde_json::to_vec(&EmbeddingRequest {
                model,
                input: Prompt::Text(prompt.to_owned()),
                encoding_format: None,
                dimensions: None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_has_its_path_and_its_body() {
        let cases = [
            (OpenAiApi::Chat, "chat/completions", "messages", "max_completion_tokens"),
            (OpenAiApi::Completions, "completions", "prompt", "max_tokens"),
            (OpenAiApi::Responses, "responses", "input", "max_output_tokens"),
            (OpenAiApi::Embeddings, "embeddings", "input", "model"),
        ];
        for (api, path, input, other) in cases {
            for base in ["http://localhost:1", "http://localhost:1/v1/"] {
                let (model, max_tokens) = (Some("m".to_owned()), Some(9));
                let prompts = vec!["a".to_owned(), "b".to_owned()];
                let asked = OpenAi { api, model, max_tokens, prompts, ..OpenAi::chat(base, "") };
                let targets = asked.targets(None).unwrap();
                assert_eq!(targets.len(), 2);
                assert_eq!(targets[1].target.url, format!("http://localhost:1/v1/{path}"));
                let body: Value = serde_json::from_slice(&targets[1].target.body).unwrap();
                assert!(!body[input].is_null() && !body[other].is_null(), "{body}");
                assert_eq!(body["stream"].is_null(), api == OpenAiApi::Embeddings);
            }
        }
        let Value::Object(extra) = serde_json::json!({ "temperature": 0.5, "max_tokens": 1 })
        else {
            panic!("an object")
        };
        let path = Some("/v2/chat".to_owned());
        let other = OpenAi { path, extra, ..OpenAi::chat("http://localhost/x", "Hi") };
        let target = other.targets(None).unwrap().remove(0).target;
        assert_eq!(target.url, "http://localhost/x/v2/chat");
        let body: Value = serde_json::from_slice(&target.body).unwrap();
        assert_eq!((&body["temperature"], &body["max_tokens"]), (&0.5.into(), &1.into()));
        let none = OpenAi { prompts: Vec::new(), ..OpenAi::chat("http://localhost", "") };
        assert!(none.targets(None).unwrap_err().to_string().contains("no prompt"));
    }
}
