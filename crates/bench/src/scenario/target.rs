use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Amount, MissingCall, OpenAiApi, Replies, ToolTurns};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TargetSpec {
    /// Its name in reports and, as the class, in records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often it is asked for, beside the others: more than zero.
    pub weight: f64,
    /// `http://host[:port][/path][?query]`.
    pub url: String,
    /// HTTP method; without one GET, and POST with a body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers, such as `[["accept", "text/plain"]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Body of every request. What is JSON is sent as `application/json`, unless a header says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// File with the body of every request, seen from the scenario's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_file: Option<String>,
    /// Variable of the environment with a key, which is sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// What to ask a language model for, if it is one: then `url` is where OpenAI's API begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai: Option<OpenAiTarget>,
}

/// What a language model is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiTarget {
    /// Which API.
    pub api: OpenAiApi,
    /// The model; if absent, the first that the server has (`GET /v1/models`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Prompts, one after the other, from the first again after the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Tokens of each answer at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Whether the model shall go on to `max_tokens` (`ignore_eos`, known to vLLM and others).
    pub exact_tokens: bool,
    /// Whether answers are streamed.
    pub stream: bool,
    /// What stands as the model's answers in the later turns of a chat, with `sessions`: what it really said, or what
    /// the data has.
    #[serde(skip_serializing_if = "is_default")]
    pub replies: Replies,
    /// So many of a session's first messages have to be answered with a call of a tool, in chats and responses. Each call
    /// takes two requests: the next one brings a made up result.
    #[serde(skip_serializing_if = "is_zero")]
    pub tool_turns: u32,
    /// Tokens of the result of a call.
    #[serde(skip_serializing_if = "are_usual")]
    pub tool_result_tokens: Amount,
    /// What it means if the model does not call a tool where it has to.
    #[serde(skip_serializing_if = "is_failure")]
    pub missing_call: MissingCall,
    /// Path of the API after `url`, if it is another than OpenAI's, such as `/api/v2/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Further fields of each request, such as `temperature`; they go over those that are set otherwise.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(turns: &u32) -> bool {
    *turns == 0
}

fn are_usual(tokens: &Amount) -> bool {
    *tokens == ToolTurns::default().result_tokens
}

fn is_failure(missing: &MissingCall) -> bool {
    *missing == MissingCall::Fail
}

fn is_default(replies: &Replies) -> bool {
    *replies == Replies::default()
}

impl Default for TargetSpec {
    fn default() -> Self {
        Self {
            name: None,
            weight: 1.0,
            url: String::new(),
            method: None,
            headers: Vec::new(),
            body: None,
            body_file: None,
            api_key_env: None,
            openai: None,
        }
    }
}

impl Default for OpenAiTarget {
    fn default() -> Self {
        Self {
            api: OpenAiApi::Chat,
            model: None,
            prompts: Vec::new(),
            max_tokens: None,
            exact_tokens: false,
            stream: true,
            replies: Replies::default(),
            tool_turns: 0,
            tool_result_tokens: ToolTurns::default().result_tokens,
            missing_call: MissingCall::default(),
            path: None,
            extra: Map::new(),
        }
    }
}

impl OpenAiTarget {
    pub(super) const fn tools(&self) -> ToolTurns {
        ToolTurns {
            turns: self.tool_turns,
            result_tokens: self.tool_result_tokens,
            missing: self.missing_call,
        }
    }
}

impl TargetSpec {
    /// One URL.
    #[must_use]
    pub fn of(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The same without what nobody else should read: values of headers that hold keys.
    #[must_use]
    pub(crate) fn redacted(&self) -> Self {
        let mut own = self.clone();
        for (name, value) in &mut own.headers {
            if SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
                "REDACTED".clone_into(value);
            }
        }
        own
    }
}

const SECRET: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token"];
