use gatewright_record::{Invocation, Status};
use gatewright_sim::{Keys, Law};
use gatewright_twin::{CalibrateError, CalibrateOptions, RecordedRun, calibrate, refits};

use crate::rig::{TRUTH, at_client, at_gateway, lunch, model, simulate, square};

fn runs(loads: &[f64]) -> Vec<RecordedRun> {
    let truth = model(TRUTH);
    let mut runs = Vec::new();
    for (seed, rate) in (1..).zip(loads) {
        let (_, records) = simulate(&truth, &square(*rate, 4_000), seed);
        runs.push(at_gateway(&records));
        runs.push(at_client(&records));
    }
    runs
}

fn table(law: &Law) -> &[f64] {
    match law {
        Law::Empirical(table) => table,
        other => panic!("{other:?} is no table"),
    }
}

/// Log-normal of mean 0.05 and cv 0.5: the law that is found has its mean and quantiles within three standard
/// errors, at loads where most requests wait.
#[test]
fn finds_the_service_law_through_the_queue() {
    let model = calibrate(&runs(&[30.0, 70.0]), &CalibrateOptions::default()).unwrap();
    let square = &model.function["square"];
    let n: f64 = 8_000.0;
    let mean = square.service.mean().unwrap();
    assert!((mean - 0.05).abs() < 3.0 * 0.025 / n.sqrt(), "{mean}");
    let sigma = 1.25f64.ln().sqrt();
    let mu = 0.05f64.ln() - 0.5 * sigma * sigma;
    let table = table(&square.service);
    assert_eq!(table.len(), 1_000);
    // Normal quantiles and densities; the standard error of a quantile is sqrt(p (1 - p) / n) over the density.
    for (p, z, density) in [(0.5, 0.0, 0.39894), (0.9, 1.28155, 0.17550), (0.99, 2.32635, 0.02665)]
    {
        let exact = (mu + sigma * z).exp();
        let error = (p * (1.0f64 - p) / n).sqrt() / density * sigma * exact;
        let found = table[(p * 1_000.0) as usize];
        assert!((found - exact).abs() < 3.0 * error, "p{p}: {found} not {exact} +- {error}");
    }
    let fitted = square.fitted.as_ref().unwrap();
    assert_eq!(fitted.requests, 8_000);
    assert_eq!(fitted.sources.len(), 4);
    let rate = fitted.rate.unwrap();
    assert!(
        (rate.min / 30.0 - 1.0).abs() < 0.05 && (rate.max / 70.0 - 1.0).abs() < 0.05,
        "{rate:?}"
    );
    assert_eq!(fitted.in_flight.unwrap().max, 1.0);
}

#[test]
fn finds_what_client_and_gateway_add() {
    let model = calibrate(&runs(&[30.0]), &CalibrateOptions::default()).unwrap();
    let square = &model.function["square"];
    assert_eq!(square.overhead, Some(Law::Fixed(0.0007)));
    let gateway = square.gateway.as_ref().unwrap();
    assert!((gateway.mean().unwrap() - 0.0001).abs() < 2e-6, "{:?}", gateway.mean());
    assert!(
        table(gateway).iter().all(|span| (0.00005..=0.00015).contains(span)),
        "no wait is in it"
    );
    assert_eq!(square.start, None);
    assert!(square.fitted.as_ref().unwrap().notes.iter().any(|note| note.starts_with("start: no")));
    // Without the client's records there is nothing to say about the client.
    let gateway_alone = calibrate(&runs(&[30.0])[..1], &CalibrateOptions::default()).unwrap();
    assert_eq!(gateway_alone.function["square"].overhead, None);
}

#[test]
fn finds_the_cache_and_its_keys() {
    let (_, records) = simulate(&model(TRUTH), &lunch(100.0, 20_000), 1);
    let found = calibrate(&[at_gateway(&records)], &CalibrateOptions::default()).unwrap();
    let lunch = &found.function["lunch"];
    let service = lunch.service.mean().unwrap();
    let n = lunch.fitted.as_ref().unwrap().requests as f64;
    assert!((service - 0.2).abs() < 3.0 * 0.08 / n.sqrt(), "{service}");
    let cache = lunch.cache.as_ref().unwrap();
    // A hit takes 0.3 ms on average, or the 0.1 ms after which the gateway looks.
    let hit = cache.hit.mean().unwrap();
    let exact = 0.0001 + 0.0003 * (-1.0f64 / 3.0).exp();
    assert!((hit - exact).abs() < 3.0 * 0.0003 / 18_000f64.sqrt(), "{hit} not {exact}");
    let Keys::Frequencies { weights, rest_keys, .. } = &cache.keys else {
        panic!("{:?}", cache.keys)
    };
    assert_eq!((weights.len(), *rest_keys), (50, 0));
    assert_eq!(weights.iter().sum::<f64>(), 20_000.0);
    let ratio = weights[0] / weights[1];
    assert!((1.8..2.2).contains(&ratio), "Zipf: {ratio}");
    let again = gatewright_sim::Model::parse(&found.to_toml()).unwrap();
    assert_eq!(again, found);
}

#[test]
fn finds_start_up_times_from_who_waited_for_them() {
    let truth = model("[function.square]\nservice = { fixed = 0.05 }\nstart = { fixed = 0.4 }");
    let mut scenario = square(0.01, 40);
    scenario.change.insert("function.square.replicas.min".into(), 0.into());
    let system = gatewright_control::config::SystemFile::parse(
        "[function.square]\npython = \"m:C\"\nreplicas = { min = 0, max = 1 }\nautoscale = { policy = \"kpa\", stable_window = \"6s\" }",
        &[],
    )
    .unwrap();
    let mut records = Vec::new();
    let simulation = gatewright_sim::Simulation::new(&system, &truth, &scenario).unwrap();
    simulation.run(1, Some(&mut records), &mut |_| ()).unwrap();
    let found = calibrate(&[at_gateway(&records)], &CalibrateOptions::default()).unwrap();
    assert_eq!(found.function["square"].start, Some(Law::Fixed(0.4)));
    let given = CalibrateOptions { start: Some(Law::Fixed(0.9)), ..CalibrateOptions::default() };
    let found = calibrate(&[at_gateway(&records)], &given).unwrap();
    assert_eq!(found.function["square"].start, Some(Law::Fixed(0.9)));
}

#[test]
fn a_client_alone_does_if_nothing_can_have_waited() {
    let (_, calm) = simulate(&model(TRUTH), &square(0.5, 200), 1);
    let found = calibrate(&[at_client(&calm)], &CalibrateOptions::default()).unwrap();
    let bench = &found.function["bench"];
    let mean = bench.service.mean().unwrap();
    assert!((mean - 0.0508).abs() < 3.0 * 0.025 / 190f64.sqrt(), "{mean}");
    assert!(bench.fitted.as_ref().unwrap().notes[0].contains("as a client saw it"));
    let named = CalibrateOptions { function: Some("square".into()), ..CalibrateOptions::default() };
    assert!(calibrate(&[at_client(&calm)], &named).unwrap().function.contains_key("square"));

    let (_, busy) = simulate(&model(TRUTH), &square(75.0, 300), 1);
    let fault = calibrate(&[at_client(&busy)], &CalibrateOptions::default()).unwrap_err();
    assert!(matches!(fault, CalibrateError::MayHaveWaited { .. }), "{fault}");
    assert!(fault.hint().contains("serve --records"));
}

#[test]
fn too_little_is_named() {
    let options = CalibrateOptions::default();
    assert_eq!(calibrate(&[], &options), Err(CalibrateError::NoRecords));
    assert_eq!(calibrate(&[RecordedRun::default()], &options), Err(CalibrateError::NoRecords));
    let (_, records) = simulate(&model(TRUTH), &square(10.0, 20), 1);
    let few = calibrate(&[at_gateway(&records)], &options).unwrap_err();
    assert_eq!(few.to_string(), "function `square` has 20 requests to learn from; it takes 30");
    let failed = records.iter().map(|r| Invocation { status: Status::Error, ..r.clone() });
    let failed: Vec<_> = failed.collect();
    let nothing = calibrate(&[at_gateway(&failed)], &options).unwrap_err();
    assert_eq!(nothing, CalibrateError::NothingServed { function: "square".into() });
    // Records without any moment.
    let blank = RecordedRun {
        source: String::new(),
        records: vec![Invocation::default(); 50],
        ..RecordedRun::default()
    };
    assert_eq!(calibrate(&[blank], &options), Err(CalibrateError::MayHaveWaited { found: 0 }));
    let wrong = CalibrateOptions { start: Some(Law::Fixed(-1.0)), ..options };
    assert!(matches!(calibrate(&runs(&[30.0]), &wrong), Err(CalibrateError::Start(_))));
}

#[test]
fn a_client_of_one_of_several_functions_must_be_named() {
    let truth = model(TRUTH);
    let (_, squares) = simulate(&truth, &square(20.0, 500), 1);
    let (_, lunches) = simulate(&truth, &lunch(20.0, 2_000), 2);
    let runs = [at_gateway(&squares), at_gateway(&lunches), at_client(&squares)];
    let fault = calibrate(&runs, &CalibrateOptions::default()).unwrap_err();
    assert_eq!(fault, CalibrateError::WhichFunction { count: 2 });
    let named = CalibrateOptions { function: Some("square".into()), ..CalibrateOptions::default() };
    let found = calibrate(&runs, &named).unwrap();
    assert_eq!(found.function["square"].overhead, Some(Law::Fixed(0.0007)));
    assert_eq!(found.function["lunch"].overhead, None);
}

/// The refits' means vary as the mean of 4,000 independent requests does: by 0.025 / sqrt(4000).
#[test]
fn refits_vary_as_much_as_the_records_leave_open() {
    let runs = &runs(&[30.0])[..1];
    let models = refits(runs, &CalibrateOptions::default(), 100, 1).unwrap();
    let means: Vec<f64> =
        models.iter().map(|model| model.function["square"].service.mean().unwrap()).collect();
    let mean = means.iter().sum::<f64>() / 100.0;
    let variance = means.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 99.0;
    let error = 0.025 / 4_000f64.sqrt();
    assert!((0.75..1.3).contains(&(variance.sqrt() / error)), "{} not {error}", variance.sqrt());
    assert_eq!(models, refits(runs, &CalibrateOptions::default(), 100, 1).unwrap());
}
