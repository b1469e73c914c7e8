use gatewright_determinism::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LatencyHistogram, Summary};

/// One answer of a language model, as the client saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenTimes<'a> {
    /// When the request was due; none in a closed loop.
    pub scheduled: Option<Time>,
    /// When it was sent.
    pub sent: Time,
    /// When the first piece of the answer with a token in it was there; none without streaming.
    pub first: Option<Time>,
    /// When the first piece of the answer proper was there, after what the model thought; none without streaming.
    pub first_output: Option<Time>,
    /// When the last such piece was there; none without streaming.
    pub last: Option<Time>,
    /// When the answer was complete.
    pub finished: Time,
    /// Nanoseconds from each such piece to the next.
    pub gaps: &'a [u64],
    /// Pieces with a token in them; 0 without streaming.
    pub pieces: u64,
    /// Tokens of the prompt, if the server told.
    pub tokens_in: Option<u64>,
    /// Tokens of the answer, as the server told; the number of pieces, if it did not.
    pub tokens_out: Option<u64>,
    /// Tokens of the prompt that the server had in its cache, if it told.
    pub tokens_cached: Option<u64>,
}

/// What the answers of a language model come to, by guidellm's definitions where it has them; only of requests that
/// ended well. About 2.5 MB. What an answer does not tell is in no number, rather than in it as zero.
#[derive(Clone, Debug, Default)]
pub struct TokenSummary {
    /// Time to first token: sent to first piece.
    pub ttft: LatencyHistogram,
    /// Scheduled (sent, in a closed loop) to first piece: what a user waits.
    pub response_ttft: LatencyHistogram,
    /// Time to first output token: sent to the first piece of the answer proper, past what the model thought.
    pub first_output: LatencyHistogram,
    /// Inter-token latency of a request, (last - first) / (tokens - 1), once for each of its tokens but the first.
    pub itl: LatencyHistogram,
    /// Time per output token, (last - sent) / tokens (finished - sent, without streaming), once for each token.
    pub tpot: LatencyHistogram,
    /// Every time from one piece to the next, as it was: stalls inside of answers are seen here.
    pub gaps: LatencyHistogram,
    /// The longest of these in each request.
    pub longest_gap: LatencyHistogram,
    /// Tokens of each answer per second of its service time, in thousandths; a distribution of numbers, not of times.
    pub rate: LatencyHistogram,
    /// Pieces of each streamed answer; a distribution of numbers, not of times.
    pub pieces_each: LatencyHistogram,
    /// Tokens of each prompt; a distribution of numbers, not of times.
    pub tokens_in: LatencyHistogram,
    /// Tokens of each answer; a distribution of numbers, not of times.
    pub tokens_out: LatencyHistogram,
    /// Pieces of all answers: fewer than tokens if the server sends several in one.
    pub pieces: u64,
    /// Tokens of streamed answers.
    pub tokens_streamed: u64,
    /// Tokens of all prompts.
    pub total_in: u64,
    /// Tokens of all answers.
    pub total_out: u64,
    /// Tokens of all prompts that the server had in its cache.
    pub total_cached: u64,
}

/// A [`TokenSummary`] in plain numbers. Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenReport {
    /// See [`TokenSummary::ttft`].
    pub ttft: Summary,
    /// See [`TokenSummary::response_ttft`].
    pub response_ttft: Summary,
    /// See [`TokenSummary::itl`].
    pub itl: Summary,
    /// See [`TokenSummary::tpot`].
    pub tpot: Summary,
    /// See [`TokenSummary::gaps`].
    pub gaps: Summary,
    /// See [`TokenSummary::longest_gap`].
    pub longest_gap: Summary,
    /// Mean tokens of a prompt.
    pub tokens_in_mean: Option<f64>,
    /// Mean tokens of an answer.
    pub tokens_out_mean: Option<f64>,
    /// Tokens in a piece of a streamed answer, in the mean: well above 1, and gaps are not those of tokens.
    pub tokens_per_piece: Option<f64>,
    /// Tokens of all prompts.
    pub total_in: u64,
    /// Tokens of all answers.
    pub total_out: u64,
    /// Tokens of all prompts that the server had in its cache.
    pub total_cached: u64,
    /// Tokens of answers per second.
    pub output_tokens_per_second: Option<f64>,
    /// Tokens of prompts and answers per second.
    pub tokens_per_second: Option<f64>,
}

impl TokenTimes<'_> {
    /// Nanoseconds from the scheduled moment (sent, in a closed loop) to the first piece.
    #[must_use]
    pub fn response_ttft_nanos(&self) -> Option<u64> {
        Some(self.first?.nanos_since(self.scheduled.unwrap_or(self.sent)))
    }

    /// Mean nanoseconds from a token to the next; none without streaming, and with one token.
    #[must_use]
    pub fn itl_nanos(&self) -> Option<f64> {
        let gaps = self.tokens_out?.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last?.nanos_since(self.first?) as f64 / gaps as f64)
    }

    /// Nanoseconds per token of the answer.
    #[must_use]
    pub fn tpot_nanos(&self) -> Option<f64> {
        let tokens = self.tokens_out.filter(|tokens| *tokens > 0)?;
        let end = self.last.unwrap_or(self.finished);
        Some(end.nanos_since(self.sent) as f64 / tokens as f64)
    }
}

impl TokenSummary {
    /// Adds an answer.
    pub fn add(&mut self, times: &TokenTimes<'_>) {
        if let Some(first) = times.first {
            self.ttft.record(first.nanos_since(times.sent));
        }
        if let Some(ttft) = times.response_ttft_nanos() {
            self.response_ttft.record(ttft);
        }
        if let Some(first) = times.first_output {
            self.first_output.record(first.nanos_since(times.sent));
        }
        let tokens = times.tokens_out.unwrap_or(0);
        if let Some(itl) = times.itl_nanos() {
            self.itl.record_many(rounded(itl), tokens - 1);
        }
        if let Some(tpot) = times.tpot_nanos() {
            self.tpot.record_many(rounded(tpot), tokens);
        }
        times.gaps.iter().for_each(|&gap| self.gaps.record(gap));
        if let Some(&longest) = times.gaps.iter().max() {
            self.longest_gap.record(longest);
        }
        if times.pieces > 0 {
            self.pieces += times.pieces;
            self.pieces_each.record(times.pieces);
            self.tokens_streamed += tokens;
        }
        if let Some(tokens_in) = times.tokens_in {
            self.tokens_in.record(tokens_in);
            self.total_in += tokens_in;
        }
        if let Some(tokens_out) = times.tokens_out {
            self.tokens_out.record(tokens_out);
            let seconds = times.finished.nanos_since(times.sent) as f64 / 1e9;
            if seconds > 0.0 {
                self.rate.record(rounded(tokens_out as f64 / seconds * 1e3));
            }
            self.total_out += tokens_out;
        }
        self.total_cached += times.tokens_cached.unwrap_or(0);
    }

    /// Adds all answers of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.ttft.merge(&other.ttft);
        self.response_ttft.merge(&other.response_ttft);
        self.first_output.merge(&other.first_output);
        self.rate.merge(&other.rate);
        self.pieces_each.merge(&other.pieces_each);
        self.itl.merge(&other.itl);
        self.tpot.merge(&other.tpot);
        self.gaps.merge(&other.gaps);
        self.longest_gap.merge(&other.longest_gap);
        self.tokens_in.merge(&other.tokens_in);
        self.tokens_out.merge(&other.tokens_out);
        self.pieces += other.pieces;
        self.tokens_streamed += other.tokens_streamed;
        self.total_in += other.total_in;
        self.total_out += other.total_out;
        self.total_cached += other.total_cached;
    }

    /// The summary in plain numbers; rates over `seconds`, none of them if that is zero.
    #[must_use]
    pub fn report(&self, seconds: f64) -> TokenReport {
        let rate = |tokens: u64| (seconds > 0.0).then(|| tokens as f64 / seconds);
        let per_piece = self.tokens_streamed as f64 / self.pieces.max(1) as f64;
        TokenReport {
            ttft: self.ttft.summary(),
            response_ttft: self.response_ttft.summary(),
            itl: self.itl.summary(),
            tpot: self.tpot.summary(),
            gaps: self.gaps.summary(),
            longest_gap: self.longest_gap.summary(),
            tokens_in_mean: self.tokens_in.mean(),
            tokens_out_mean: self.tokens_out.mean(),
            tokens_per_piece: (self.pieces > 0).then_some(per_piece),
            total_in: self.total_in,
            total_out: self.total_out,
            total_cached: self.total_cached,
            output_tokens_per_second: rate(self.total_out),
            tokens_per_second: rate(self.total_in + self.total_out),
        }
    }
}

/// `as` saturates; rounding half up is enough for a number that is never negative.
const fn rounded(nanos: f64) -> u64 {
    (nanos + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn at(millis: u64) -> Option<Time> {
        Some(Time::from_nanos(millis * MILLI))
    }

    /// Due at 0, sent at 10, tokens at 60, 70, 80 and, after a stall, 180 ms.
    fn streamed() -> TokenTimes<'static> {
        TokenTimes {
            scheduled: at(0),
            sent: Time::from_nanos(10 * MILLI),
            first: at(60),
            first_output: at(70),
            last: at(180),
            finished: Time::from_nanos(181 * MILLI),
            gaps: &[10 * MILLI, 10 * MILLI, 100 * MILLI],
            pieces: 4,
            tokens_in: Some(7),
            tokens_out: Some(4),
            tokens_cached: Some(2),
        }
    }

    fn mean(histogram: &LatencyHistogram) -> Option<f64> {
        histogram.mean().map(|nanos| nanos / MILLI as f64)
    }

    #[test]
    fn times_of_a_stream_are_what_they_are_called() {
        let mut summary = TokenSummary::default();
        summary.add(&streamed());
        assert_eq!(mean(&summary.ttft), Some(50.0));
        assert_eq!(mean(&summary.response_ttft), Some(60.0));
        assert_eq!(mean(&summary.first_output), Some(60.0));
        assert_eq!((summary.rate.max(), summary.pieces_each.max()), (Some(23_392), Some(4)));
        assert_eq!((mean(&summary.itl), summary.itl.count()), (Some(40.0), 3));
        assert_eq!((mean(&summary.tpot), summary.tpot.count()), (Some(42.5), 4));
        assert_eq!((mean(&summary.gaps), summary.gaps.count()), (Some(40.0), 3));
        assert_eq!(mean(&summary.longest_gap), Some(100.0));
        let report = summary.report(2.0);
        assert_eq!(report.output_tokens_per_second, Some(2.0));
        assert_eq!(report.tokens_per_second, Some(5.5));
        assert_eq!((report.tokens_per_piece, report.total_cached), (Some(1.0), 2));
    }

    #[test]
    fn what_an_answer_does_not_tell_is_missing() {
        let whole = TokenTimes {
            first: None,
            first_output: None,
            last: None,
            gaps: &[],
            pieces: 0,
            ..streamed()
        };
        let mut summary = TokenSummary::default();
        summary.add(&whole);
        assert_eq!((summary.ttft.count(), summary.itl.count(), summary.gaps.count()), (0, 0, 0));
        assert_eq!((mean(&summary.tpot), summary.tpot.count()), (Some(42.75), 4));
        assert_eq!(summary.report(0.0).output_tokens_per_second, None);
        let mut silent = TokenSummary::default();
        silent.add(&TokenTimes { tokens_in: None, tokens_out: None, ..whole });
        assert_eq!((silent.tpot.count(), silent.tokens_in.count()), (0, 0));
    }

    #[test]
    fn pieces_with_several_tokens_are_noticed() {
        let mut one = TokenSummary::default();
        one.add(&TokenTimes { tokens_out: Some(12), ..streamed() });
        let mut both = TokenSummary::default();
        both.merge(&one);
        both.merge(&one);
        assert_eq!(both.report(1.0).tokens_per_piece, Some(3.0));
        assert_eq!((both.itl.count(), both.gaps.count()), (22, 6));
        assert!((mean(&both.itl).unwrap() - 120.0 / 11.0).abs() < 1e-3);
    }
}
