//! Numbers of a run, the same in every world: the [`Invocation`] record that each request leaves behind, and
//! what is made of many of them: distributions of time ([`LatencyHistogram`]), the summary of a run
//! ([`RunSummary`]) and confidence intervals ([`batch_means`]).

mod batch_series;
mod buckets;
mod codes;
mod difference;
mod distribution;
mod estimate;
mod histogram;
mod invocation;
mod life;
mod outline;
#[cfg(feature = "parquet")]
mod parquet;
mod read;
mod series;
mod summary;
mod tokens;
mod write;

pub use batch_series::BatchSeries;
pub use codes::CodeCounts;
pub use difference::{Difference, bootstrap, welch};
pub use distribution::{Distribution, QUANTILES, Quantile};
pub use estimate::{Estimate, EstimateError, batch_means, student_t};
pub use histogram::{LatencyHistogram, MAX_LATENCY, Summary, samples_needed};
pub use invocation::{CacheResult, Invocation, Status, World};
pub use life::{LifeState, ReplicaEvent, ScalingEvent, start_up_times};
pub use outline::Outline;
#[cfg(feature = "parquet")]
pub use parquet::{parquet_rows, read_parquet};
pub use read::{ReadError, Records, read_records};
pub use series::{Bucket, SeriesReport, TimeSeries};
pub use summary::{CacheCounts, RunReport, RunSummary, StatusCounts};
pub use tokens::{TokenReport, TokenSummary, TokenTimes};
pub use write::{Format, RecordWriter, WriteError};
