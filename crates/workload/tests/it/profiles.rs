//! Profiles against simulated servers whose answers are known from queueing theory.

use std::time::Duration;

use gatewright_determinism::{Purpose, Stream};
use gatewright_workload::profile::{
    Attainment, Conclusion, Goodput, GoodputEnd, GoodputReason, Knee, Profile, Search, SearchEnd,
    SearchResult, Slo, StepResult, Sweep,
};
use gatewright_workload::{Gaps, Pacing, Strategy};

/// A queue with some servers and exponential service times.
#[derive(Clone, Copy)]
struct Server {
    servers: usize,
    mean: f64,
    slo: Slo,
    requests: u64,
    seed: u64,
}

impl Server {
    fn new(servers: usize, mean: f64) -> Self {
        let slo = Slo::of_response(Duration::from_secs(1), 0.95);
        Self { servers, mean, slo, requests: 20_000, seed: 1 }
    }

    fn capacity(&self) -> f64 {
        self.servers as f64 / self.mean
    }

    /// What one step comes to: requests in the order of their arrival, each to the server that is free first.
    fn run(&self, strategy: &Strategy, step: u64) -> StepResult {
        let mut luck = Stream::new(self.seed, Purpose::Service, step);
        let mut free = vec![0.0f64; self.servers];
        let (mut attainment, mut sum, mut end) = (Attainment::default(), 0.0, 0.0f64);
        let mut arrivals = match strategy.pacing(self.seed + step, 0) {
            Pacing::Open(schedule) => Source::Open(schedule),
            Pacing::Closed { streams } => Source::Closed(vec![0.0; streams as usize]),
            Pacing::Sessions(_) => panic!("no sessions here"),
        };
        let mut offered_until = 0.0;
        for number in 0..self.requests {
            let (stream, at) = arrivals.next();
            let server = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
            *server = server.max(at) + luck.exponential() * self.mean;
            let finished = *server;
            arrivals.ended(stream, finished);
            let response = finished - at;
            sum += response;
            end = end.max(finished);
            offered_until = at;
            let met = self.slo.is_met((response * 1e9) as u64, None, None, None);
            attainment.add((number * 20 / self.requests) as usize, met);
        }
        let requests = self.requests as f64;
        let overloaded = strategy.is_open() && end > 1.05 * offered_until;
        StepResult {
            rate: requests / end,
            concurrency: sum / end,
            mean_response: sum / requests,
            attainment,
            overloaded,
            ..StepResult::default()
        }
    }
}

enum Source {
    Open(gatewright_workload::Schedule),
    /// When each stream asks next.
    Closed(Vec<f64>),
}

impl Source {
    fn next(&mut self) -> (usize, f64) {
        match self {
            Self::Open(schedule) => (0, schedule.next().unwrap().as_secs_f64()),
            Self::Closed(streams) => {
                let earliest =
                    (0..streams.len()).min_by(|&a, &b| streams[a].total_cmp(&streams[b]));
                (earliest.unwrap(), streams[earliest.unwrap()])
            }
        }
    }

    fn ended(&mut self, stream: usize, at: f64) {
        if let Self::Closed(streams) = self {
            streams[stream] = at;
        }
    }
}

/// Runs a profile to its end; its steps, and what it came to.
fn run(profile: &Profile, server: &Server) -> (Vec<(Strategy, StepResult)>, Option<Conclusion>) {
    profile.check().unwrap();
    let mut run = profile.begin();
    let mut steps: Vec<(Strategy, StepResult)> = Vec::new();
    while let Some(strategy) = run.next_step(steps.last().map(|(_, result)| result)) {
        strategy.check().unwrap();
        let result = server.run(&strategy, steps.len() as u64);
        steps.push((strategy, result));
        assert!(steps.len() < 100, "it does not end");
    }
    assert_eq!(run.next_step(None), None, "what is over stays over");
    (steps, run.conclusion())
}

fn search(server: &Server) -> SearchResult {
    match run(&Profile::Search(Search::new(server.slo)), server).1 {
        Some(Conclusion::Search(result)) => result,
        other => panic!("{other:?}"),
    }
}

/// In M/M/1, P(R > t) = exp(-(mu - lambda) t): the 95 % quantile is t at lambda = mu - ln(20) / t.
#[test]
fn search_finds_the_rate_of_theory() {
    let mut covered = 0;
    for seed in 0..20 {
        let slo = Slo::of_response(Duration::from_millis(100), 0.95);
        let server = Server { slo, seed: seed * 1_000, ..Server::new(1, 0.01) };
        let result = search(&server);
        let theory = 100.0 - 20f64.ln() / 0.1;
        let rate = result.rate.unwrap();
        assert!((rate / theory - 1.0).abs() < 0.06, "{rate} for {theory}: {result:?}");
        let (low, high) = (result.low.unwrap(), result.high.unwrap());
        assert!(low <= rate && rate <= high, "{result:?}");
        covered += u32::from(low <= theory && theory <= high);
    }
    assert!(covered >= 15, "the interval covered {covered} of 20");
}

#[test]
fn search_finds_the_rate_of_many_servers() {
    let slo = Slo::of_response(Duration::from_millis(300), 0.9);
    let server = Server { slo, ..Server::new(8, 0.1) };
    let result = search(&server);
    let rate = result.rate.unwrap();
    // Long runs at the ends of the interval tell on which side they are.
    let long = Server { requests: 1_000_000, ..server };
    let share = |rate: f64| long.run(&Strategy::Poisson { rate }, 9).attainment.share();
    assert!(share(0.94 * rate) > 0.9 && share(1.06 * rate) < 0.9, "{result:?}");
}

#[test]
fn search_says_why_it_found_nothing() {
    let slo = Slo::of_response(Duration::from_millis(10), 0.95);
    let never = search(&Server { slo, ..Server::new(1, 0.01) });
    assert_eq!((never.rate, never.reason), (None, SearchEnd::ObjectiveUnmet));
    let slo = Slo::of_response(Duration::from_secs(10), 0.95);
    let server = Server { slo, ..Server::new(1, 0.01) };
    let bounded = Search { max_rate: 80.0, ..Search::new(slo) };
    let Some(Conclusion::Search(always)) = run(&Profile::Search(bounded), &server).1 else {
        panic!("no conclusion")
    };
    assert_eq!((always.rate, always.reason), (Some(80.0), SearchEnd::MaxRateReached));
    let short = Search { max_steps: 4, ..Search::new(slo) };
    let (steps, conclusion) = run(&Profile::Search(short), &server);
    assert_eq!(steps.len(), 4);
    assert!(matches!(
        conclusion,
        Some(Conclusion::Search(SearchResult { reason: SearchEnd::MaxStepsReached, .. }))
    ));
}

/// A sweep has most of its rates where the response time bends, and none is wasted far above capacity.
#[test]
fn sweep_resolves_the_knee() {
    for servers in [1, 8] {
        let server = Server::new(servers, 0.1);
        let sweep = Sweep { size: 12, max_concurrency: 64, gaps: Gaps::Poisson };
        let (steps, _) = run(&Profile::Sweep(sweep), &server);
        assert_eq!(steps.len(), 12);
        assert_eq!(steps[0].0, Strategy::Synchronous);
        assert_eq!(steps[1].0, Strategy::Throughput { max_concurrency: 64 });
        let mut curve: Vec<(f64, f64)> = steps[2..]
            .iter()
            .filter(|(_, result)| !result.overloaded)
            .map(|(strategy, result)| (strategy.rate().unwrap(), result.mean_response))
            .collect();
        curve.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wasted = steps.iter().filter(|(_, result)| result.overloaded).count();
        assert!(wasted <= 3, "{wasted} of 12 steps were above capacity");
        assert!(curve.iter().all(|(rate, _)| *rate < 1.1 * server.capacity()), "{curve:?}");
        // From each rate to the next, the response time less than doubles, up to 8 times that at low load.
        let doubles = |pair: &&[(f64, f64)]| pair[1].1 > 2.0 * pair[0].1 && pair[0].1 < 0.8;
        assert_eq!(curve.windows(2).filter(doubles).count(), 0, "{servers}: {curve:?}");
        assert!(curve.iter().any(|(_, response)| *response > 0.3), "{servers}: {curve:?}");
    }
}

fn goodput(goodput: Goodput, server: &Server) -> GoodputEnd {
    match run(&Profile::Goodput(goodput), server).1 {
        Some(Conclusion::Goodput(end)) => end,
        other => panic!("{other:?}"),
    }
}

fn goodput_of(slo: Slo) -> Goodput {
    let text = "initial_streams = 4\n[slo]\nresponse = \"1s\"";
    Goodput { slo, ..toml::from_str(text).unwrap() }
}

/// With n streams on one exponential server, a response is the sum of n services: 95 % of them take at most
/// half the 95 % quantile of chi-squared with 2 n degrees of freedom, which for n = 10 is 15.71 services.
#[test]
fn goodput_finds_the_streams_of_theory() {
    let slo = Slo::of_response(Duration::from_millis(157), 0.95);
    let server = Server { slo, requests: 100_000, ..Server::new(1, 0.01) };
    let end = goodput(goodput_of(slo), &server);
    assert_eq!(end.reason, GoodputReason::Converged, "{end:?}");
    assert!((9..=10).contains(&end.met.unwrap()), "{end:?}");
    assert!((end.rate.unwrap() / 100.0 - 1.0).abs() < 0.05, "{end:?}");
    assert_eq!(end.missed.unwrap() - end.met.unwrap(), 1, "{end:?}");
}

#[test]
fn goodput_says_why_it_ended() {
    let slo = |millis| Slo::of_response(Duration::from_millis(millis), 0.95);
    let server = |millis| Server { slo: slo(millis), ..Server::new(1, 0.01) };
    let never = goodput(goodput_of(slo(1)), &server(1));
    assert_eq!((never.met, never.reason), (None, GoodputReason::ObjectivesUnmetAtMinimum));
    let all = goodput(Goodput { max_streams: 20, ..goodput_of(slo(5_000)) }, &server(5_000));
    assert_eq!((all.met, all.reason), (Some(20), GoodputReason::MaxStreamsReached));
    let short = goodput(Goodput { max_probes: 2, ..goodput_of(slo(157)) }, &server(157));
    assert_eq!(short.reason, GoodputReason::MaxProbesExhausted);
}

/// A server with 16 places and fixed service times is a straight line up to 16 streams and flat behind.
#[test]
fn knee_finds_the_places_of_a_server() {
    let knee = Knee { streams: vec![1, 2, 4, 8, 12, 16, 24, 32, 48, 64], ..Knee::default() };
    for adaptive in [false, true] {
        let profile = Profile::Knee(Knee { adaptive, ..knee.clone() });
        let server = Server::new(16, 0.1);
        let (steps, conclusion) = run(&profile, &server);
        let Some(Conclusion::Knee(Some(fit))) = conclusion else { panic!("{conclusion:?}") };
        assert!((14.0..19.0).contains(&fit.concurrency), "{fit:?}");
        assert!((fit.throughput / 160.0 - 1.0).abs() < 0.12, "{fit:?}");
        assert_eq!(steps.len() > 10, adaptive);
        for (strategy, _) in &steps[10..] {
            let streams = strategy.concurrency().unwrap();
            assert!((9..=24).contains(&streams), "{streams} are not around the knee");
        }
    }
    let below = Profile::Knee(Knee { streams: vec![1, 2, 4, 6, 8, 10], ..Knee::default() });
    assert_eq!(run(&below, &Server::new(16, 0.1)).1, Some(Conclusion::Knee(None)));
}

#[test]
fn listed_profiles_run_what_they_list_and_stop_when_told() {
    let profile = Profile::Poisson { rate: vec![1.0, 2.0, 3.0] };
    let mut run = profile.begin();
    assert_eq!(run.next_step(None), Some(Strategy::Poisson { rate: 1.0 }));
    let fine = StepResult::default();
    assert_eq!(run.next_step(Some(&fine)), Some(Strategy::Poisson { rate: 2.0 }));
    let last = StepResult { ends_all: true, ..StepResult::default() };
    assert_eq!(run.next_step(Some(&last)), None);
    assert!(Profile::Concurrent { streams: vec![] }.check().is_err());
    assert!(Profile::Constant { rate: vec![1.0, 0.0] }.check().is_err());
    let text = "[search]\nresolution = 0.02\n[search.slo]\nresponse = \"200ms\"\nattainment = 0.95";
    let profile: Profile = toml::from_str(text).unwrap();
    assert_eq!(toml::from_str::<Profile>(&toml::to_string(&profile).unwrap()).unwrap(), profile);
    assert_eq!(profile.slo().unwrap().response, Some(Duration::from_millis(200)));
    let sweep: Profile = toml::from_str("sweep = { size = 6 }").unwrap();
    assert_eq!(sweep, Profile::Sweep(Sweep { size: 6, ..Sweep::default() }));
    let closed = run_of(&Profile::Synchronous);
    assert_eq!(closed, [Strategy::Synchronous]);
}

fn run_of(profile: &Profile) -> Vec<Strategy> {
    run(profile, &Server::new(1, 0.01)).0.into_iter().map(|(strategy, _)| strategy).collect()
}
