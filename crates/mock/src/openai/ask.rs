use std::sync::Arc;

use gatewright_determinism::{Purpose, Stream};
use gatewright_protocol::openai::{
    self, ChatRequest, CompletionRequest, Content, FinishReason, InputItem, Message, Response,
    ResponseInput, ResponseRequest, ToolChoice,
};
use gatewright_sim::Sampler;
use serde_json::Value;

use super::format::Format;
use super::history::Said;
use super::responses::ResponseFormat;
use super::script::Script;
use crate::config::OpenAiConfig;
use crate::prompt::{Prompt, PromptBuilder};
use crate::refusal::Refusal;

/// What a request asks of the model, whichever endpoint it came by.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) prompt: Prompt,
    pub(super) stream: bool,
    pub(super) format: Format,
    /// Start of the answer's name.
    pub(super) prefix: &'static str,
    /// Longest answer in tokens.
    longest: Option<u64>,
    shortest: Option<u64>,
    ignore_eos: bool,
    /// Names the luck of the answer in place of the request's number.
    seed: Option<i64>,
    /// Function to be called: its name and the schema of its arguments.
    call: Option<(String, Option<Value>)>,
    /// What is kept for responses that go on from this one: the one before, and what was said.
    pub(super) remember: Option<(Option<Arc<Said>>, ResponseInput)>,
}

/// Tokens that stand for no text: who speaks, and that the model is next.
const ROLE_TOKENS: u64 = 3;
/// Kinds of tokens that stand for no text.
const IMAGE: u64 = 1;
const ROLE: u64 = 2;

impl Ask {
    pub(super) fn chat(request: &ChatRequest, config: &OpenAiConfig) -> Result<Self, Refusal> {
        one_answer(request.n)?;
        if request.messages.is_empty() {
            return Err(Refusal::bad("messages", "there is no message"));
        }
        let mut prompt = builder(config);
        if let Some(tools) = &request.tools
            && !tools.is_empty()
        {
            prompt.text(&serde_json::to_string(tools).unwrap_or_default());
        }
        chat_prompt(&request.messages, config, &mut prompt);
        let results_came = request.messages.last().is_some_and(|last| last.role == "tool");
        let tools = request.tools.iter().flatten().map(|tool| &tool.function);
        let tools = tools.map(|tool| (tool.name.as_str(), tool.parameters.as_ref())).collect();
        Ok(Self {
            model: model(request.model.as_deref(), config),
            prompt: prompt.build(),
            stream: request.stream.unwrap_or(false),
            format: Format::Chat(request.stream_options.unwrap_or_default()),
            prefix: "chatcmpl-",
            longest: request.max_completion_tokens.or(request.max_tokens),
            shortest: request.min_tokens,
            ignore_eos: request.ignore_eos.unwrap_or(false),
            seed: request.seed,
            call: choose(tools, request.tool_choice.as_ref(), results_came)?,
            remember: None,
        })
    }

    pub(super) fn completion(
        request: &CompletionRequest,
        config: &OpenAiConfig,
    ) -> Result<Self, Refusal> {
        one_answer(request.n)?;
        if request.prompt.count() != 1 {
            return Err(Refusal::bad("prompt", "the mock server takes one prompt at a time"));
        }
        let mut prompt = builder(config);
        match &request.prompt {
            openai::Prompt::Text(text) => prompt.text(text),
            openai::Prompt::Texts(texts) => texts.iter().for_each(|text| prompt.text(text)),
            openai::Prompt::Tokens(tokens) => tokens.iter().for_each(|&token| prompt.token(token)),
            openai::Prompt::TokenLists(lists) => {
                lists.iter().flatten().for_each(|&token| prompt.token(token));
            }
        }
        Ok(Self {
            model: model(request.model.as_deref(), config),
            prompt: prompt.build(),
            stream: request.stream.unwrap_or(false),
            format: Format::Completion(request.stream_options.unwrap_or_default()),
            prefix: "cmpl-",
            longest: request.max_tokens,
            shortest: request.min_tokens,
            ignore_eos: request.ignore_eos.unwrap_or(false),
            seed: request.seed,
            call: None,
            remember: None,
        })
    }

    /// `before`: what was said in the responses that this one goes on from.
    pub(super) fn response(
        request: &ResponseRequest,
        before: &[Arc<Said>],
        config: &OpenAiConfig,
    ) -> Result<Self, Refusal> {
        let mut prompt = builder(config);
        let tools = request.tools.as_deref().unwrap_or_default();
        if !tools.is_empty() {
            prompt.text(&serde_json::to_string(tools).unwrap_or_default());
        }
        if let Some(instructions) = &request.instructions {
            prompt.marks(ROLE, ROLE_TOKENS);
            prompt.text(instructions);
        }
        for said in before {
            response_prompt(&said.input, config, &mut prompt);
            add_item(&said.answer, config, &mut prompt);
        }
        let results_came = response_prompt(&request.input, config, &mut prompt);
        prompt.marks(ROLE, ROLE_TOKENS);
        let named = tools.iter().filter_map(|tool| {
            let name = tool.name.as_deref().filter(|_| tool.kind == "function")?;
            Some((name, tool.parameters.as_ref()))
        });
        let call = choose(named.collect(), request.tool_choice.as_ref(), results_came)?;
        let model = model(request.model.as_deref(), config);
        let format = ResponseFormat::new(response(request, model.clone()));
        Ok(Self {
            model,
            prompt: prompt.build(),
            stream: request.stream.unwrap_or(false),
            format: Format::Response(Box::new(format)),
            prefix: "resp_",
            longest: request.max_output_tokens,
            shortest: request.min_tokens,
            ignore_eos: request.ignore_eos.unwrap_or(false),
            seed: request.seed,
            call,
            remember: None,
        })
    }

    /// What the model will say, as request `number`.
    pub(super) fn script(
        &self,
        config: &OpenAiConfig,
        law: &Sampler,
        seed: u64,
        number: u64,
    ) -> Result<Script, Refusal> {
        if self.longest == Some(0) {
            return Err(Refusal::bad("max_tokens", "it is 0; ask for one token at least"));
        }
        let room = config.context.saturating_sub(self.prompt.tokens);
        if room == 0 || self.longest.is_some_and(|longest| longest > room) {
            let longest = self.longest.unwrap_or(1);
            return Err(Refusal::bad(
                "messages",
                format!(
                    "the prompt has {} tokens and the answer may have {longest}; together they may \
                     have {}",
                    self.prompt.tokens, config.context
                ),
            ));
        }
        let longest = self.longest.unwrap_or(room);
        let key = self.seed.map_or(number, i64::cast_unsigned);
        if let Some((name, schema)) = &self.call {
            return Ok(Script::call(name.clone(), schema.as_ref(), longest, seed, key));
        }
        let mut luck = Stream::new(seed, Purpose::Jitter, key);
        let drawn = (law.draw(&mut luck) as f64 / 1e9).round() as u64;
        let wanted = match self.longest {
            Some(longest) if self.ignore_eos => longest,
            _ => drawn.max(self.shortest.unwrap_or(1)).max(1),
        };
        let finish = if wanted < longest { FinishReason::Stop } else { FinishReason::Length };
        Ok(Script::text(wanted.min(longest), finish, seed, key))
    }
}

fn builder(config: &OpenAiConfig) -> PromptBuilder {
    let block_tokens = config.prefix_cache.map_or(0, |cache| cache.block_tokens);
    PromptBuilder::new(block_tokens, config.context)
}

fn model(asked: Option<&str>, config: &OpenAiConfig) -> String {
    let first = || config.models.first().map_or("", String::as_str);
    asked.filter(|name| !name.is_empty()).unwrap_or_else(first).to_owned()
}

fn one_answer(n: Option<u64>) -> Result<(), Refusal> {
    match n {
        None | Some(1) => Ok(()),
        Some(_) => Err(Refusal::bad("n", "the mock server gives one answer to a request")),
    }
}

/// Adds a conversation to a prompt, as [`Ask::chat`] does.
pub(super) fn chat_prompt(messages: &[Message], config: &OpenAiConfig, prompt: &mut PromptBuilder) {
    for message in messages {
        prompt.marks(ROLE, ROLE_TOKENS);
        if let Some(content) = &message.content {
            add(content, config, prompt);
        }
        for call in message.tool_calls.iter().flatten() {
            prompt.text(&call.function.name);
            prompt.text(&call.function.arguments);
        }
    }
    prompt.marks(ROLE, ROLE_TOKENS);
}

fn add(content: &Content, config: &OpenAiConfig, prompt: &mut PromptBuilder) {
    content.texts().for_each(|text| prompt.text(text));
    prompt.marks(IMAGE, config.image_tokens.saturating_mul(content.images() as u64));
}

/// Adds the input of `/v1/responses`; true if it ends with the result of a call.
fn response_prompt(
    input: &ResponseInput,
    config: &OpenAiConfig,
    prompt: &mut PromptBuilder,
) -> bool {
    let items = match input {
        ResponseInput::Text(text) => {
            prompt.marks(ROLE, ROLE_TOKENS);
            prompt.text(text);
            return false;
        }
        ResponseInput::Items(items) => items,
    };
    items.iter().for_each(|item| add_item(item, config, prompt));
    items.last().is_some_and(|last| last.output.is_some())
}

fn add_item(item: &InputItem, config: &OpenAiConfig, prompt: &mut PromptBuilder) {
    prompt.marks(ROLE, ROLE_TOKENS);
    for content in [&item.content, &item.output].into_iter().flatten() {
        add(content, config, prompt);
    }
    if let Some(arguments) = &item.arguments {
        prompt.text(arguments);
    }
}

/// The function to call: the one that was named, or the first, unless none may be or, where the choice is free,
/// results of calls have just come.
fn choose(
    tools: Vec<(&str, Option<&Value>)>,
    choice: Option<&ToolChoice>,
    results_came: bool,
) -> Result<Option<(String, Option<Value>)>, Refusal> {
    let owned = |(name, schema): (&str, Option<&Value>)| (name.to_owned(), schema.cloned());
    if let Some(name) = choice.and_then(ToolChoice::name) {
        let found = tools.into_iter().find(|(tool, _)| *tool == name);
        let found = found.ok_or_else(|| {
            Refusal::bad("tool_choice", format!("there is no function \"{name}\" in tools"))
        })?;
        return Ok(Some(owned(found)));
    }
    let must = matches!(choice, Some(ToolChoice::Mode(mode)) if mode == "required");
    if choice.is_some_and(ToolChoice::is_none) || (results_came && !must) {
        return Ok(None);
    }
    match tools.into_iter().next() {
        None if must => Err(Refusal::bad("tool_choice", "it is \"required\", and tools is empty")),
        first => Ok(first.map(owned)),
    }
}

/// The response as it is at first, with what it repeats of the request.
fn response(request: &ResponseRequest, model: String) -> Response {
    let auto = || ToolChoice::Mode("auto".to_owned());
    Response {
        object: "response".into(),
        instructions: request.instructions.clone(),
        max_output_tokens: request.max_output_tokens,
        model,
        parallel_tool_calls: true,
        previous_response_id: request.previous_response_id.clone(),
        temperature: request.temperature.or(Some(1.0)),
        tool_choice: Some(request.tool_choice.clone().unwrap_or_else(auto)),
        tools: request.tools.clone().unwrap_or_default(),
        top_p: Some(1.0),
        ..Response::default()
    }
}
