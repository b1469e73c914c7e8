//! The load engine: offers HTTP requests to a server as a [`Strategy`](gatewright_workload::Strategy) says, and
//! tells how the server took it and how exact the engine itself was.
//!
//! Three rules make the numbers honest:
//!
//! - **Latency is counted from the plan.** In an open loop every request has its scheduled moment; however late
//!   it is sent, its response time begins there. A server that stands still for a second is therefore seen by
//!   all requests of that second (no coordinated omission).
//! - **The plan is not bent.** A request that is due is sent on an idle connection, else on a new one up to
//!   [`Plan::max_connections`], else as soon as one is free; none is dropped without being counted.
//! - **The engine accuses itself.** How late it noticed what was due, and how busy its threads were, is measured
//!   and judged: see [`Verdict`].
//!
//! One thread can do more than 100,000 requests a second: prepared bytes, one edge-triggered `epoll` set with
//! nanosecond timeouts, no allocation and no shared state per request. Several threads own every n-th request
//! each. The engine runs on Linux and speaks HTTP/1.1 and HTTP/2, over TLS as well.

mod answer;
mod clock;
mod compare;
mod compare_records;
mod connection;
mod conversation;
mod data;
mod error;
mod failure;
mod feed;
mod gate;
mod heard;
mod http2;
mod openai;
mod outcome;
mod parts;
mod plan;
mod poller;
mod pool;
mod progress;
mod report;
mod requests;
mod response;
mod run;
mod scenario;
mod series;
mod shard;
mod tally;
mod target;
mod template;
mod tls;
mod verdict;
mod visits;

pub use answer::AnswerKind;
pub use compare::{Change, ComparisonRow, compare};
pub use compare_records::{RunRecords, compare_records};
pub use conversation::{Dialogue, DialogueForm, MissingCall, ToolTurns};
pub use data::{
    Amount, Data, DataError, DataSpec, LocalTokenizer, Order, Prefix, Preprocess, Preprocessed,
    RowFile, Short, Synthetic, Tokens, TracePrompts, preprocess,
};
pub use error::BenchError;
pub use gate::{Gate, GateResult};
pub use openai::{OpenAi, OpenAiApi, Replies};
pub use outcome::{Distributions, Outcome, OutcomeReport, Stop};
pub use parts::{Part, PartReport, Parts};
pub use plan::{
    AtEnd, DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTION_STREAMS, DEFAULT_MAX_CONNECTIONS,
    DEFAULT_TIMEOUT, Plan, Target, WeightedTarget,
};
pub use progress::{Progress, RecordSink, Snapshot};
pub use report::{Machine, Report, SCHEMA, StepReport};
pub use run::run;
pub use scenario::{
    BUILTIN, Builtin, Client, Demand, OpenAiTarget, Prepared, Scenario, ScenarioError, TargetSpec,
    open_trace,
};
pub use series::{EachStep, Series, SeriesOutcome, SeriesStep, StepOutcome, run_series};
pub use tls::Trust;
pub use verdict::Verdict;
