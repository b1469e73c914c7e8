use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_record::{LatencyHistogram, Status, StatusCounts, Summary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The requests of a run by what tells them apart.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// By the name of their target.
    pub targets: BTreeMap<Arc<str>, Part>,
    /// By the status code of the answer.
    pub codes: BTreeMap<u16, Part>,
    /// By their place in a session, from 0; later ones than the last are with it.
    pub turns: BTreeMap<u64, Part>,
}

/// Some of the requests of a run.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// How they ended.
    pub statuses: StatusCounts,
    /// Response time, of those that ended well or with a status code of their own.
    pub response_time: LatencyHistogram,
    /// Time to the first token, from the sending.
    pub ttft: Option<Box<LatencyHistogram>>,
    /// Tokens of their answers.
    pub tokens_out: u64,
}

/// A [`Part`] in plain numbers; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartReport {
    /// Name of the target, status code, or number of the turn.
    pub name: String,
    /// How its requests ended.
    pub statuses: StatusCounts,
    /// Response time, from the scheduled moment (sent, in a closed loop) to the end.
    pub response_time: Summary,
    /// Time to the first token, from the sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Summary>,
    /// Tokens of its answers.
    pub tokens_out: u64,
}

/// One request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) status: Status,
    pub(crate) response: u64,
    pub(crate) ttft: Option<u64>,
    pub(crate) tokens_out: u64,
}

/// Places in a session that are told apart.
const TURNS: u64 = 32;

impl Parts {
    pub(crate) fn add(
        &mut self,
        target: Option<&Arc<str>>,
        code: Option<u16>,
        turn: Option<u64>,
        request: Counted,
    ) {
        if let Some(name) = target {
            if !self.targets.contains_key(name) {
                self.targets.insert(Arc::clone(name), Part::default());
            }
            if let Some(part) = self.targets.get_mut(name) {
                part.add(request);
            }
        }
        if let Some(code) = code {
            self.codes.entry(code).or_default().add(request);
        }
        if let Some(turn) = turn {
            self.turns.entry(turn.min(TURNS - 1)).or_default().add(request);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (name, part) in &other.targets {
            self.targets.entry(Arc::clone(name)).or_default().merge(part);
        }
        for (code, part) in &other.codes {
            self.codes.entry(*code).or_default().merge(part);
        }
        for (turn, part) in &other.turns {
            self.turns.entry(*turn).or_default().merge(part);
        }
    }
}

/// All parts of a kind, in plain numbers.
pub(crate) fn reports<K: ToString>(parts: &BTreeMap<K, Part>) -> Vec<PartReport> {
    let report = |(name, part): (&K, &Part)| PartReport {
        name: name.to_string(),
        statuses: part.statuses,
        response_time: part.response_time.summary(),
        ttft: part.ttft.as_deref().map(LatencyHistogram::summary),
        tokens_out: part.tokens_out,
    };
    parts.iter().map(report).collect()
}

impl Part {
    fn add(&mut self, request: Counted) {
        self.statuses.add(request.status, 1);
        self.response_time.record(request.response);
        if let Some(ttft) = request.ttft {
            self.ttft.get_or_insert_default().record(ttft);
        }
        self.tokens_out += request.tokens_out;
    }

    fn merge(&mut self, other: &Self) {
        self.statuses.merge(&other.statuses);
        self.response_time.merge(&other.response_time);
        if let Some(ttft) = &other.ttft {
            self.ttft.get_or_insert_default().merge(ttft);
        }
        self.tokens_out += other.tokens_out;
    }
}
