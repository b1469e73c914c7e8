//! Profiles against a real server.

use std::ops::ControlFlow;
use std::time::Duration;

use gatewright_bench::{Plan, Series, Snapshot, run_series};
use gatewright_record::Invocation;
use gatewright_workload::profile::{Conclusion, Profile, Search, SearchEnd, Slo, Sweep};
use gatewright_workload::{Limits, Strategy};

use crate::plan;
use crate::server::{Answer, Server};

fn short(server: &Server, millis: u64) -> Plan {
    let limits = Limits { duration: Some(Duration::from_millis(millis)), ..Limits::default() };
    Plan { limits, ..plan(server, Strategy::Synchronous, 1) }
}

#[test]
fn a_sweep_makes_its_steps() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(2));
        Answer::ok()
    });
    let sweep = Sweep { size: 5, max_concurrency: 4, ..Sweep::default() };
    let mut silent = |_: &Snapshot| ControlFlow::Continue(());
    let mut told = Vec::new();
    let mut each = |number, strategy: &Strategy, outcome: Option<&_>| {
        told.push((number, strategy.name(), outcome.is_some()));
    };
    let mut records: Vec<Invocation> = Vec::new();
    let plan = short(&server, 150);
    let series = Series::Profile(Profile::Sweep(sweep), plan.limits);
    let swept = run_series(&plan, &series, &mut silent, Some(&mut records), &mut each).unwrap();
    let names: Vec<_> = swept.steps.iter().map(|step| step.strategy.name()).collect();
    assert_eq!(names, ["synchronous", "throughput", "poisson", "poisson", "poisson"]);
    assert_eq!(told.len(), 10);
    assert_eq!(told[1], (0, "synchronous", true));
    assert!(swept.conclusion.is_none());
    let made: u64 = swept.steps.iter().map(|step| step.outcome.summary.requests()).sum();
    assert_eq!((made, records.len() as u64), (server.requests(), made));
}

#[test]
fn a_search_ends_with_a_reason() {
    let server = Server::start(|_| Answer::ok());
    let slo = Slo::of_response(Duration::from_secs(20), 0.5);
    let search = Search { start_rate: Some(50.0), max_rate: 200.0, ..Search::new(slo) };
    let mut silent = |_: &Snapshot| ControlFlow::Continue(());
    let plan = short(&server, 200);
    let series = Series::Profile(Profile::Search(search), plan.limits);
    let found = run_series(&plan, &series, &mut silent, None, &mut |_, _, _| ()).unwrap();
    let Some(Conclusion::Search(result)) = found.conclusion else { panic!("no conclusion") };
    assert_eq!((result.rate, result.reason), (Some(200.0), SearchEnd::MaxRateReached));
    assert_eq!(found.steps.len(), 3);
    let attainment = found.steps[0].outcome.attainment.as_ref().unwrap();
    assert!(attainment.counted > 0 && attainment.batches.len() > 10, "{attainment:?}");
}
