//! What the numbers of a step have to meet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OutcomeReport;

/// An assertion about a step, written as `QUANTITY [QUANTILE] <= LIMIT` or `>=`: `response p99 <= 200ms`,
/// `ttft p95 <= 1s`, `itl mean <= 20ms`, `errors <= 1%`, `rate >= 100`, `output_tokens >= 2000`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Gate {
    quantity: Quantity,
    at_most: bool,
    limit: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    Time(Times, Point),
    /// Part of the requests that failed.
    Errors,
    /// Requests that ended well, per second.
    Rate,
    /// Tokens of answers per second.
    OutputTokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Response,
    Service,
    Lateness,
    Ttft,
    Itl,
    Tpot,
    Gap,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    Mean,
    Max,
    Quantile(f64),
}

/// How a gate stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateResult {
    /// The gate.
    pub gate: Gate,
    /// What was measured, in the unit of the gate (seconds, a part, per second); none if it cannot be told.
    pub measured: Option<f64>,
    /// Whether it holds; what cannot be told does not.
    pub holds: bool,
}

const TIMES: [(&str, Times); 7] = [
    ("response", Times::Response),
    ("service", Times::Service),
    ("lateness", Times::Lateness),
    ("ttft", Times::Ttft),
    ("itl", Times::Itl),
    ("tpot", Times::Tpot),
    ("gap", Times::Gap),
];

const FORM: &str = "write it as \"response p99 <= 200ms\", \"errors <= 1%\" or \"rate >= 100\"";

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (left, at_most, right) = text
            .split_once("<=")
            .map(|(left, right)| (left, true, right))
            .or_else(|| text.split_once(">=").map(|(left, right)| (left, false, right)))
            .ok_or_else(|| format!("\"{text}\" is no gate; {FORM}"))?;
        let quantity = quantity(left)?;
        let limit = limit(quantity, right.trim())?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { quantity, at_most, limit, text })
    }
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let point = words.next();
    let quantity = match name {
        "errors" => Quantity::Errors,
        "rate" => Quantity::Rate,
        "output_tokens" => Quantity::OutputTokens,
        _ => {
            let known = TIMES.iter().find(|(known, _)| *known == name);
            let (_, times) = known.ok_or_else(|| {
                let names = TIMES.map(|(name, _)| name).join(", ");
                format!(
                    "\"{name}\" cannot be a gate; known are {names}, errors, rate, output_tokens"
                )
            })?;
            return Ok(Quantity::Time(*times, self::point(point.unwrap_or("mean"))?));
        }
    };
    match point {
        None => Ok(quantity),
        Some(word) => Err(format!("{name} has no {word}; {FORM}")),
    }
}

fn point(word: &str) -> Result<Point, String> {
    let quantile = |percent: &str| {
        let percent: f64 = percent.parse().ok()?;
        (percent > 0.0 && percent < 100.0).then_some(Point::Quantile(percent / 100.0))
    };
    match word {
        "mean" => Ok(Point::Mean),
        "max" => Ok(Point::Max),
        _ => word
            .strip_prefix('p')
            .and_then(quantile)
            .ok_or_else(|| format!("\"{word}\" is no quantile; write mean, max, p50 or p99.9")),
    }
}

fn limit(quantity: Quantity, text: &str) -> Result<f64, String> {
    let number = |text: &str| {
        let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| format!("\"{text}\" is no number; {FORM}"))
    };
    match quantity {
        Quantity::Time(..) => humantime::parse_duration(text)
            .map(|span| span.as_secs_f64())
            .map_err(|_| format!("\"{text}\" is no span of time; write 200ms or 1.5s as 1s 500ms")),
        Quantity::Errors => match text.strip_suffix('%') {
            Some(percent) => Ok(number(percent)? / 100.0),
            None => number(text),
        },
        Quantity::Rate | Quantity::OutputTokens => number(text.trim_end_matches("/s")),
    }
}

impl Gate {
    /// How it stands at what a step came to.
    #[must_use]
    pub fn judge(&self, step: &OutcomeReport) -> GateResult {
        let measured = self.measured(step);
        let holds = measured.is_some_and(|measured| {
            if self.at_most { measured <= self.limit } else { measured >= self.limit }
        });
        GateResult { gate: self.clone(), measured, holds }
    }

    fn measured(&self, step: &OutcomeReport) -> Option<f64> {
        let run = &step.run;
        match self.quantity {
            Quantity::Errors => {
                (run.requests > 0).then(|| run.statuses.failed() as f64 / run.requests as f64)
            }
            Quantity::Rate => run.achieved_rate,
            Quantity::OutputTokens => step.tokens.as_ref()?.output_tokens_per_second,
            Quantity::Time(times, point) => {
                let told = &step.distributions;
                let distribution = match times {
                    Times::Response => Some(&told.response_time),
                    Times::Service => Some(&told.service_time),
                    Times::Lateness => Some(&told.lateness),
                    Times::Ttft => told.ttft.as_ref(),
                    Times::Itl => told.itl.as_ref(),
                    Times::Tpot => told.tpot.as_ref(),
                    Times::Gap => told.gap.as_ref(),
                }?;
                let nanos = match point {
                    Point::Mean => distribution.mean,
                    Point::Max => distribution.max.map(|max| max as f64),
                    Point::Quantile(q) => distribution.quantile(q),
                };
                nanos.map(|nanos| nanos / 1e9)
            }
        }
    }

    /// What was measured, as people read it.
    #[must_use]
    pub fn told(&self, measured: f64) -> String {
        match self.quantity {
            Quantity::Time(..) => {
                let micros = Duration::from_secs_f64(measured.max(0.0)).as_nanos() / 1_000;
                format!("{:?}", Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
            }
            Quantity::Errors => format!("{:.2}%", measured * 100.0),
            Quantity::Rate | Quantity::OutputTokens => format!("{measured:.1}/s"),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Gate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Gate> for String {
    fn from(gate: Gate) -> Self {
        gate.text
    }
}
