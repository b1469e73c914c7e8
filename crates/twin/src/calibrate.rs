use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_determinism::Time;
use gatewright_record::{Invocation, ReplicaEvent, Status, World, start_up_times};
use gatewright_sim::{CacheModel, Fitted, FunctionModel, Law, Model, Range};

use crate::observe::{Observed, extend};
use crate::table::{Sample, seconds};

/// The records of one run: of a gateway, of a load generator or of a simulation. Its moments have one origin.
#[derive(Clone, Debug, Default)]
pub struct RecordedRun {
    /// Where they came from, for the model's own record: a file's name.
    pub source: String,
    /// The records, in any order.
    pub records: Vec<Invocation>,
    /// What happened to replicas, in order of time, where a gateway wrote it down.
    pub replicas: Vec<ReplicaEvent>,
}

/// What the records cannot tell.
#[derive(Clone, Debug, Default)]
pub struct CalibrateOptions {
    /// How long replicas take to start; as the stream of their states has it, or else seen from the requests that
    /// waited for one, unless given.
    pub start: Option<Law>,
    /// Which function a load generator's records are about, where the gateway's are of several.
    pub function: Option<String>,
    /// When it is done, to be written into the model.
    pub at: Option<String>,
}

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalibrateError {
    /// There is nothing to learn from.
    #[error("there are no records")]
    NoRecords,
    /// Nothing ended well at any replica.
    #[error("no request of function `{function}` was answered by a replica at the first attempt")]
    NothingServed {
        /// Its name.
        function: String,
    },
    /// Too few to know a distribution by.
    #[error("function `{function}` has {found} requests to learn from; it takes {MIN_REQUESTS}")]
    TooFew {
        /// Its name.
        function: String,
        /// How many there are.
        found: usize,
    },
    /// A load generator cannot tell service from waiting.
    #[error(
        "these are a load generator's records alone, and only {found} of its requests were sent while no other was under way; the others may have waited"
    )]
    MayHaveWaited {
        /// Requests that cannot have waited.
        found: usize,
    },
    /// Which function a load generator asked for is not known.
    #[error(
        "the gateway's records are of {count} functions, and it is not known which one the load generator asked for"
    )]
    WhichFunction {
        /// Number of functions.
        count: usize,
    },
    /// The law given for start-up times cannot be drawn from.
    #[error("start: {0}")]
    Start(#[from] gatewright_sim::LawError),
}

/// Fewer requests than this say too little about a distribution.
const MIN_REQUESTS: usize = 30;
/// Quantiles at which client and gateway are laid over one another.
const MATCHED: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// A service time that grows by more than this with the requests in flight is worth a word.
const SLOW_DOWN: f64 = 1.15;

impl CalibrateError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoRecords => {
                "record a run: `gatewright serve --records served.jsonl` while `gatewright bench` asks"
            }
            Self::NothingServed { .. } => {
                "look at `status` and `reason` of the records: did the function fail?"
            }
            Self::TooFew { .. } => "record a longer run",
            Self::MayHaveWaited { .. } => {
                "give the gateway's records too (`gatewright serve --records`), or those of a synchronous bench"
            }
            Self::WhichFunction { .. } => "name it with --function",
            Self::Start(_) => {
                "give seconds, or a law like { log_normal = { mean = 0.5, cv = 0.2 } }"
            }
        }
    }
}

/// Fits a model to records.
///
/// From a gateway's records: the service law is what passed from handing a request to a replica to its answer, of
/// requests that ended well at the first attempt; the gateway's own time is that of requests that cannot have
/// waited; hits and the popularity of keys are counted. A load generator's records given beside them add what a
/// client sees beyond that, by laying the two distributions over one another at the same quantiles. A load
/// generator's records alone do only if enough of its requests were sent while no other was under way.
///
/// # Errors
/// There is too little to learn from; the error says what is missing.
pub fn calibrate(
    runs: &[RecordedRun],
    options: &CalibrateOptions,
) -> Result<Model, CalibrateError> {
    if let Some(start) = &options.start {
        start.check()?;
    }
    if runs.iter().all(|run| run.records.is_empty()) {
        return Err(CalibrateError::NoRecords);
    }
    let mut observed: BTreeMap<Arc<str>, Observed> = BTreeMap::new();
    for run in runs {
        let mut by_function: BTreeMap<Arc<str>, Vec<&Invocation>> = BTreeMap::new();
        for record in run.records.iter().filter(|record| record.world != World::Bench) {
            // A gateway also records requests that no function was found for.
            if !record.function.is_empty() {
                by_function.entry(Arc::clone(&record.function)).or_default().push(record);
            }
        }
        for (function, records) in by_function {
            observed.entry(function).or_default().add(&records);
        }
        for (function, nanos) in start_up_times(&run.replicas) {
            if let Some(observed) = observed.get_mut(&function) {
                observed.started.push(nanos);
            }
        }
    }
    let clients = Clients::of(runs);
    let sources: Vec<String> = runs.iter().map(|run| run.source.clone()).collect();
    let mut model = Model::default();
    if observed.is_empty() {
        let (name, function) = from_clients(&clients, options)?;
        model.function.insert(name, function);
    } else {
        let asked = asked_function(&observed, &clients, options)?;
        for (name, observed) in observed {
            let clients = (asked.as_ref() == Some(&name)).then_some(&clients);
            let function = from_gateway(&name, observed, clients, options)?;
            model.function.insert(name.to_string(), function);
        }
    }
    for function in model.function.values_mut() {
        let fitted = function.fitted.get_or_insert_default();
        fitted.sources.clone_from(&sources);
        fitted.at.clone_from(&options.at);
    }
    Ok(model)
}

/// What load generators saw.
#[derive(Debug, Default)]
struct Clients {
    names: Vec<Arc<str>>,
    /// Sent until answered, of requests that ended well.
    service: Sample,
    /// Those of them that were sent while no other was under way.
    alone: Sample,
    /// Requests per second that were offered, by run.
    rate: Option<Range>,
    requests: u64,
}

impl Clients {
    fn of(runs: &[RecordedRun]) -> Self {
        let mut all = Self::default();
        for run in runs {
            let mut records: Vec<&Invocation> =
                run.records.iter().filter(|record| record.world == World::Bench).collect();
            records.sort_by_key(|record| (record.sent, record.id));
            all.add(&records);
        }
        all
    }

    fn add(&mut self, records: &[&Invocation]) {
        let mut busy_until = Time::ZERO;
        for record in records {
            if !self.names.contains(&record.function) {
                self.names.push(Arc::clone(&record.function));
            }
            self.requests += 1;
            let (Some(sent), Some(finished)) = (record.sent, record.finished) else { continue };
            if record.status == Status::Ok {
                self.service.push(finished.nanos_since(sent));
                if sent >= busy_until {
                    self.alone.push(finished.nanos_since(sent));
                }
            }
            busy_until = busy_until.max(finished);
        }
        let moments = || records.iter().filter_map(|record| record.scheduled.or(record.sent));
        if let (Some(first), Some(last)) = (moments().min(), moments().max())
            && last > first
        {
            let gaps = (moments().count() - 1) as f64;
            extend(&mut self.rate, gaps * 1e9 / last.nanos_since(first) as f64);
        }
    }
}

/// The function that the load generators asked for; `None` if there are none.
fn asked_function(
    observed: &BTreeMap<Arc<str>, Observed>,
    clients: &Clients,
    options: &CalibrateOptions,
) -> Result<Option<Arc<str>>, CalibrateError> {
    if clients.requests == 0 {
        return Ok(None);
    }
    let named = |name: &str| observed.keys().find(|key| &***key == name).cloned();
    let only = || if observed.len() == 1 { observed.keys().next().cloned() } else { None };
    let by_name = || match &clients.names[..] {
        [name] => named(name),
        _ => None,
    };
    let found = match &options.function {
        Some(name) => named(name),
        None => only().or_else(by_name),
    };
    found.map(Some).ok_or(CalibrateError::WhichFunction { count: observed.len() })
}

fn from_gateway(
    name: &str,
    observed: Observed,
    clients: Option<&Clients>,
    options: &CalibrateOptions,
) -> Result<FunctionModel, CalibrateError> {
    let found = observed.service.len();
    if found == 0 {
        return Err(CalibrateError::NothingServed { function: name.to_owned() });
    }
    if found < MIN_REQUESTS {
        return Err(CalibrateError::TooFew { function: name.to_owned(), found });
    }
    let mut notes = Vec::new();
    let keys = observed.popularity();
    if observed.failed > 0 {
        let (failed, all) = (observed.failed, observed.requests);
        notes.push(format!(
            "{failed} of {all} requests did not end well; failures are not in the model"
        ));
    }
    notes.extend(slow_down(&observed));
    let start = options.start.clone().or_else(|| {
        let started = observed.started.len();
        if let Some(law) = observed.started.law() {
            notes.push(format!("start: from {started} replicas that were seen starting"));
            return Some(law);
        }
        let seen = observed.start.len();
        let law = observed.start.law()?;
        notes.push(format!("start: from {seen} requests that waited for a replica"));
        Some(law)
    });
    if start.is_none() {
        notes.push(
            "start: no replica was seen starting; give its time where replicas start during a run"
                .to_owned(),
        );
    }
    let overhead = clients.map(|clients| {
        notes.push("overhead: median difference of the client's and the gateway's times at equal quantiles".to_owned());
        overhead(&observed.whole, clients)
    });
    let cache = keys.map(|keys| {
        let hit = observed.hit.law().unwrap_or_else(|| {
            notes.push("cache: no hit was seen; it is taken to cost nothing".to_owned());
            Law::Fixed(0.0)
        });
        CacheModel { hit, keys, lifetime: None }
    });
    let service = observed.service.law().unwrap_or(Law::Fixed(0.0));
    let fitted = Fitted {
        requests: found as u64,
        rate: clients.and_then(|clients| clients.rate).or(observed.rate),
        in_flight: observed.in_flight,
        notes,
        ..Fitted::default()
    };
    let gateway = observed.gateway.law();
    let mut model = FunctionModel::new(service);
    model.start = start;
    model.overhead = overhead;
    model.gateway = gateway;
    model.cache = cache;
    model.fitted = Some(fitted);
    Ok(model)
}

/// What a client sees beyond the gateway's own time.
fn overhead(gateway: &Sample, clients: &Clients) -> Law {
    let inside = gateway.clone().quantiles(&MATCHED);
    let outside = clients.service.clone().quantiles(&MATCHED);
    let mut differences: Vec<u64> =
        outside.iter().zip(&inside).map(|(out, inside)| out.saturating_sub(*inside)).collect();
    differences.sort_unstable();
    Law::Fixed(seconds(differences[differences.len() / 2] as f64))
}

/// A word of warning if requests slow one another down within a replica.
fn slow_down(observed: &Observed) -> Option<String> {
    let enough = |sample: &&Sample| sample.len() >= MIN_REQUESTS;
    let mut known = observed.service_by_in_flight.iter().filter(|(_, sample)| enough(sample));
    let (few, alone) = known.next()?;
    let (many, crowded) = known.next_back()?;
    let (alone, crowded) = (alone.mean(), crowded.mean());
    (crowded > SLOW_DOWN * alone).then(|| {
        format!(
            "service takes {:.6} s with {few} in flight on the replica and {:.6} s with {many}; that is not in the model",
            alone / 1e9,
            crowded / 1e9
        )
    })
}

fn from_clients(
    clients: &Clients,
    options: &CalibrateOptions,
) -> Result<(String, FunctionModel), CalibrateError> {
    let found = clients.alone.len();
    if found < MIN_REQUESTS {
        return Err(CalibrateError::MayHaveWaited { found });
    }
    let name = match (&options.function, &clients.names[..]) {
        (Some(name), _) => name.clone(),
        (None, [name]) => name.to_string(),
        (None, names) => return Err(CalibrateError::WhichFunction { count: names.len() }),
    };
    let service = clients.alone.clone().law().unwrap_or(Law::Fixed(0.0));
    let mut model = FunctionModel::new(service);
    model.start.clone_from(&options.start);
    model.fitted = Some(Fitted {
        requests: found as u64,
        rate: clients.rate,
        in_flight: Some(Range { min: 1.0, max: 1.0 }),
        notes: vec![
            "service: as a client saw it, with network and gateway, while no other request was under way"
                .to_owned(),
        ],
        ..Fitted::default()
    });
    Ok((name, model))
}
