use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{OutputItem, OutputText, Response};

/// One event of a streamed [`Response`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ResponseEvent<'a> {
    /// The response has begun.
    #[serde(rename = "response.created")]
    Created {
        /// As it is now.
        response: Cow<'a, Response>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// The model is at it.
    #[serde(rename = "response.in_progress")]
    InProgress {
        /// As it is now.
        response: Cow<'a, Response>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded {
        /// Number of the item, from 0.
        output_index: u64,
        /// As it is now.
        item: OutputItem,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// A text of an item begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// Number of the text, from 0.
        content_index: u64,
        /// As it is now.
        part: OutputText,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// More text.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// Number of the text, from 0.
        content_index: u64,
        /// The text.
        delta: Cow<'a, str>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// A text is whole.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// Number of the text, from 0.
        content_index: u64,
        /// All of it.
        text: Cow<'a, str>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// A text of an item is whole.
    #[serde(rename = "response.content_part.done")]
    PartDone {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// Number of the text, from 0.
        content_index: u64,
        /// All of it.
        part: OutputText,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// More of the arguments of a call.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// More of them.
        delta: Cow<'a, str>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// The arguments of a call are whole.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        /// Name of the item.
        item_id: Cow<'a, str>,
        /// Number of the item, from 0.
        output_index: u64,
        /// All of them.
        arguments: Cow<'a, str>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// An item is whole.
    #[serde(rename = "response.output_item.done")]
    ItemDone {
        /// Number of the item, from 0.
        output_index: u64,
        /// All of it.
        item: OutputItem,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// The response is whole.
    #[serde(rename = "response.completed")]
    Completed {
        /// All of it.
        response: Cow<'a, Response>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// The response ends before the model was done.
    #[serde(rename = "response.incomplete")]
    Incomplete {
        /// What there is of it.
        response: Cow<'a, Response>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// The response went wrong.
    #[serde(rename = "response.failed")]
    Failed {
        /// What there is of it.
        response: Cow<'a, Response>,
        /// Number of the event, from 0.
        sequence_number: u64,
    },
    /// Another event.
    #[serde(other)]
    Unknown,
}

impl ResponseEvent<'_> {
    /// Its type, which also stands in the event line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Failed { .. } => "response.failed",
            Self::Unknown => "unknown",
        }
    }
}
