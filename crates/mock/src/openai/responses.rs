use std::borrow::Cow;

use bytes::BytesMut;
use gatewright_protocol::openai::{
    FinishReason, IncompleteDetails, OutputItem, OutputText, Response, ResponseEvent,
    ResponseStatus,
};

use super::envelope::Envelope;
use super::format::put_named;

/// Messages of `/v1/responses`.
#[derive(Debug)]
pub(crate) struct ResponseFormat {
    /// The response as it is at first, with what it repeats of the request.
    response: Response,
    /// Number of the next event.
    sequence: u64,
    /// All that was streamed.
    text: String,
}

impl ResponseFormat {
    pub(crate) const fn new(response: Response) -> Self {
        Self { response, sequence: 0, text: String::new() }
    }

    pub(super) fn set_id(&mut self, envelope: &Envelope) {
        self.response.id.clone_from(&envelope.id);
        self.response.created_at = envelope.created;
    }

    pub(super) fn token(
        &mut self,
        envelope: &Envelope,
        number: u64,
        text: &str,
        out: &mut BytesMut,
    ) {
        if number == 0 {
            self.begin(envelope, out);
        }
        self.text.push_str(text);
        let item_id = Cow::Owned(item_id(envelope));
        let delta = Cow::Borrowed(text);
        if envelope.function.is_none() {
            self.put(out, |sequence_number| ResponseEvent::TextDelta {
                item_id,
                output_index: 0,
                content_index: 0,
                delta,
                sequence_number,
            });
        } else if number > 0 {
            self.put(out, |sequence_number| ResponseEvent::ArgumentsDelta {
                item_id,
                output_index: 0,
                delta,
                sequence_number,
            });
        }
    }

    fn begin(&mut self, envelope: &Envelope, out: &mut BytesMut) {
        let response = self.response.clone();
        self.put(out, |sequence_number| ResponseEvent::Created {
            response: Cow::Borrowed(&response),
            sequence_number,
        });
        self.put(out, |sequence_number| ResponseEvent::InProgress {
            response: Cow::Borrowed(&response),
            sequence_number,
        });
        let item = item(envelope, None);
        self.put(out, |sequence_number| ResponseEvent::ItemAdded {
            output_index: 0,
            item,
            sequence_number,
        });
        if envelope.function.is_none() {
            self.put(out, |sequence_number| ResponseEvent::PartAdded {
                item_id: Cow::Owned(item_id(envelope)),
                output_index: 0,
                content_index: 0,
                part: OutputText::new(String::new()),
                sequence_number,
            });
        }
    }

    pub(super) fn end(&mut self, envelope: &Envelope, out: &mut BytesMut) {
        let text = std::mem::take(&mut self.text);
        let id = item_id(envelope);
        let item_id = || Cow::Borrowed(&*id);
        if envelope.function.is_some() {
            self.put(out, |sequence_number| ResponseEvent::ArgumentsDone {
                item_id: item_id(),
                output_index: 0,
                arguments: Cow::Borrowed(&text),
                sequence_number,
            });
        } else {
            self.put(out, |sequence_number| ResponseEvent::TextDone {
                item_id: item_id(),
                output_index: 0,
                content_index: 0,
                text: Cow::Borrowed(&text),
                sequence_number,
            });
            self.put(out, |sequence_number| ResponseEvent::PartDone {
                item_id: item_id(),
                output_index: 0,
                content_index: 0,
                part: OutputText::new(text.clone()),
                sequence_number,
            });
        }
        self.put(out, |sequence_number| ResponseEvent::ItemDone {
            output_index: 0,
            item: item(envelope, Some(&text)),
            sequence_number,
        });
        let response = finished(self.response.clone(), envelope, &text);
        let complete = response.status == ResponseStatus::Completed;
        let response = Cow::Owned(response);
        self.put(out, |sequence_number| {
            if complete {
                ResponseEvent::Completed { response, sequence_number }
            } else {
                ResponseEvent::Incomplete { response, sequence_number }
            }
        });
    }

    pub(super) fn whole(self, envelope: &Envelope, text: &str) -> Response {
        finished(self.response, envelope, text)
    }

    fn put<'a>(&mut self, out: &mut BytesMut, event: impl FnOnce(u64) -> ResponseEvent<'a>) {
        let event = event(self.sequence);
        self.sequence += 1;
        put_named(Some(event.name()), &event, out);
    }
}

fn item_id(envelope: &Envelope) -> String {
    let kind = if envelope.function.is_some() { "fc" } else { "msg" };
    format!("{kind}_{}", envelope.id)
}

/// The one item of the answer, before (no text) or after it was said.
fn item(envelope: &Envelope, text: Option<&str>) -> OutputItem {
    let id = item_id(envelope);
    let status = text.map_or(ResponseStatus::InProgress, |_| status(envelope));
    match &envelope.function {
        Some(name) => OutputItem::FunctionCall {
            id,
            call_id: envelope.call_id(),
            name: name.clone(),
            arguments: text.unwrap_or_default().to_owned(),
            status,
        },
        None => OutputItem::Message {
            id,
            status,
            role: "assistant".to_owned(),
            content: text.map(|text| OutputText::new(text.to_owned())).into_iter().collect(),
        },
    }
}

fn status(envelope: &Envelope) -> ResponseStatus {
    match envelope.finish {
        FinishReason::Length => ResponseStatus::Incomplete,
        _ => ResponseStatus::Completed,
    }
}

fn finished(mut response: Response, envelope: &Envelope, text: &str) -> Response {
    response.status = status(envelope);
    if response.status == ResponseStatus::Incomplete {
        let reason = "max_output_tokens".to_owned();
        response.incomplete_details = Some(IncompleteDetails { reason });
    }
    response.output = vec![item(envelope, Some(text))];
    response.usage = Some(envelope.response_usage());
    response
}
