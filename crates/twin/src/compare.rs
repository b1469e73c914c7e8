use gatewright_record::RunSummary;
use serde::Serialize;

use crate::predict::seconds_at;
use crate::{Band, Prediction};

/// One number, predicted and measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What it is: `p50`, `p95`, `p99` of the response time, `throughput`, `hits`.
    pub quantity: &'static str,
    /// Its unit: `s`, `1/s`, or `1` for a share.
    pub unit: &'static str,
    /// What was predicted.
    pub predicted: Band,
    /// What was measured.
    pub measured: f64,
    /// (predicted - measured) / measured; absent where nothing was measured.
    pub error: Option<f64>,
    /// Whether the measurement lies in the band.
    pub within: bool,
}

/// Lays a measurement beside a prediction, quantity by quantity.
#[must_use]
pub fn compare(prediction: &Prediction, measured: &RunSummary) -> Vec<Comparison> {
    let at = |q| seconds_at(&measured.response_time, q);
    let mut rows = vec![
        row("p50", "s", prediction.p50, at(0.5)),
        row("p95", "s", prediction.p95, at(0.95)),
        row("p99", "s", prediction.p99, at(0.99)),
        row("throughput", "1/s", prediction.throughput, measured.achieved_rate().unwrap_or(0.0)),
    ];
    if let Some(hits) = prediction.hits
        && measured.cache.total() > 0
    {
        let share = measured.cache.hit as f64 / measured.cache.total() as f64;
        rows.push(row("hits", "1", hits, share));
    }
    rows
}

fn row(quantity: &'static str, unit: &'static str, predicted: Band, measured: f64) -> Comparison {
    let error = (measured != 0.0).then(|| (predicted.median - measured) / measured);
    Comparison { quantity, unit, predicted, measured, error, within: predicted.holds(measured) }
}
