use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gatewright_control::{ReplicaState, System};
use gatewright_record::{CacheResult, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::python::RefusalCounts;
use crate::store::Stats;

/// Upper ends of the buckets of latencies, in seconds.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// Upper ends of the buckets of batch sizes.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const STATUSES: [(Status, &str); 6] = [
    (Status::Ok, "ok"),
    (Status::Error, "error"),
    (Status::Timeout, "timeout"),
    (Status::Shed, "shed"),
    (Status::Cancelled, "cancelled"),
    (Status::Lost, "lost"),
];

const CACHE_RESULTS: [(CacheResult, &str); 6] = [
    (CacheResult::Hit, "hit"),
    (CacheResult::Stale, "stale"),
    (CacheResult::Miss, "miss"),
    (CacheResult::Collapsed, "collapsed"),
    (CacheResult::Revalidated, "revalidated"),
    (CacheResult::Bypass, "bypass"),
];

const STATES: [(ReplicaState, &str); 5] = [
    (ReplicaState::Conceived, "conceived"),
    (ReplicaState::Starting, "starting"),
    (ReplicaState::Running, "running"),
    (ReplicaState::Draining, "draining"),
    (ReplicaState::Suspended, "suspended"),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    function: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    function: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CacheLabel {
    result: &'static str,
}

/// Everything that `/metrics` tells.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<StatusLabels, Counter>,
    latency: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    replicas: Family<StateLabels, Gauge>,
    queued: Family<FunctionLabel, Gauge>,
    in_flight: Family<FunctionLabel, Gauge>,
    retries: Family<FunctionLabel, Counter>,
    lost: Family<FunctionLabel, Counter>,
    started: Family<FunctionLabel, Counter>,
    joined: Family<FunctionLabel, Gauge>,
    expected_wait: Family<FunctionLabel, Gauge<f64, AtomicU64>>,
    batch_size: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    cache: Vec<(CacheResult, Counter)>,
    cache_bytes: Gauge,
    cache_evicted: Counter,
    tier_operations: Family<TierLabels, Counter>,
    tier_up: Family<TierLabel, Gauge>,
    /// Records that were not written because the writer could not keep up.
    pub(crate) records_dropped: Counter,
    /// Requests that no function was found for.
    pub(crate) unrouted: Counter,
    /// Connections to `hub.listen` that did not become workers.
    pub(crate) refusals: RefusalCounts,
}

/// The metrics of one function, looked up once.
#[derive(Debug)]
pub(crate) struct FunctionMetrics {
    requests: [Counter; STATUSES.len()],
    latency: Histogram,
    batch_size: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("gatewright");
        let requests = Family::default();
        registry.register("requests", "Requests that ended, by status", requests.clone());
        let latency = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let help = "Time from the head of a request to the end of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, latency.clone());
        let replicas = Family::default();
        registry.register("replicas", "Replicas by state", replicas.clone());
        let queued = Family::default();
        registry.register("queued", "Requests that wait for a replica", queued.clone());
        let in_flight = Family::default();
        registry.register("in_flight", "Requests in service", in_flight.clone());
        let retries = Family::default();
        registry.register("retries", "Attempts after the first", retries.clone());
        let lost = Family::default();
        registry.register("replicas_lost", "Replicas that went untold", lost.clone());
        let started = Family::default();
        registry.register("replicas_started", "Replicas told to start", started.clone());
        let joined = Family::default();
        let help = "Running workers that were started elsewhere";
        registry.register("replicas_joined", help, joined.clone());
        let expected_wait = Family::default();
        let help = "Time that a request which came now would wait for its turn";
        registry.register_with_unit("expected_wait", help, Unit::Seconds, expected_wait.clone());
        let batch_size =
            Family::new_with_constructor((|| Histogram::new(BATCH_BUCKETS)) as fn() -> _);
        registry.register("batch_size", "Requests handed over together", batch_size.clone());
        let by_result = Family::<CacheLabel, Counter>::default();
        registry.register("cache_requests", "Requests of cached routes", by_result.clone());
        let cache = CACHE_RESULTS
            .map(|(value, result)| (value, by_result.get_or_create_owned(&CacheLabel { result })))
            .into();
        let cache_bytes = Gauge::default();
        registry.register("cache_stored_bytes", "Memory of stored responses", cache_bytes.clone());
        let cache_evicted = Counter::default();
        let help = "Keys that went because memory was short";
        registry.register("cache_evicted", help, cache_evicted.clone());
        let tier_operations = Family::default();
        let help = "Operations of the tiers behind the memory, by result";
        registry.register("cache_tier_operations", help, tier_operations.clone());
        let tier_up = Family::default();
        let help = "Whether a tier behind the memory is used now";
        registry.register("cache_tier_up", help, tier_up.clone());
        let records_dropped = Counter::default();
        let help = "Records that were not written";
        registry.register("records_dropped", help, records_dropped.clone());
        let unrouted = Counter::default();
        registry.register("unrouted_requests", "Requests that lead nowhere", unrouted.clone());
        let refusals = RefusalCounts::default();
        let help = "Connections for workers that were closed, by cause";
        registry.register("workers_refused", help, refusals.clone());
        Arc::new(Self {
            registry,
            requests,
            latency,
            replicas,
            queued,
            in_flight,
            retries,
            lost,
            started,
            joined,
            expected_wait,
            batch_size,
            cache,
            cache_bytes,
            cache_evicted,
            tier_operations,
            tier_up,
            records_dropped,
            unrouted,
            refusals,
        })
    }

    /// The metrics of the function of this name.
    pub(crate) fn function(&self, name: &str) -> FunctionMetrics {
        let function = name.to_owned();
        FunctionMetrics {
            requests: STATUSES.map(|(_, status)| {
                let labels = StatusLabels { function: function.clone(), status };
                self.requests.get_or_create_owned(&labels)
            }),
            latency: self
                .latency
                .get_or_create_owned(&FunctionLabel { function: function.clone() }),
            batch_size: self.batch_size.get_or_create_owned(&FunctionLabel { function }),
        }
    }

    pub(crate) fn cache(&self, result: CacheResult) {
        if let Some((_, counter)) = self.cache.iter().find(|(value, _)| *value == result) {
            counter.inc();
        }
    }

    /// Everything as text, with what the system says of itself now.
    pub(crate) fn text(&self, system: &System, cache: &Stats) -> String {
        self.look(system);
        self.cache_bytes.set(i64::try_from(cache.bytes).unwrap_or(i64::MAX));
        store(&self.cache_evicted, cache.evicted);
        for tier in cache.tiers() {
            let label = TierLabel { tier: tier.name };
            self.tier_up.get_or_create(&label).set(i64::from(tier.up));
            for (result, count) in tier.results {
                let labels = TierLabels { tier: tier.name, result };
                store(&self.tier_operations.get_or_create(&labels), count);
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes every write");
        text
    }

    fn look(&self, system: &System) {
        for (name, key) in system.function_index() {
            let Some(view) = system.function(key) else { continue };
            let label = FunctionLabel { function: name.to_owned() };
            self.queued.get_or_create(&label).set(view.queued as i64);
            self.in_flight.get_or_create(&label).set(i64::from(view.in_flight));
            store(&self.retries.get_or_create(&label), view.totals.retries);
            store(&self.started.get_or_create(&label), view.totals.replicas_started);
            self.joined.get_or_create(&label).set(i64::from(view.joined));
            self.expected_wait.get_or_create(&label).set(view.expected_wait.as_secs_f64());
            store(&self.lost.get_or_create(&label), view.totals.replicas_lost);
            for (state, word) in STATES {
                let labels = StateLabels { function: name.to_owned(), state: word };
                let count = system.replicas(key, Some(state)).count();
                self.replicas.get_or_create(&labels).set(count as i64);
            }
        }
    }
}

fn store(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inner().store(value, std::sync::atomic::Ordering::Relaxed);
}

impl FunctionMetrics {
    /// Counts a batch of so many requests.
    pub(crate) fn batch(&self, size: u32) {
        self.batch_size.observe(f64::from(size));
    }

    /// Counts a request that has ended.
    pub(crate) fn ended(&self, status: Status, seconds: f64) {
        if let Some(place) = STATUSES.iter().position(|(value, _)| *value == status) {
            self.requests[place].inc();
        }
        self.latency.observe(seconds);
    }
}
