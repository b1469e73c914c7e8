use gatewright_sim::Scenario;
use gatewright_twin::{
    CalibrateOptions, PredictError, PredictOptions, Prediction, calibrate, compare, predict, refits,
};

use crate::rig::{TRUTH, at_client, at_gateway, lunch, model, simulate, square, system};

const OPTIONS: PredictOptions = PredictOptions { replications: 40, threads: 2 };

/// Calibrated at two loads, a third one is predicted and then "measured" with the truth: each number close, and in
/// its band.
#[test]
fn predicts_a_load_that_was_not_measured() {
    let truth = model(TRUTH);
    let mut runs = Vec::new();
    for (seed, rate) in [(1, 25.0), (2, 60.0)] {
        let (_, records) = simulate(&truth, &square(rate, 5_000), seed);
        runs.extend([at_gateway(&records), at_client(&records)]);
    }
    let options = CalibrateOptions::default();
    let model = calibrate(&runs, &options).unwrap();
    let models = refits(&runs, &options, 20, 9).unwrap();
    let held_out = square(50.0, 5_000);
    let prediction = predict(&system(), &model, &models, &held_out, OPTIONS).unwrap();
    assert!(prediction.warnings.is_empty(), "{:?}", prediction.warnings);
    assert_eq!((prediction.replications, prediction.hits), (40, None));

    let (report, _) = simulate(&truth, &held_out, 4_711);
    let rows = compare(&prediction, &report.summary());
    assert_eq!(
        rows.iter().map(|row| row.quantity).collect::<Vec<_>>(),
        ["p50", "p95", "p99", "throughput"]
    );
    for row in &rows {
        assert!(row.error.unwrap().abs() < 0.06, "{row:?}");
        assert!(row.predicted.low < row.predicted.high);
    }
    assert!(rows.iter().filter(|row| row.within).count() >= 3, "{rows:?}");
}

#[test]
fn predicts_how_often_a_cache_hits() {
    let truth = model(TRUTH);
    let (_, records) = simulate(&truth, &lunch(60.0, 10_000), 1);
    let model = calibrate(&[at_gateway(&records)], &CalibrateOptions::default()).unwrap();
    let prediction = predict(&system(), &model, &[], &lunch(20.0, 10_000), OPTIONS).unwrap();
    let (report, _) = simulate(&truth, &lunch(20.0, 10_000), 77);
    let rows = compare(&prediction, &report.summary());
    let hits = rows.iter().find(|row| row.quantity == "hits").unwrap();
    assert!(hits.error.unwrap().abs() < 0.02, "{hits:?}");
    assert!(prediction.warnings[0].contains("asked 20.0 times a second; its model was fitted on"));
}

/// The same on one thread and on many, and the same again after it was written down.
#[test]
fn a_prediction_is_the_same_on_any_number_of_threads() {
    let truth = model(TRUTH);
    let with = |threads| {
        let options = PredictOptions { replications: 7, threads };
        predict(&system(), &truth, &[], &square(40.0, 300), options).unwrap()
    };
    assert_eq!(with(1), with(3));
    let written = serde_json::to_string(&with(1)).unwrap();
    assert_eq!(serde_json::from_str::<Prediction>(&written).unwrap(), with(1));
}

#[test]
fn says_where_it_is_weak() {
    let truth = model(TRUTH);
    let options = PredictOptions { replications: 2, threads: 1 };
    let prediction = predict(&system(), &truth, &[], &square(76.0, 300), options).unwrap();
    assert!(prediction.warnings[0].contains("was not fitted on any measurement"));
    assert!(prediction.warnings[1].contains("loaded to 95 %"), "{:?}", prediction.warnings);
    let closed = "[[demand]]\nfunction = \"square\"\narrival = { concurrent = { streams = 8 } }\nrequests = 300";
    let closed = Scenario::parse(closed).unwrap();
    let prediction = predict(&system(), &truth, &[], &closed, options).unwrap();
    assert!(prediction.throughput.median > 60.0, "{prediction:?}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let fault = predict(&system(), &model(""), &[], &square(1.0, 10), OPTIONS).unwrap_err();
    assert!(
        matches!(&fault, PredictError::Config(fault) if fault.to_string().contains("no model"))
    );
}
