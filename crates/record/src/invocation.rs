use std::sync::Arc;

use gatewright_determinism::Time;
use serde::{Deserialize, Serialize};

/// One request of a run. Benchmark, gateway and simulation write the same columns, so their records can be laid
/// over one another; a column that a world cannot know is empty (a benchmark does not see the queue inside the
/// server).
///
/// Moments are nanoseconds since the start of the run that wrote the record. In order they are: scheduled,
/// sent, received, queued out, started, first byte, finished.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// The world that wrote the record.
    pub world: World,
    /// Number of the request in its run, from 0.
    pub id: u64,
    /// Name of the function asked for; of the target, in a benchmark.
    pub function: Arc<str>,
    /// Pattern of the route that matched, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Arc<str>>,
    /// Class of the request: a priority, which of several weighted targets, or the name of the API key that it came
    /// with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Arc<str>>,

    /// When the schedule wanted the request sent (load generator, simulation).
    #[serde(rename = "scheduled_ns", default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Time>,
    /// When its first byte was given to the socket (load generator).
    #[serde(rename = "sent_ns", default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Time>,
    /// When the gateway had read its head.
    #[serde(rename = "received_ns", default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Time>,
    /// When it last left the queue, or was received if it never waited.
    #[serde(rename = "queued_out_ns", default, skip_serializing_if = "Option::is_none")]
    pub queued_out: Option<Time>,
    /// When its last attempt was handed to a replica.
    #[serde(rename = "started_ns", default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When the first byte (or token) of the answer was there.
    #[serde(rename = "first_byte_ns", default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Time>,
    /// When the answer was complete, or the request ended without one.
    #[serde(rename = "finished_ns", default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,

    /// Number of the replica that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u64>,
    /// Name of the node of that replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// Number of attempts made: 1 if the first one was answered, 0 if none was started.
    pub attempts: u32,
    /// Requests in service on that replica when the last attempt started, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,

    /// How the request ended.
    pub status: Status,
    /// HTTP status code of the answer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Why it did not end well, in a word or a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,

    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Tokens of the prompt (language models).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<u32>,
    /// Tokens of the answer (language models).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<u32>,
    /// What the cache did with it, where there is a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheResult>,
    /// Key of the cache entry as a hash, where there is a cache: whoever calibrates learns from it how
    /// popular the keys are without learning what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_key: Option<u64>,
    /// Whether it waited for a replica to start.
    pub cold: bool,
}

/// Which world wrote a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// A load generator, seen from the client's side.
    #[default]
    Bench,
    /// A gateway.
    Serve,
    /// A simulation.
    Simulate,
}

/// How a request ended.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Answered as it should be.
    #[default]
    Ok,
    /// Answered with an error: user code raised, or the upstream said so.
    Error,
    /// Not answered before its deadline.
    Timeout,
    /// Refused at once: the queue was full, or the function is going away.
    Shed,
    /// Given up by the client.
    Cancelled,
    /// The replica was lost and no retry was left.
    Lost,
}

/// What a cache did with a request, in the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheResult {
    /// Answered from a fresh stored response.
    Hit,
    /// Answered from a stored response past its freshness.
    Stale,
    /// Fetched from the upstream.
    Miss,
    /// Waited for another request's fetch of the same key.
    Collapsed,
    /// The stored response was found still good by the upstream.
    Revalidated,
    /// Not a matter for the cache.
    Bypass,
}

impl Invocation {
    /// Nanoseconds from the scheduled moment to the end: what a user of an open system feels. From the moment
    /// it was sent, or received, where there was no schedule.
    #[must_use]
    pub fn response_nanos(&self) -> Option<u64> {
        let start = self.scheduled.or(self.sent).or(self.received)?;
        Some(self.finished?.nanos_since(start))
    }

    /// Nanoseconds from sent (or received, at a gateway) to the end.
    #[must_use]
    pub fn service_nanos(&self) -> Option<u64> {
        let start = self.sent.or(self.received)?;
        Some(self.finished?.nanos_since(start))
    }
}

impl Status {
    /// What stands in a column of this name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Shed => "shed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl CacheResult {
    /// What stands in a column of this name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }
}

#[cfg(test)]
pub(crate) use tests::{any_invocation, full_invocation};

#[cfg(test)]
mod tests {
    use proptest::option::of as maybe;
    use proptest::prelude::*;

    use super::*;

    fn any_text() -> impl Strategy<Value = Arc<str>> {
        // Text with everything that a format has to quote; empty text is the same as none in CSV.
        "[a-zA-Z0-9 ,;\"'\\\\{}\n\r\tä€]{1,12}".prop_map(Arc::from)
    }

    fn any_status() -> impl Strategy<Value = Status> {
        use Status::{Cancelled, Error, Lost, Ok, Shed, Timeout};
        prop::sample::select(&[Ok, Error, Timeout, Shed, Cancelled, Lost][..])
    }

    fn any_cache_result() -> impl Strategy<Value = CacheResult> {
        use CacheResult::{Bypass, Collapsed, Hit, Miss, Revalidated, Stale};
        prop::sample::select(&[Hit, Stale, Miss, Collapsed, Revalidated, Bypass][..])
    }

    /// Any invocation whose moments are in order.
    pub(crate) fn any_invocation() -> impl Strategy<Value = Invocation> {
        let moments =
            (prop::collection::vec(0..u64::MAX / 2, 7), prop::collection::vec(any::<bool>(), 7))
                .prop_map(|(mut moments, present)| {
                    moments.sort_unstable();
                    let moment = |i: usize| present[i].then(|| Time::from_nanos(moments[i]));
                    std::array::from_fn::<_, 7, _>(moment)
                });
        let world = prop::sample::select(&[World::Bench, World::Serve, World::Simulate][..]);
        let names = (any_text(), maybe(any_text()), maybe(any_text()), maybe(any_text()));
        let place = (maybe(any::<u64>()), 0..100u32, maybe(any::<u32>()), any::<bool>());
        let end = (any_status(), maybe(any::<u16>()), maybe(any_text()));
        let size = (0..u64::MAX / 1_000, 0..u64::MAX / 1_000, maybe(any::<u32>()));
        let cache = (maybe(any_cache_result()), maybe(any::<u64>()));
        (world, any::<u64>(), names, moments, place, end, size, cache).prop_map(
            |(world, id, names, moments, place, end, size, cache)| Invocation {
                world,
                id,
                function: names.0,
                route: names.1,
                class: names.2,
                scheduled: moments[0],
                sent: moments[1],
                received: moments[2],
                queued_out: moments[3],
                started: moments[4],
                first_byte: moments[5],
                finished: moments[6],
                replica: place.0,
                node: names.3,
                attempts: place.1,
                in_flight: place.2,
                status: end.0,
                code: end.1,
                reason: end.2,
                bytes_in: size.0,
                bytes_out: size.1,
                tokens_in: size.2,
                tokens_out: size.2,
                cache: cache.0,
                cache_key: cache.1,
                cold: place.3,
            },
        )
    }

    /// An invocation with every column set.
    pub(crate) fn full_invocation() -> Invocation {
        let moment = |nanos| Some(Time::from_nanos(nanos));
        Invocation {
            world: World::Simulate,
            id: 1,
            function: "square".into(),
            route: Some("/square".into()),
            class: Some("batch".into()),
            scheduled: moment(1),
            sent: moment(2),
            received: moment(3),
            queued_out: moment(4),
            started: moment(5),
            first_byte: moment(6),
            finished: moment(7),
            replica: Some(2),
            node: Some("edge".into()),
            attempts: 3,
            in_flight: Some(4),
            status: Status::Error,
            code: Some(500),
            reason: Some("ValueError".into()),
            bytes_in: 10,
            bytes_out: 20,
            tokens_in: Some(30),
            tokens_out: Some(40),
            cache: Some(CacheResult::Miss),
            cache_key: Some(50),
            cold: true,
        }
    }
}
