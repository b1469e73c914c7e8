//! From records to a model, from a model to a prediction, and how far off it was.
//!
//! [`calibrate`] fits a model to records and says where it stops being valid; [`refits`] does it again and again
//! on resampled records, so that what the records leave uncertain is known; [`predict`] simulates a demand with
//! all of them and gives bands; [`compare`] lays a measurement beside a prediction.

mod calibrate;
mod compare;
mod observe;
mod predict;
mod refit;
mod table;

pub use calibrate::{CalibrateError, CalibrateOptions, RecordedRun, calibrate};
pub use compare::{Comparison, compare};
pub use predict::{Band, PredictError, PredictOptions, Prediction, predict};
pub use refit::refits;
