use gatewright_protocol::openai::{
    CompletionTokensDetails, FinishReason, PromptTokensDetails, ResponseUsage, Usage,
};

/// What every message of one answer carries.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) prompt_tokens: u64,
    /// Those that the prefix cache knew.
    pub(crate) cached_tokens: u64,
    /// Tokens of the whole answer.
    pub(crate) tokens: u64,
    pub(crate) finish: FinishReason,
    /// Name of the function that is called, if one is.
    pub(crate) function: Option<String>,
}

impl Envelope {
    /// Usage after `given` tokens.
    pub(crate) fn usage(&self, given: u64) -> Usage {
        let cached_tokens = self.cached_tokens;
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: Some(given),
            total_tokens: self.prompt_tokens + given,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }),
            completion_tokens_details: None,
        }
    }

    /// The same in the words of `/v1/responses`.
    pub(crate) fn response_usage(&self) -> ResponseUsage {
        let cached_tokens = self.cached_tokens;
        ResponseUsage {
            input_tokens: self.prompt_tokens,
            input_tokens_details: PromptTokensDetails { cached_tokens },
            output_tokens: self.tokens,
            output_tokens_details: CompletionTokensDetails::default(),
            total_tokens: self.prompt_tokens + self.tokens,
        }
    }

    /// Names the call, so that its result can be told from others'.
    pub(crate) fn call_id(&self) -> String {
        format!("call_{}", self.id)
    }
}
