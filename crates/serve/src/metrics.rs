use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gatewright_control::health::Condition;
use gatewright_control::{ReplicaState, Shed, System};
use gatewright_record::{CacheResult, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::check::Side;
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

/// Why replicas go without being told to: they do not start, end by themselves, do not let go of a request in time, or
/// answer no pings.
pub(crate) const DEATHS: [&str; 4] = ["start", "exit", "overdue", "silent"];

/// Why requests are refused.
const REJECTIONS: [(Rejection, &str); 6] = [
    (Rejection::Queue(Shed::QueueFull), "queue_full"),
    (Rejection::Queue(Shed::Unavailable), "unavailable"),
    (Rejection::Queue(Shed::Removed), "removed"),
    (Rejection::Memory, "memory"),
    (Rejection::Rate, "rate"),
    (Rejection::Key, "key"),
];

/// Failures to start in a row from which on a function is said to be in a crash loop.
const CRASH_LOOP: u32 = 3;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// By the function's queue.
    Queue(Shed),
    /// The bodies of others take the memory that there is for bodies.
    Memory,
    /// By a rate limit.
    Rate,
    /// For want of an API key.
    Key,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    function: String,
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    function: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SideLabels {
    function: String,
    side: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabels {
    function: String,
    to: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamLabels {
    function: String,
    upstream: String,
}

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
struct KeyLabel {
    key: String,
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
    wait: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    service: Family<FunctionLabel, Histogram, fn() -> Histogram>,
    cold: Family<FunctionLabel, Counter>,
    deaths: Family<CauseLabels, Counter>,
    crash_loop: Family<FunctionLabel, Gauge>,
    upstream_healthy: Family<UpstreamLabels, Gauge>,
    rejected: Family<ReasonLabels, Counter>,
    mismatches: Family<SideLabels, Counter>,
    tunnels: Family<FunctionLabel, Gauge>,
    tunnel_bytes: Family<DirectionLabels, Counter>,
    keyed: Family<KeyLabel, Counter>,
    cache: Vec<(CacheResult, Counter)>,
    cache_bytes: Gauge,
    /// Memory of request bodies that are held whole.
    pub(crate) body_bytes: Gauge,
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
    wait: Histogram,
    service: Histogram,
    cold: Counter,
    deaths: [Counter; DEATHS.len()],
    rejected: [Counter; REJECTIONS.len()],
    mismatches: [Counter; 2],
    /// Tunnels that are open.
    pub(crate) tunnels: Gauge,
    /// Bytes of tunnels: to the upstream, to the client.
    pub(crate) tunnel_bytes: [Counter; 2],
}

/// Where metrics are registered.
struct Shelf(Registry);

impl Shelf {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn fresh<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }

    /// One that is measured in seconds.
    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let mut shelf = Shelf(Registry::with_prefix("gatewright"));
        let latencies = || Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let batches = Family::new_with_constructor((|| Histogram::new(BATCH_BUCKETS)) as fn() -> _);
        let by_result: Family<CacheLabel, Counter> =
            shelf.fresh("cache_requests", "Requests of cached routes");
        let cache = CACHE_RESULTS
            .map(|(value, result)| (value, by_result.get_or_create_owned(&CacheLabel { result })))
            .into();
        let s = &mut shelf;
        let metrics = Self {
            requests: s.fresh("requests", "Requests that ended, by status"),
            latency: s.seconds(
                "request_duration",
                "Time from the head of a request to the end of its answer",
                latencies(),
            ),
            wait: s.seconds(
                "queue_wait",
                "Time from the head of a request to its last attempt, of those that had one",
                latencies(),
            ),
            service: s.seconds(
                "service_duration",
                "Time from the last attempt of a request to the end of its answer",
                latencies(),
            ),
            queued: s.fresh("queued", "Requests that wait for a replica"),
            expected_wait: s.seconds(
                "expected_wait",
                "Time that a request which came now would wait for its turn",
                Family::default(),
            ),
            in_flight: s.fresh("in_flight", "Requests in service"),
            batch_size: s.add("batch_size", "Requests handed over together", batches),
            retries: s.fresh("retries", "Attempts after the first"),
            rejected: s.fresh("requests_rejected", "Requests refused, by reason"),
            mismatches: s.fresh(
                "schema_mismatches",
                "Bodies that do not fit the function's schema, by side",
            ),
            tunnels: s.fresh("tunnels", "Connections that have switched to another protocol"),
            tunnel_bytes: s.fresh("tunnel_bytes", "Bytes passed through tunnels, by direction"),
            keyed: s.fresh("key_requests", "Requests that presented an API key, by its name"),
            cold: s.fresh("cold_requests", "Requests that waited for a replica to start"),
            replicas: s.fresh("replicas", "Replicas by state"),
            joined: s.fresh("replicas_joined", "Running workers that were started elsewhere"),
            started: s.fresh("replicas_started", "Replicas told to start"),
            lost: s.fresh("replicas_lost", "Replicas that went without being told to"),
            deaths: s.fresh(
                "replica_deaths",
                "Replicas that did not start or went without being told to, by cause",
            ),
            crash_loop: s.fresh("crash_loop", "Whether replicas have failed again and again"),
            upstream_healthy: s.fresh("upstream_healthy", "Whether an upstream gets requests"),
            cache,
            cache_bytes: s.fresh("cache_stored_bytes", "Memory of stored responses"),
            cache_evicted: s.fresh("cache_evicted", "Keys that went because memory was short"),
            tier_operations: s.fresh(
                "cache_tier_operations",
                "Operations of the tiers behind the memory, by result",
            ),
            tier_up: s.fresh("cache_tier_up", "Whether a tier behind the memory is used now"),
            body_bytes: s.fresh("request_body_bytes", "Memory of request bodies held whole"),
            records_dropped: s.fresh("records_dropped", "Records that were not written"),
            unrouted: s.fresh("unrouted_requests", "Requests that lead nowhere"),
            refusals: s
                .fresh("workers_refused", "Connections for workers that were closed, by cause"),
            registry: Registry::default(),
        };
        Arc::new(Self { registry: shelf.0, ..metrics })
    }

    /// The metrics of the function of this name.
    pub(crate) fn function(&self, name: &str) -> FunctionMetrics {
        let function = name.to_owned();
        let label = FunctionLabel { function: function.clone() };
        FunctionMetrics {
            requests: STATUSES.map(|(_, status)| {
                let labels = StatusLabels { function: function.clone(), status };
                self.requests.get_or_create_owned(&labels)
            }),
            latency: self.latency.get_or_create_owned(&label),
            batch_size: self.batch_size.get_or_create_owned(&label),
            wait: self.wait.get_or_create_owned(&label),
            service: self.service.get_or_create_owned(&label),
            cold: self.cold.get_or_create_owned(&label),
            deaths: DEATHS.map(|cause| {
                let labels = CauseLabels { function: function.clone(), cause };
                self.deaths.get_or_create_owned(&labels)
            }),
            rejected: REJECTIONS.map(|(_, reason)| {
                let labels = ReasonLabels { function: function.clone(), reason };
                self.rejected.get_or_create_owned(&labels)
            }),
            mismatches: ["input", "output"].map(|side| {
                let labels = SideLabels { function: function.clone(), side };
                self.mismatches.get_or_create_owned(&labels)
            }),
            tunnels: self.tunnels.get_or_create_owned(&label),
            tunnel_bytes: ["upstream", "client"].map(|to| {
                let labels = DirectionLabels { function: function.clone(), to };
                self.tunnel_bytes.get_or_create_owned(&labels)
            }),
        }
    }

    /// Counts requests with the API key of this name.
    pub(crate) fn key(&self, name: &str) -> Counter {
        self.keyed.get_or_create_owned(&KeyLabel { key: name.to_owned() })
    }

    pub(crate) fn cache(&self, result: CacheResult) {
        if let Some((_, counter)) = self.cache.iter().find(|(value, _)| *value == result) {
            counter.inc();
        }
    }

    /// Everything as text, with what the system says of itself now.
    pub(crate) fn text(&self, system: &System, cache: &Stats) -> String {
        self.cache_bytes.set(i64::try_from(cache.bytes).unwrap_or(i64::MAX));
        store(&self.cache_evicted, cache.evicted);
        for tier in cache.tiers() {
            self.tier(tier.name, tier.up, &tier.results);
        }
        self.encoded(system)
    }

    /// Notes what a tier of the cache says of itself.
    pub(crate) fn tier(&self, tier: &'static str, up: bool, results: &[(&'static str, u64)]) {
        self.tier_up.get_or_create(&TierLabel { tier }).set(i64::from(up));
        for &(result, count) in results {
            store(&self.tier_operations.get_or_create(&TierLabels { tier, result }), count);
        }
    }

    /// Everything as text, without the cache's own numbers.
    pub(crate) fn encoded(&self, system: &System) -> String {
        self.look(system);
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
            let crash_loop = i64::from(view.failures >= CRASH_LOOP);
            self.crash_loop.get_or_create(&label).set(crash_loop);
            for replica in system.discover(key) {
                let Some(at) = view.deployment.endpoints.get(replica.endpoint) else { continue };
                let labels = UpstreamLabels { function: name.to_owned(), upstream: at.url.clone() };
                let well = i64::from(replica.condition == Condition::Healthy);
                self.upstream_healthy.get_or_create(&labels).set(well);
            }
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

    /// Counts a replica that went without being told to, for one of [`DEATHS`].
    pub(crate) fn death(&self, cause: &str) {
        if let Some(place) = DEATHS.iter().position(|known| *known == cause) {
            self.deaths[place].inc();
        }
    }

    /// Counts a request that is refused.
    pub(crate) fn rejected(&self, reason: Rejection) {
        if let Some(place) = REJECTIONS.iter().position(|(known, _)| *known == reason) {
            self.rejected[place].inc();
        }
    }

    /// Counts a body that does not fit the function's schema.
    pub(crate) fn mismatch(&self, side: Side) {
        self.mismatches[usize::from(side != Side::Input)].inc();
    }

    /// Counts a request that had an attempt, whatever came of it.
    pub(crate) fn attempted(&self, wait: f64, service: f64, cold: bool) {
        self.wait.observe(wait);
        self.service.observe(service);
        if cold {
            self.cold.inc();
        }
    }

    /// Counts a request that has ended.
    pub(crate) fn ended(&self, status: Status, seconds: f64) {
        if let Some(place) = STATUSES.iter().position(|(value, _)| *value == status) {
            self.requests[place].inc();
        }
        self.latency.observe(seconds);
    }
}
