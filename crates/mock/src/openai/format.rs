use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};
use gatewright_protocol::openai::{
    Answer, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatDelta, Completion,
    CompletionChoice, CompletionChunk, CompletionChunkChoice, FinishReason, FunctionCall,
    FunctionDelta, StreamOptions, ToolCall, ToolCallDelta, Usage,
};
use gatewright_protocol::{SSE_DONE, encode_sse_json};
use serde::Serialize;

use super::envelope::Envelope;
use super::responses::ResponseFormat;

/// How an answer is put into messages: each endpoint has its own.
#[derive(Debug)]
pub(crate) enum Format {
    Chat(StreamOptions),
    Completion(StreamOptions),
    Response(Box<ResponseFormat>),
}

impl Format {
    /// Completes what could not be known before the request was let in.
    pub(crate) fn with_id(mut self, envelope: &Envelope) -> Self {
        if let Self::Response(format) = &mut self {
            format.set_id(envelope);
        }
        self
    }

    /// Appends the events of token `number`, counted from 0.
    pub(crate) fn token(
        &mut self,
        envelope: &Envelope,
        number: u64,
        text: &str,
        out: &mut BytesMut,
    ) {
        match self {
            Self::Chat(options) => {
                let usage = || running_usage(*options, envelope, number + 1);
                if number == 0 {
                    put(&chat_chunk(envelope, first_delta(envelope), None, usage()), out);
                }
                if number > 0 || envelope.function.is_none() {
                    put(&chat_chunk(envelope, text_delta(envelope, text), None, usage()), out);
                }
            }
            Self::Completion(options) => {
                let usage = running_usage(*options, envelope, number + 1);
                put(&completion_chunk(envelope, text, None, usage), out);
            }
            Self::Response(format) => format.token(envelope, number, text, out),
        }
    }

    /// Appends what comes after the last token.
    pub(crate) fn end(&mut self, envelope: &Envelope, out: &mut BytesMut) {
        let finish = Some(envelope.finish.clone());
        match self {
            Self::Chat(options) => {
                let usage = running_usage(*options, envelope, envelope.tokens);
                put(&chat_chunk(envelope, ChatDelta::default(), finish, usage), out);
                if options.include_usage == Some(true) {
                    put(&ChatChunk { choices: vec![], ..last(envelope) }, out);
                }
            }
            Self::Completion(options) => {
                let usage = running_usage(*options, envelope, envelope.tokens);
                put(&completion_chunk(envelope, "", finish, usage), out);
                if options.include_usage == Some(true) {
                    let usage = Some(Some(envelope.usage(envelope.tokens)));
                    let chunk = completion_chunk(envelope, "", None, usage);
                    put(&CompletionChunk { choices: vec![], ..chunk }, out);
                }
            }
            Self::Response(format) => return format.end(envelope, out),
        }
        out.put_slice(b"data: ");
        out.put_slice(SSE_DONE);
        out.put_slice(b"\n\n");
    }

    /// The answer in one piece; `text` is all of it, or the arguments of a call.
    pub(crate) fn whole(self, envelope: Envelope, text: String) -> Vec<u8> {
        let usage = envelope.usage(envelope.tokens);
        let finish_reason = Some(envelope.finish.clone());
        match self {
            Self::Chat(_) => {
                let message = answer(&envelope, text);
                let choice = ChatChoice { index: 0, message, logprobs: None, finish_reason };
                let Envelope { id, created, model, .. } = envelope;
                json(&ChatCompletion::new(id, created, model, choice, usage))
            }
            Self::Completion(_) => {
                let choice = CompletionChoice { text, index: 0, logprobs: None, finish_reason };
                let Envelope { id, created, model, .. } = envelope;
                json(&Completion::new(id, created, model, choice, usage))
            }
            Self::Response(format) => json(&format.whole(&envelope, &text)),
        }
    }
}

/// A message as JSON.
pub(crate) fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("the messages have string keys only")
}

fn put(message: &impl Serialize, out: &mut BytesMut) {
    put_named(None, message, out);
}

pub(super) fn put_named(name: Option<&'static str>, message: &impl Serialize, out: &mut BytesMut) {
    encode_sse_json(name, message, out).expect("the messages have string keys only");
}

/// What a chunk says of the usage: nothing, `null`, or the tokens so far.
fn running_usage(options: StreamOptions, envelope: &Envelope, given: u64) -> Option<Option<Usage>> {
    if options.include_usage != Some(true) {
        return None;
    }
    Some((options.continuous_usage_stats == Some(true)).then(|| envelope.usage(given)))
}

fn chat_chunk<'a>(
    envelope: &'a Envelope,
    delta: ChatDelta<'a>,
    finish_reason: Option<FinishReason>,
    usage: Option<Option<Usage>>,
) -> ChatChunk<'a> {
    ChatChunk {
        id: Cow::Borrowed(&envelope.id),
        object: Cow::Borrowed("chat.completion.chunk"),
        created: envelope.created,
        model: Cow::Borrowed(&envelope.model),
        choices: vec![ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason }],
        usage,
    }
}

fn last(envelope: &Envelope) -> ChatChunk<'_> {
    let usage = Some(Some(envelope.usage(envelope.tokens)));
    chat_chunk(envelope, ChatDelta::default(), None, usage)
}

fn first_delta(envelope: &Envelope) -> ChatDelta<'_> {
    let role = Some(Cow::Borrowed("assistant"));
    let Some(function) = &envelope.function else {
        return ChatDelta { role, content: Some(Cow::Borrowed("")), ..ChatDelta::default() };
    };
    let function =
        FunctionDelta { name: Some(Cow::Borrowed(function)), arguments: Some(Cow::Borrowed("")) };
    let call = ToolCallDelta {
        index: 0,
        id: Some(Cow::Owned(envelope.call_id())),
        kind: Some(Cow::Borrowed("function")),
        function,
    };
    ChatDelta { role, tool_calls: Some(vec![call]), ..ChatDelta::default() }
}

fn text_delta<'a>(envelope: &Envelope, text: &'a str) -> ChatDelta<'a> {
    let text = Some(Cow::Borrowed(text));
    if envelope.function.is_none() {
        return ChatDelta { content: text, ..ChatDelta::default() };
    }
    let function = FunctionDelta { name: None, arguments: text };
    let call = ToolCallDelta { function, ..ToolCallDelta::default() };
    ChatDelta { tool_calls: Some(vec![call]), ..ChatDelta::default() }
}

fn completion_chunk<'a>(
    envelope: &'a Envelope,
    text: &'a str,
    finish_reason: Option<FinishReason>,
    usage: Option<Option<Usage>>,
) -> CompletionChunk<'a> {
    let text = Cow::Borrowed(text);
    CompletionChunk {
        id: Cow::Borrowed(&envelope.id),
        object: Cow::Borrowed("text_completion"),
        created: envelope.created,
        model: Cow::Borrowed(&envelope.model),
        choices: vec![CompletionChunkChoice { text, index: 0, logprobs: None, finish_reason }],
        usage,
    }
}

fn answer(envelope: &Envelope, text: String) -> Answer {
    let role = "assistant".to_owned();
    let Some(name) = envelope.function.clone() else {
        return Answer { role, content: Some(text), ..Answer::default() };
    };
    let function = FunctionCall { name, arguments: text };
    let call = ToolCall { id: envelope.call_id(), kind: "function".to_owned(), function };
    Answer { role, tool_calls: Some(vec![call]), ..Answer::default() }
}
