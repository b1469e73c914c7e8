use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Refusals are logged one by one unless they come faster than this; then they are counted.
const EVERY: Duration = Duration::from_secs(1);

/// Why a connection for workers is closed before it is a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its host is not allowed.
    Host,
    /// Too many others have said nothing.
    Crowd,
    /// It said no hello in time.
    Silent,
    /// No TLS handshake came about.
    Tls,
    /// What it said is no hello of this protocol.
    Protocol,
    /// Its token is wrong.
    Token,
    /// Its function does not fit it.
    Function,
    /// There are as many workers as may be.
    Full,
}

/// A connection that is closed, and what is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    cause: Cause,
    pub(crate) reason: String,
}

impl Cause {
    pub(crate) fn because(self, reason: impl Into<String>) -> Refusal {
        Refusal { cause: self, reason: reason.into() }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Crowd => "crowd",
            Self::Silent => "silent",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Token => "token",
            Self::Function => "function",
            Self::Full => "full",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct CauseLabel {
    cause: &'static str,
}

/// Counts of refusals by their causes.
pub(crate) type RefusalCounts = Family<CauseLabel, Counter>;

/// Where refusals are counted and logged: not more than one line a second, whoever knocks however often.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    counts: RefusalCounts,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    last: Option<Instant>,
    /// Refusals since then.
    unsaid: u64,
}

impl Log {
    /// Whether a refusal at `now` is logged, and how many were not before it.
    fn says(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Refusals {
    pub(crate) fn new(counts: RefusalCounts) -> Self {
        Self { counts, log: Arc::default() }
    }

    pub(crate) fn note(&self, peer: &str, refusal: &Refusal) {
        self.counts.get_or_create(&CauseLabel { cause: refusal.cause.word() }).inc();
        if let Some(unsaid) = self.log.lock().says(Instant::now()) {
            let reason = &*refusal.reason;
            tracing::warn!(peer, reason, others_unsaid = unsaid, "refused a worker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_it_stands_for() {
        let (mut log, start) = (Log::default(), Instant::now());
        assert_eq!(log.says(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.says(start + EVERY / 2), None);
        }
        assert_eq!(log.says(start + EVERY), Some(1000));
        assert_eq!(log.says(start + EVERY * 3), Some(0));
    }
}
