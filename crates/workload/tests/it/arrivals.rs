//! Each strategy offers what it claims, on any number of threads.

use std::time::Duration;

use gatewright_determinism::Time;
use gatewright_workload::{
    Gaps, Pacing, RandomWalk, Schedule, Spike, Step, Strategy, Think, Turns,
};

const SECOND: Duration = Duration::from_secs(1);

fn schedule(strategy: &Strategy, seed: u64) -> Schedule {
    strategy.check().unwrap();
    match strategy.pacing(seed, 0) {
        Pacing::Open(schedule) => schedule,
        other => panic!("{strategy} is not open: {other:?}"),
    }
}

fn open_strategies(gaps: Gaps) -> Vec<Strategy> {
    let walk =
        RandomWalk { rate: 50.0, deviation: 10.0, every: SECOND, min: 10.0, max: 90.0, gaps };
    let spike =
        Spike { rate: 20.0, peak: 200.0, at: 3 * SECOND, lasting: SECOND, every: None, gaps };
    let steps = vec![
        Step { rate: 10.0, duration: 2 * SECOND },
        Step { rate: 0.0, duration: SECOND },
        Step { rate: 100.0, duration: SECOND },
    ];
    vec![
        Strategy::Constant { rate: 40.0 },
        Strategy::Poisson { rate: 40.0 },
        Strategy::Gamma { rate: 40.0, cv: 3.0 },
        Strategy::Ramp { from: 0.0, to: 100.0, over: 5 * SECOND, gaps },
        Strategy::Ramp { from: 100.0, to: 1.0, over: 5 * SECOND, gaps },
        Strategy::Steps { steps: steps.clone(), repeat: true, gaps },
        Strategy::Steps { steps, repeat: false, gaps },
        Strategy::Spike(spike),
        Strategy::Spike(Spike { every: Some(5 * SECOND), ..spike }),
        Strategy::Sine { rate: 50.0, amplitude: 50.0, period: 4 * SECOND, gaps },
        Strategy::RandomWalk(walk),
    ]
}

#[test]
fn shares_of_any_number_of_threads_are_the_same_schedule() {
    for gaps in [Gaps::Constant, Gaps::Poisson, Gaps::Gamma { cv: 2.0 }] {
        for strategy in open_strategies(gaps) {
            let whole: Vec<_> = (0u64..).zip(schedule(&strategy, 7)).take(500).collect();
            assert!(whole.is_sorted_by_key(|(_, time)| *time), "{strategy} goes back");
            assert_eq!(whole.len() < 500, strategy.is_finite(), "{strategy}: {}", whole.len());
            for of in [1, 3, 8] {
                let mut merged = Vec::new();
                for nth in 0..of {
                    let mine = schedule(&strategy, 7).share(nth, of);
                    merged.extend(mine.take_while(|(number, _)| *number < 500));
                }
                merged.sort_unstable();
                assert_eq!(merged, whole, "{strategy} on {of} threads");
            }
        }
    }
}

/// Mean rate in each window, from many replications.
fn rates(strategy: &Strategy, window: Duration, windows: usize, seeds: u64) -> Vec<f64> {
    let mut counts = vec![0.0; windows];
    for seed in 0..seeds {
        for time in schedule(strategy, seed) {
            let nth = (time.as_nanos() / window.as_nanos() as u64) as usize;
            match counts.get_mut(nth) {
                Some(count) => *count += 1.0,
                None => break,
            }
        }
    }
    counts.iter().map(|count| count / seeds as f64 / window.as_secs_f64()).collect()
}

/// The mean number of arrivals in a window is the integral of the rate, whatever the gaps: exactly so for
/// Poisson gaps, up to one request for even ones.
#[test]
fn rates_follow_their_shape() {
    let ramp = |t: f64| if t < 5.0 { 20.0 * t } else { 100.0 };
    let sine = |t: f64| 50.0 + 50.0 * (std::f64::consts::TAU * t / 4.0).sin();
    let steps = |t: f64| match t % 4.0 {
        t if t < 2.0 => 10.0,
        t if t < 3.0 => 0.0,
        _ => 100.0,
    };
    let once = |t: f64| if t < 4.0 { steps(t) } else { 0.0 };
    let spike = |t: f64| if (3.0..4.0).contains(&t) { 200.0 } else { 20.0 };
    let spikes = |t: f64| spike(t % 5.0);
    let shapes: [(usize, &dyn Fn(f64) -> f64); 6] =
        [(3, &ramp), (5, &steps), (6, &once), (7, &spike), (8, &spikes), (9, &sine)];
    for (gaps, seeds) in [(Gaps::Poisson, 200), (Gaps::Constant, 1)] {
        let strategies = open_strategies(gaps);
        for (nth, shape) in shapes {
            let strategy = &strategies[nth];
            let measured = rates(strategy, SECOND / 2, 24, seeds);
            for (window, rate) in (0..).zip(&measured) {
                // The mean of the shape over the window, by the midpoint rule.
                let midpoint =
                    |i: u32| shape((f64::from(window) + (f64::from(i) + 0.5) / 1e3) / 2.0);
                let expected = (0..1_000).map(midpoint).sum::<f64>() / 1e3;
                let error = match gaps {
                    Gaps::Constant => 2.0 + 1e-6,
                    _ => 4.5 * (expected * 2.0 / seeds as f64).sqrt() + 1e-9,
                };
                assert!(
                    (rate - expected).abs() <= error,
                    "{strategy} {gaps:?}: {rate} for {expected}"
                );
            }
        }
    }
}

/// Counts of a Poisson process with a known rate: sum of (count - mean)^2 / mean is chi-squared.
#[test]
fn modulated_poisson_counts_vary_as_much_as_their_mean() {
    let period = 4 * SECOND;
    let sine = Strategy::Sine { rate: 200.0, amplitude: 150.0, period, gaps: Gaps::Poisson };
    let windows = 8_000;
    let mut counts = vec![0.0; windows];
    for time in schedule(&sine, 3) {
        match counts.get_mut((time.as_secs_f64() * 4.0) as usize) {
            Some(count) => *count += 1.0,
            None => break,
        }
    }
    let omega = std::f64::consts::TAU / 4.0;
    let integral = |t: f64| 200.0 * t + 150.0 / omega * (1.0 - (omega * t).cos());
    let term = |(nth, count): (usize, &f64)| {
        let mean = integral((nth + 1) as f64 / 4.0) - integral(nth as f64 / 4.0);
        (count - mean) * (count - mean) / mean
    };
    let dispersion = counts.iter().enumerate().map(term).sum::<f64>() / windows as f64;
    assert!((dispersion - 1.0).abs() < 4.0 * (2.0 / windows as f64).sqrt(), "{dispersion}");
}

fn gaps_of(times: impl Iterator<Item = Time>) -> Vec<f64> {
    let times: Vec<_> = times.collect();
    times.windows(2).map(|pair| pair[1].nanos_since(pair[0]) as f64 / 1e9).collect()
}

#[test]
fn gamma_gaps_vary_as_they_claim_and_are_independent() {
    for cv in [0.3, 1.0, 2.5] {
        let gaps = gaps_of(schedule(&Strategy::Gamma { rate: 100.0, cv }, 5).take(200_000));
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / n;
        assert!((mean * 100.0 - 1.0).abs() < 4.0 * cv / n.sqrt(), "cv {cv}: mean {mean}");
        let measured = variance.sqrt() / mean;
        assert!((measured / cv - 1.0).abs() < 0.03, "cv {cv}: {measured}");
        let pairs = gaps.iter().zip(&gaps[1..]);
        let covariance = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / n;
        assert!((covariance / variance).abs() < 4.0 / n.sqrt(), "cv {cv} is correlated");
    }
}

/// In the long run the counts of a renewal process have a variance-to-mean ratio of cv^2 (Cox, "Renewal
/// theory", 1962, section 4.2).
#[test]
fn gamma_arrivals_are_as_bursty_as_they_claim() {
    for cv in [0.5, 2.0] {
        let windows = 4_000;
        let mut counts = vec![0.0; windows];
        for time in schedule(&Strategy::Gamma { rate: 200.0, cv }, 11) {
            match counts.get_mut(time.as_secs_f64() as usize) {
                Some(count) => *count += 1.0,
                None => break,
            }
        }
        let mean = counts.iter().sum::<f64>() / windows as f64;
        let square = |count: &f64| (count - mean) * (count - mean);
        let ratio = counts.iter().map(square).sum::<f64>() / windows as f64 / mean;
        // Windows of 200 requests are not quite the long run.
        assert!((ratio / (cv * cv) - 1.0).abs() < 0.12, "cv {cv}: {ratio}");
    }
}

#[test]
fn a_random_walk_stays_inside_and_gets_around() {
    let (every, gaps) = (SECOND, Gaps::Constant);
    let walk = RandomWalk { rate: 500.0, deviation: 200.0, every, min: 100.0, max: 900.0, gaps };
    let strategy = Strategy::RandomWalk(walk);
    let measured = rates(&strategy, SECOND, 4_000, 1);
    assert!(measured.iter().all(|rate| (99.0..=901.0).contains(rate)), "{measured:?}");
    let mean = measured.iter().sum::<f64>() / 4_000.0;
    assert!((mean - strategy.rate().unwrap()).abs() < 40.0, "{mean}");
    // Reflected between two walls it is uniformly distributed: a quarter of the time in each quarter.
    for quarter in 0..4 {
        let from = 100.0 + 200.0 * f64::from(quarter);
        let inside = measured.iter().filter(|&&rate| rate >= from && rate < from + 200.0).count();
        assert!((800..1_200).contains(&inside), "{inside} of 4000 in quarter {quarter}");
    }
    let other = Strategy::RandomWalk(RandomWalk { gaps: Gaps::Poisson, ..walk });
    let noisy = rates(&other, SECOND, 100, 1);
    let close = noisy.iter().zip(&measured).filter(|(a, b)| (*a - *b).abs() < 5.0 * b.sqrt());
    assert!(close.count() > 95, "the walk hangs on the gaps");
}

#[test]
fn steps_end_and_what_is_over_stays_over() {
    let steps = vec![Step { rate: 10.0, duration: SECOND }, Step { rate: 20.0, duration: SECOND }];
    let strategy = Strategy::Steps { steps, repeat: false, gaps: Gaps::Constant };
    let mut schedule = schedule(&strategy, 1);
    let times: Vec<_> = schedule.by_ref().collect();
    assert_eq!(times.len(), 30);
    assert_eq!(
        times[..3].iter().map(|time| time.as_nanos()).collect::<Vec<_>>(),
        [0, 100_000_000, 200_000_000]
    );
    assert!(times[29].as_secs_f64() < 2.0);
    assert_eq!((schedule.next(), schedule.next()), (None, None));
    // A ramp to nothing ends as well, a rest of many rounds does not take many steps.
    let ramp = Strategy::Ramp { from: 10.0, to: 0.0, over: 10 * SECOND, gaps: Gaps::Constant };
    assert_eq!(self::schedule(&ramp, 1).count(), 50);
    let steps = vec![Step { rate: 1e-6, duration: Duration::from_millis(1) }];
    let rare = Strategy::Steps { steps, repeat: true, gaps: Gaps::Poisson };
    assert!(self::schedule(&rare, 1).nth(100).unwrap().as_secs_f64() > 1e7);
}

#[test]
fn a_replay_gives_the_moments_it_was_given() {
    let times = [5, 7, 6, 20].map(Time::from_nanos);
    let schedule = Schedule::replay(times.into_iter());
    let clone = schedule.clone();
    let nanos: Vec<_> = schedule.map(Time::as_nanos).collect();
    assert_eq!(nanos, [5, 7, 7, 20]);
    assert_eq!(clone.share(1, 3).collect::<Vec<_>>(), [(1, times[1])]);
}

/// Users of a partly open system in virtual time, with answers that take no time: each asks its turns, so the
/// rate of requests is the product.
#[test]
fn sessions_offer_the_rate_they_claim() {
    let think = Think { mean: SECOND, cv: 1.0 };
    let strategy =
        Strategy::Sessions { rate: 20.0, turns: Turns::Mean(3.0), think, gaps: Gaps::Poisson };
    let Pacing::Sessions(sessions) = strategy.pacing(2, 0) else { panic!("not sessions") };
    let horizon = Time::from_secs_f64(1_000.0);
    let mut requests = 0;
    for (session, start) in sessions.starts(0, 1).take_while(|(_, start)| *start < horizon) {
        let (mut turn, mut at) = (0, Some(start));
        while let Some(time) = at.filter(|time| *time < horizon) {
            requests += 1;
            at = sessions.next_turn(session, turn, time);
            turn += 1;
        }
    }
    let rate = f64::from(requests) / 1_000.0;
    assert!((rate - strategy.rate().unwrap()).abs() < 4.0, "{rate}");
}
