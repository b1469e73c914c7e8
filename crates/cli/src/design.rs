//! Which settings a sweep tries: every combination of the values given, or points drawn from them.

use std::str::FromStr;

use clap::ValueEnum;
use gatewright_control::config::Override;
use gatewright_determinism::{Purpose, Stream};

use crate::failure::{Failure, Outcome};

/// A key of the system file, and what it may be set to.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub(crate) key: String,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    List(Vec<toml::Value>),
    /// Whole numbers, both ends included.
    Whole(i64, i64),
    Real(f64, f64),
}

/// How points are drawn where not every combination is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Draw {
    /// Every part of every range as often as any other, in random combinations.
    #[default]
    LatinHypercube,
    /// Each value on its own.
    Random,
}

/// Points of a sweep at most.
const MAX_POINTS: usize = 100_000;

impl FromStr for Sweep {
    type Err = String;

    /// `KEY=[VALUE, VALUE]` or `KEY=MIN..MAX`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write key=[value, value], such as function.square.replicas.max=[4, 8], or key=min..max";
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let (key, values) = (key.trim().to_owned(), values.trim());
        if key.is_empty() {
            return Err(wrong().to_owned());
        }
        if let Some((low, high)) = values.split_once("..") {
            return Ok(Self { key, values: range(low.trim(), high.trim())? });
        }
        match toml::Value::from_str(values) {
            Ok(toml::Value::Array(values)) if !values.is_empty() => {
                Ok(Self { key, values: Values::List(values) })
            }
            _ => Err(wrong().to_owned()),
        }
    }
}

fn range(low: &str, high: &str) -> Result<Values, String> {
    if let (Ok(low), Ok(high)) = (low.parse::<i64>(), high.parse::<i64>()) {
        let width = high.checked_sub(low).filter(|width| (1..=1_000_000_000).contains(width));
        return width
            .map(|_| Values::Whole(low, high))
            .ok_or_else(|| format!("{low}..{high} is no range: give the smaller number first"));
    }
    match (low.parse::<f64>(), high.parse::<f64>()) {
        (Ok(low), Ok(high)) if low < high && (high - low).is_finite() => {
            Ok(Values::Real(low, high))
        }
        _ => Err(format!("{low}..{high} is no range: give two numbers, the smaller first")),
    }
}

impl Sweep {
    /// The value at `place`, 0 to 1, of all it may be set to.
    fn at(&self, place: f64) -> toml::Value {
        match &self.values {
            Values::List(values) => {
                values[((place * values.len() as f64) as usize).min(values.len() - 1)].clone()
            }
            Values::Whole(low, high) => {
                let width = (high - low + 1) as f64;
                toml::Value::Integer((low + (place * width) as i64).min(*high))
            }
            Values::Real(low, high) => toml::Value::Float(low + place * (high - low)),
        }
    }

    fn set(&self, value: toml::Value) -> Override {
        Override { key: self.key.clone(), value, source: "--sweep".to_owned() }
    }
}

/// The points of a sweep: every combination, or as many drawn as `samples` says.
pub(crate) fn points(
    sweeps: &[Sweep],
    samples: Option<u32>,
    draw: Draw,
    seed: u64,
) -> Outcome<Vec<Vec<Override>>> {
    for (number, sweep) in sweeps.iter().enumerate() {
        if sweeps[..number].iter().any(|before| before.key == sweep.key) {
            let what = format!("{} is swept twice", sweep.key);
            return Err(Failure::usage(what).hint("give all its values in one --sweep"));
        }
    }
    match samples {
        Some(samples) => Ok(drawn(sweeps, samples, draw, seed)),
        None => grid(sweeps),
    }
}

/// All combinations, the last key changing fastest.
fn grid(sweeps: &[Sweep]) -> Outcome<Vec<Vec<Override>>> {
    let mut points: Vec<Vec<Override>> = vec![Vec::new()];
    for sweep in sweeps {
        let Values::List(values) = &sweep.values else {
            let what = format!("{} is swept over a range, which has no end of values", sweep.key);
            return Err(Failure::usage(what).hint("say how many points with --samples 20"));
        };
        if points.len().saturating_mul(values.len()) > MAX_POINTS {
            let what = format!("the sweeps have more than {MAX_POINTS} points together");
            return Err(Failure::usage(what).hint("draw some of them with --samples 100"));
        }
        let further = |point: &Vec<Override>| {
            let point = point.clone();
            values.iter().map(move |value| {
                let mut point = point.clone();
                point.push(sweep.set(value.clone()));
                point
            })
        };
        points = points.iter().flat_map(further).collect();
    }
    Ok(points)
}

/// `samples` points by the luck of `seed`.
///
/// A Latin hypercube (McKay, Beckman and Conover, Technometrics 21, 1979) cuts each range into as many parts as there
/// are points, and takes one value from each part, in an order of its own for each key.
fn drawn(sweeps: &[Sweep], samples: u32, draw: Draw, seed: u64) -> Vec<Vec<Override>> {
    let mut points = vec![Vec::new(); samples as usize];
    for (number, sweep) in (0..).zip(sweeps) {
        let mut luck = Stream::new(seed, Purpose::Resample, number);
        let mut parts: Vec<u32> = (0..samples).collect();
        // Fisher and Yates.
        for last in (1..parts.len()).rev() {
            parts.swap(last, luck.below(last as u64 + 1) as usize);
        }
        for (point, part) in points.iter_mut().zip(parts) {
            let place = match draw {
                Draw::LatinHypercube => (f64::from(part) + luck.unit()) / f64::from(samples),
                Draw::Random => luck.unit(),
            };
            point.push(sweep.set(sweep.at(place)));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps(texts: &[&str]) -> Vec<Sweep> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn grids_have_every_combination() {
        let points = grid(&sweeps(&["a.b=[1, 2]", "c=[\"x\", \"y\", \"z\"]"])).unwrap();
        let text: Vec<String> = points
            .iter()
            .map(|point| point.iter().map(|one| one.value.to_string()).collect())
            .collect();
        assert_eq!(text, ["1\"x\"", "1\"y\"", "1\"z\"", "2\"x\"", "2\"y\"", "2\"z\""]);
        let wide = format!("a=[{}]", vec!["1"; 400].join(","));
        assert!(grid(&sweeps(&[&wide, &wide])).is_err());
        assert!(grid(&sweeps(&["a=1..2"])).is_err(), "a range has no end of values");
    }

    #[test]
    fn what_is_no_sweep_is_refused() {
        for text in ["a=1", "a=[]", "=[1]", "a=2..1", "a=1..x", "a=1..inf", "a"] {
            assert!(text.parse::<Sweep>().is_err(), "{text} was taken");
        }
    }

    /// With one order for all keys, the points would lie on a line; in the middle of each part, on a lattice.
    #[test]
    fn a_latin_hypercube_fills_its_space() {
        let all = sweeps(&["a=0.0..1.0", "b=0.0..1.0"]);
        let points = drawn(&all, 20, Draw::LatinHypercube, 7);
        let places = |nth: usize| -> Vec<f64> {
            points.iter().map(|point| point[nth].value.as_float().unwrap() * 20.0).collect()
        };
        let parts = |nth| -> Vec<i64> { places(nth).iter().map(|&place| place as i64).collect() };
        assert_ne!(parts(0), parts(1), "each key has an order of its own");
        let within = || places(0).into_iter().map(f64::fract);
        assert!(within().any(|place| place < 0.25) && within().any(|place| place > 0.75));
        assert_ne!(points[0], drawn(&all, 20, Draw::LatinHypercube, 8)[0], "the seed matters");
    }

    #[test]
    fn a_latin_hypercube_takes_one_value_of_each_part() {
        let all = sweeps(&["a=0.0..1.0", "b=1..20", "c=[\"x\", \"y\"]"]);
        let points = drawn(&all, 20, Draw::LatinHypercube, 7);
        let column = |nth: usize| points.iter().map(move |point| point[nth].value.clone());
        let mut parts: Vec<i64> =
            column(0).map(|value| (value.as_float().unwrap() * 20.0) as i64).collect();
        assert!(!parts.is_sorted(), "{parts:?}");
        parts.sort_unstable();
        assert!(parts.iter().copied().eq(0..20), "{parts:?}");
        let mut whole: Vec<i64> = column(1).map(|value| value.as_integer().unwrap()).collect();
        whole.sort_unstable();
        assert!(whole.iter().copied().eq(1..=20), "{whole:?}");
        assert_eq!(column(2).filter(|value| value.as_str() == Some("x")).count(), 10);
        let random = drawn(&all, 20, Draw::Random, 7);
        let mut parts: Vec<i64> =
            random.iter().map(|point| (point[0].value.as_float().unwrap() * 20.0) as i64).collect();
        parts.sort_unstable();
        assert!(!parts.iter().copied().eq(0..20), "chance alone hardly ever does that");
        assert_eq!(drawn(&all, 20, Draw::Random, 7)[3], random[3], "by the seed alone");
    }
}
