//! What was said in responses, for those that go on from one (`previous_response_id`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use gatewright_protocol::openai::{Content, InputItem, ResponseInput};

use super::envelope::Envelope;
use crate::refusal::Refusal;

/// One response: what was asked and answered, and the one before it.
#[derive(Debug)]
pub(super) struct Said {
    before: Option<Arc<Self>>,
    /// How many are before it.
    depth: usize,
    /// Bytes that it holds on to, with those before it.
    bytes: usize,
    pub(super) input: ResponseInput,
    pub(super) answer: InputItem,
}

/// The responses that are remembered; the oldest makes room.
#[derive(Debug, Default)]
pub(super) struct Histories {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, Arc<Said>>,
    /// From the oldest on, with the bytes of each.
    order: VecDeque<(String, usize)>,
    bytes: usize,
}

const MAX_RESPONSES: usize = 10_000;
/// What several hold on to counts for each of them.
const MAX_BYTES: usize = 256 << 20;
const MAX_DEPTH: usize = 1_000;

impl Said {
    pub(super) fn new(before: Option<Arc<Self>>, input: ResponseInput, answer: InputItem) -> Self {
        let of = |item: &InputItem| {
            let texts =
                [&item.content, &item.output].into_iter().flatten().flat_map(Content::texts);
            texts.map(str::len).sum::<usize>() + item.arguments.as_ref().map_or(0, String::len)
        };
        let asked = match &input {
            ResponseInput::Text(text) => text.len(),
            ResponseInput::Items(items) => items.iter().map(of).sum(),
        };
        let (depth, held) = before.as_ref().map_or((0, 0), |one| (one.depth + 1, one.bytes));
        let bytes = held + asked + of(&answer) + size_of::<Self>();
        Self { before, depth, bytes, input, answer }
    }
}

impl Histories {
    /// What was said in a response and those before it, from the first one on.
    pub(super) fn before(&self, id: Option<&str>) -> Result<Vec<Arc<Said>>, Refusal> {
        let Some(id) = id else { return Ok(Vec::new()) };
        let bad = |what: String| Refusal::bad("previous_response_id", what);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.by_id.get(id).cloned();
        drop(kept);
        let last = found.ok_or_else(|| bad(format!("there is no response \"{id}\" any more")))?;
        if last.depth >= MAX_DEPTH {
            return Err(bad(format!("the mock server remembers {MAX_DEPTH} responses in a row")));
        }
        let mut all = vec![last];
        while let Some(before) = all.last().and_then(|said| said.before.clone()) {
            all.push(before);
        }
        all.reverse();
        Ok(all)
    }

    pub(super) fn keep(&self, id: &str, said: Said) {
        let bytes = said.bytes;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.by_id.insert(id.to_owned(), Arc::new(said));
        kept.order.push_back((id.to_owned(), bytes));
        while kept.order.len() > MAX_RESPONSES || kept.bytes > MAX_BYTES {
            let Some((oldest, bytes)) = kept.order.pop_front() else { return };
            kept.bytes -= bytes;
            kept.by_id.remove(&oldest);
        }
    }
}

/// What the model said, as an item of a later input.
pub(super) fn answer(envelope: &Envelope, text: String) -> InputItem {
    if envelope.function.is_some() {
        let kind = Some("function_call".to_owned());
        return InputItem { kind, arguments: Some(text), ..InputItem::default() };
    }
    let role = Some("assistant".to_owned());
    InputItem { role, content: Some(Content::Text(text)), ..InputItem::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(before: Option<Arc<Said>>, text: &str) -> Said {
        Said::new(before, ResponseInput::Text(text.into()), InputItem::default())
    }

    #[test]
    fn what_was_said_is_found_in_order() {
        let all = Histories::default();
        all.keep("a", said(None, "1"));
        all.keep("b", said(all.before(Some("a")).unwrap().pop(), "2"));
        let found = all.before(Some("b")).unwrap();
        let texts: Vec<_> = found.iter().map(|said| said.input.clone()).collect();
        assert_eq!(texts, [ResponseInput::Text("1".into()), ResponseInput::Text("2".into())]);
        assert!(all.before(None).unwrap().is_empty());
        assert!(all.before(Some("c")).is_err());
    }

    #[test]
    fn the_oldest_makes_room_and_chains_end() {
        let all = Histories::default();
        for n in 0..MAX_RESPONSES + 5 {
            all.keep(&n.to_string(), said(None, "x"));
        }
        assert!(all.before(Some("4")).is_err() && all.before(Some("5")).is_ok());
        assert_eq!(all.kept.lock().unwrap().by_id.len(), MAX_RESPONSES);
        all.keep("big", said(None, &"x".repeat(MAX_BYTES)));
        assert!(all.before(Some("big")).is_err(), "it would not fit with nothing beside it");
        assert_eq!(all.kept.lock().unwrap().bytes, 0);
        let mut last = None;
        for n in 0..=MAX_DEPTH {
            let next = said(last, "x");
            all.keep(&format!("chain {n}"), next);
            last = all.kept.lock().unwrap().by_id.get(&format!("chain {n}")).cloned();
        }
        assert!(all.before(Some(&format!("chain {MAX_DEPTH}"))).is_err());
        assert_eq!(all.before(Some("chain 999")).unwrap().len(), MAX_DEPTH);
    }
}
