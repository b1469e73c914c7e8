use gatewright_protocol::openai::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};

use super::OpenAi;
use super::ask::chat_prompt;
use crate::prompt::PromptBuilder;
use crate::refusal::Refusal;
use crate::text;

impl OpenAi {
    /// Tokens of a text; of a conversation their number alone, as some stand for no text.
    pub(super) fn tokenize(&self, request: &TokenizeRequest) -> Result<Tokenized, Refusal> {
        let max_model_len = Some(self.config.context);
        if let Some(text) = &request.prompt {
            let tokens: Vec<u64> = text::tokens(text).map(text::number).collect();
            return Ok(Tokenized { count: tokens.len() as u64, max_model_len, tokens });
        }
        let Some(messages) = &request.messages else {
            return Err(Refusal::bad("prompt", "give prompt or messages"));
        };
        let mut prompt = PromptBuilder::new(0, self.config.context);
        chat_prompt(messages, &self.config, &mut prompt);
        Ok(Tokenized { count: prompt.build().tokens, max_model_len, tokens: Vec::new() })
    }
}

pub(super) fn detokenize(request: &DetokenizeRequest) -> Result<Detokenized, Refusal> {
    let mut prompt = String::new();
    for &number in &request.tokens {
        let token = text::from_number(number);
        let token = token.ok_or_else(|| {
            Refusal::bad("tokens", format!("{number} is not the number of a token"))
        })?;
        prompt.push_str(&token);
    }
    Ok(Detokenized { prompt })
}
