use serde::{Deserialize, Serialize};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Demand {
    arrival: Strategy,
}

fn read(arrival: &str) -> Result<Strategy, toml::de::Error> {
    toml::from_str::<Demand>(&format!("arrival = {arrival}")).map(|demand| demand.arrival)
}

/// A strategy is read from its words, and from what is written of it.
fn round_trips((text, strategy): (&str, Strategy)) {
    assert_eq!(read(text).unwrap(), strategy, "{text}");
    let demand = Demand { arrival: strategy.clone() };
    let written = toml::to_string(&demand).unwrap();
    assert_eq!(toml::from_str::<Demand>(&written).unwrap(), demand, "{written}");
    let json = serde_json::to_string(&strategy).unwrap();
    assert_eq!(serde_json::from_str::<Strategy>(&json).unwrap(), strategy);
}

#[test]
fn configuration_spells_every_strategy() {
    let all = [
        ("\"synchronous\"", Strategy::Synchronous),
        ("{ concurrent = { streams = 8 } }", Strategy::Concurrent { streams: 8 }),
        ("{ throughput = { max_concurrency = 64 } }", Strategy::Throughput { max_concurrency: 64 }),
        ("{ constant = { rate = 0.5 } }", Strategy::Constant { rate: 0.5 }),
        ("{ poisson = { rate = 120 } }", Strategy::Poisson { rate: 120.0 }),
    ];
    all.into_iter().for_each(round_trips);
}

#[test]
fn configuration_spells_rates_that_change() {
    let all = [
        ("{ gamma = { rate = 1, cv = 2 } }", Strategy::Gamma { rate: 1.0, cv: 2.0 }),
        (
            "{ ramp = { from = 0, to = 9, over = \"1m\", gaps = \"constant\" } }",
            Strategy::Ramp { from: 0.0, to: 9.0, over: SECOND * 60, gaps: Gaps::Constant },
        ),
        (
            "{ steps = { steps = [{ rate = 1, duration = \"1s\" }], gaps = { gamma = { cv = 3 } } } }",
            Strategy::Steps {
                steps: vec![Step { rate: 1.0, duration: SECOND }],
                repeat: false,
                gaps: Gaps::Gamma { cv: 3.0 },
            },
        ),
        (
            "{ spike = { rate = 1, peak = 9, at = \"2s\", lasting = \"1s\" } }",
            Strategy::Spike(Spike {
                rate: 1.0,
                peak: 9.0,
                at: 2 * SECOND,
                lasting: SECOND,
                every: None,
                gaps: Gaps::Poisson,
            }),
        ),
        (
            "{ sine = { rate = 2, amplitude = 1, period = \"1s\" } }",
            Strategy::Sine { rate: 2.0, amplitude: 1.0, period: SECOND, gaps: Gaps::Poisson },
        ),
        (
            "{ random_walk = { rate = 2, deviation = 1, every = \"1s\", min = 1, max = 4 } }",
            Strategy::RandomWalk(RandomWalk {
                rate: 2.0,
                deviation: 1.0,
                every: SECOND,
                min: 1.0,
                max: 4.0,
                gaps: Gaps::Poisson,
            }),
        ),
    ];
    all.into_iter().for_each(round_trips);
}

#[test]
fn configuration_spells_users_and_traces() {
    let all = [
        (
            "{ users = { users = 5, think = { mean = \"1s\" } } }",
            Strategy::Users {
                users: 5,
                think: Think { mean: SECOND, cv: 0.0 },
                ramp_up: Duration::ZERO,
            },
        ),
        (
            "{ sessions = { rate = 2, turns = { mean = 4 }, think = { mean = \"1s\", cv = 1 } } }",
            Strategy::Sessions {
                rate: 2.0,
                turns: Turns::Mean(4.0),
                think: Think { mean: SECOND, cv: 1.0 },
                gaps: Gaps::Poisson,
            },
        ),
        (
            "{ replay = { trace = \"a.csv\", timing = \"idle_gaps\", format = \"azure_functions_2021\" } }",
            Strategy::Replay(Replay {
                timing: Timing::IdleGaps,
                format: Some(crate::trace::TraceFormat::AzureFunctions2021),
                ..Replay::new("a.csv")
            }),
        ),
    ];
    all.into_iter().for_each(round_trips);
}

#[test]
fn configuration_refuses_what_it_does_not_know() {
    for text in [
        "{ poisson = { rate = 1, burst = 2 } }",
        "{ poisson = { ratee = 1 } }",
        "{ poison = { rate = 1 } }",
        "\"poisson\"",
        "{ concurrent = { streams = -1 } }",
        "{ constant = { rate = \"fast\" } }",
        "{ ramp = { from = 1, to = 2, over = 3 } }",
        "{ spike = { rate = 1, peak = 9, at = \"2s\", lasting = \"1s\", often = true } }",
        "{ sessions = { rate = 2, turns = 4 } }",
    ] {
        assert!(read(text).is_err(), "{text} was taken");
    }
}

#[test]
fn the_schema_knows_every_strategy_and_its_ranges() {
    let schema = serde_json::to_string(&schemars::schema_for!(Strategy)).unwrap();
    for word in ["synchronous", "concurrent", "throughput", "constant", "poisson", "1000000"] {
        assert!(schema.contains(word), "{word} is not in {schema}");
    }
    assert!(schema.contains("\"additionalProperties\":false"), "{schema}");
}

#[test]
fn check_refuses_what_cannot_be_run() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9, 1e-7] {
        assert!(Strategy::Constant { rate }.check().is_err(), "{rate} was taken");
        assert!(Strategy::Poisson { rate }.check().is_err(), "{rate} was taken");
    }
    for count in [0, MAX_STREAMS + 1] {
        assert!(Strategy::Concurrent { streams: count }.check().is_err());
        assert!(Strategy::Throughput { max_concurrency: count }.check().is_err());
    }
    let error = Strategy::Poisson { rate: 0.0 }.check().unwrap_err().to_string();
    assert!(error.starts_with("poisson: rate 0 is not usable; give"), "{error}");
    assert_eq!(Strategy::Synchronous.check(), Ok(()));
    for text in [
        "{ gamma = { rate = 1, cv = 0 } }",
        "{ ramp = { from = 0, to = 0, over = \"1s\" } }",
        "{ ramp = { from = -1, to = 5, over = \"1s\" } }",
        "{ ramp = { from = 1, to = 5, over = \"1us\" } }",
        "{ steps = { steps = [] } }",
        "{ steps = { steps = [{ rate = 0, duration = \"1s\" }] } }",
        "{ steps = { steps = [{ rate = 1, duration = \"0s\" }] } }",
        "{ spike = { rate = 1, peak = 2, at = \"5s\", lasting = \"1s\", every = \"5s\" } }",
        "{ sine = { rate = 1, amplitude = 2, period = \"1s\" } }",
        "{ random_walk = { rate = 5, deviation = 1, every = \"1s\", min = 1, max = 4 } }",
        "{ users = { users = 0 } }",
        "{ users = { users = 1, think = { mean = \"1s\", cv = -1 } } }",
        "{ sessions = { rate = 2, turns = { fixed = 0 } } }",
        "{ replay = { trace = \"x\", time_scale = 0 } }",
    ] {
        assert!(read(text).unwrap().check().is_err(), "{text} was taken");
    }
    assert_eq!(Strategy::Poisson { rate: MIN_RATE }.check(), Ok(()));
    assert_eq!(Strategy::Throughput { max_concurrency: MAX_STREAMS }.check(), Ok(()));
}

#[test]
fn demands_of_one_run_draw_their_own_arrivals() {
    let times = |seed, demand| -> Vec<_> {
        match (Strategy::Poisson { rate: 10.0 }).pacing(seed, demand) {
            Pacing::Open(schedule) => schedule.take(20).collect(),
            Pacing::Closed { .. } | Pacing::Sessions(_) => unreachable!("poisson is open"),
        }
    };
    assert_eq!(times(1, 0), times(1, 0));
    assert_ne!(times(1, 0), times(1, 1));
    assert_ne!(times(1, 0), times(2, 0));
}
