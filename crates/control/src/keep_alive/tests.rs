//! Each policy against worked values from its source.

use super::*;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn rule(text: &str) -> Box<dyn KeepAliveRule> {
    toml::from_str::<KeepAlive>(text).unwrap().build().unwrap()
}

#[test]
fn replicas_stay_as_long_as_the_policy_says() {
    assert_eq!(rule("policy = \"none\"").idle(), Plan::keep(Some(Duration::ZERO)));
    assert_eq!(rule("policy = \"fixed\"").idle(), Plan::keep(Some(minutes(10))));
    assert_eq!(rule("policy = \"fixed\"\nidle = \"20m\"").idle(), Plan::keep(Some(minutes(20))));
    assert_eq!(rule("policy = \"lru\"").idle(), Plan::keep(None));
    assert!(KeepAlive::default().build().is_none());
}

/// FaaSCache, equation 1: clock + frequency x cost / size.
#[test]
fn greedy_dual_weighs_use_cost_and_size() {
    let greedy = rule("policy = \"greedy_dual\"");
    let about = Worth { requests: 12, start_seconds: 2.0, memory: 256 << 20 };
    assert_eq!(greedy.worth(Time::ZERO, &about, 0.5), 0.5 + 12.0 * 2.0 / 256.0);
    let larger = Worth { memory: 1 << 30, ..about };
    assert!(greedy.worth(Time::ZERO, &larger, 0.5) < greedy.worth(Time::ZERO, &about, 0.5));
    let lru = rule("policy = \"lru\"");
    assert!(lru.worth(Time::from_secs_f64(2.0), &about, 9.0) > lru.worth(Time::ZERO, &about, 0.0));
}

fn after(idle: &[(Duration, u32)]) -> Plan {
    let mut rule = rule("policy = \"hybrid_histogram\"");
    for &(span, times) in idle {
        (0..times).for_each(|_| rule.arrived(Some(span)));
    }
    rule.idle()
}

/// Nothing known, and a flat histogram: the whole range of four hours.
#[test]
fn without_a_pattern_replicas_stay_for_the_range() {
    assert_eq!(after(&[]), Plan::keep(Some(minutes(240))));
    let flat: Vec<_> = (0..240).map(|minute| (minutes(minute), 1)).collect();
    assert_eq!(after(&flat), Plan::keep(Some(minutes(240))));
}

/// Asked for every 30 min: away for 30 x 0.9 = 27 min, and there until 31 x 1.1 = 34.1 min.
#[test]
fn a_pattern_is_waited_for() {
    let plan = after(&[(minutes(30), 50)]);
    let (away, stay) = plan.prewarm.unwrap();
    assert_eq!((plan.keep, away), (Some(Duration::ZERO), minutes(27)));
    assert_eq!(stay, Duration::from_secs_f64(34.1 * 60.0) - minutes(27));
}

/// 5 % of 100 idle times end in minute 0, so the head is there: no pre-warming. 99 % end by minute 2.
#[test]
fn a_head_at_once_means_no_pre_warming() {
    let plan = after(&[(minutes(0), 10), (minutes(1), 80), (minutes(2), 10)]);
    assert_eq!(plan, Plan::keep(Some(Duration::from_secs_f64(3.0 * 60.0 * 1.1))));
    // The last percent is in minute 9: left out, as the tail is the 99th percentile.
    let plan = after(&[(minutes(0), 10), (minutes(2), 89), (minutes(9), 1)]);
    assert_eq!(plan, Plan::keep(Some(Duration::from_secs_f64(3.0 * 60.0 * 1.1))));
}

/// Asked for every 10 hours: away for 0.85 of it, and there for 0.30.
#[test]
fn long_idle_times_are_forecast() {
    let plan = after(&[(minutes(600), 5)]);
    assert_eq!(plan.prewarm, Some((minutes(510), minutes(180))));
    // Three of seven beyond the range are not half of them.
    let plan = after(&[(minutes(600), 3), (minutes(0), 4)]);
    assert_eq!(plan.prewarm, None);
}

#[test]
fn settings_out_of_range_are_named() {
    let fault = |text: &str| toml::from_str::<KeepAlive>(text).unwrap().check().unwrap_err();
    let histogram = |rest: &str| fault(&format!("policy = \"hybrid_histogram\"\n{rest}"));
    assert_eq!(histogram("bin = \"5h\""), "range: must be 1 to 100000 times `bin`");
    assert_eq!(histogram("head = 2.0"), "head: must be 0 to 1");
    assert_eq!(histogram("head = 0.9\ntail = 0.1"), "head: must be at most tail");
}
