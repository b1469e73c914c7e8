//! What is done before a run: each target is asked once.

use std::thread;
use std::time::{Duration, Instant};

use gatewright_determinism::Time;

use super::prepare::Prepared;
use crate::answer::TokenWatch;
use crate::target::{Fetched, ParsedTarget};
use crate::{AnswerKind, BenchError, Plan, WeightedTarget};

/// What is done before a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// For how long each target is asked until it answers well, if it has to.
    pub(super) check: Option<Duration>,
    /// Whether targets that are redirected are asked where that leads to.
    pub(super) follow: bool,
}

/// A redirect that leads to so many others leads nowhere.
const MAX_REDIRECTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// What is shown of an answer that is not good.
const SHOWN: usize = 200;

impl Prepared {
    /// Asks each target once, if the scenario wants that: until it is answered well, or to learn where it is redirected
    /// to, which then is what is asked in the run.
    ///
    /// # Errors
    /// No good answer came in time, or a redirect leads nowhere.
    pub fn check(&mut self) -> Result<(), BenchError> {
        let Before { check, follow } = self.before;
        if check.is_none() && !follow {
            return Ok(());
        }
        for nth in 0..self.plan.mix.len() {
            patiently(check, || self.ask(nth))?;
        }
        Ok(())
    }

    fn ask(&mut self, nth: usize) -> Result<(), BenchError> {
        let Before { check, follow } = self.before;
        for _ in 0..=MAX_REDIRECTS {
            let target = &self.plan.mix[nth];
            let plan = Plan { mix: vec![target.clone()], request_ids: false, ..self.plan.clone() };
            let connect = plan.connect_timeout.min(plan.timeout);
            let answer = ParsedTarget::of(&plan)?.fetch(connect, plan.timeout);
            let answer = answer.map_err(|error| match error {
                BenchError::System(error) => BenchError::Check {
                    url: target.target.url.clone(),
                    what: format!("does not answer: {error}"),
                },
                other => other,
            })?;
            let redirects = (300..400).contains(&answer.code) && answer.code != 304;
            if redirects && follow {
                self.plan.mix[nth].target.url = led_to(target, &answer)?;
                continue;
            }
            let wrong = check.and_then(|_| fault(target.answer, &answer));
            let url = target.target.url.clone();
            return wrong.map_or(Ok(()), |what| Err(BenchError::Check { url, what }));
        }
        let url = self.plan.mix[nth].target.url.clone();
        Err(BenchError::Check { url, what: "is redirected again and again".to_owned() })
    }
}

/// Tries again for so long; what came of the last time.
pub(super) fn patiently<T, E>(
    span: Option<Duration>,
    mut ask: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + span.unwrap_or_default();
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            other => return other,
        }
    }
}

/// What is wrong with an answer.
fn fault(kind: AnswerKind, answer: &Fetched) -> Option<String> {
    let Fetched { code, location, body } = answer;
    if let 300..400 = code {
        let to = location.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
        return Some(format!("redirects{to} (HTTP {code})"));
    }
    if *code >= 400 {
        let text = String::from_utf8_lossy(body);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = words.chars().take(SHOWN).collect();
        let said = if shown.is_empty() { shown } else { format!(": {shown}") };
        return Some(format!("answers with HTTP {code}{said}"));
    }
    if kind == AnswerKind::OpenAi {
        let mut watch = TokenWatch::default();
        watch.feed(body, Time::ZERO);
        return watch.finish().map(|failure| format!("answers, but {}", failure.text()));
    }
    None
}

/// Where a target is to be asked instead.
fn led_to(weighted: &WeightedTarget, answer: &Fetched) -> Result<String, BenchError> {
    let target = &weighted.target;
    let fail = |what: String| BenchError::Check { url: target.url.clone(), what };
    let location = answer.location.as_deref();
    let location = location.ok_or_else(|| {
        fail(format!("redirects (HTTP {}), and does not say where to", answer.code))
    })?;
    let changes_method = matches!(answer.code, 301..=303);
    if changes_method && !matches!(target.method.as_str(), "" | "GET" | "HEAD") {
        let what = format!(
            "redirects to {location} (HTTP {}), where a {} would become a GET",
            answer.code, target.method
        );
        return Err(fail(what));
    }
    if target.url.contains("{{") {
        return Err(fail(format!("redirects to {location}, and has places that data fills")));
    }
    Ok(resolved(&target.url, location))
}

/// A reference seen from a URL (RFC 3986, section 5.2), without dots resolved, which servers understand.
fn resolved(url: &str, location: &str) -> String {
    let (scheme, after) = url.split_once("://").unwrap_or(("http", url));
    let authority = after.split(['/', '?', '#']).next().unwrap_or(after);
    if location.contains("://") {
        return location.to_owned();
    }
    if let Some(other) = location.strip_prefix("//") {
        return format!("{scheme}://{other}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    let path = after[authority.len()..].split(['?', '#']).next().unwrap_or_default();
    if location.starts_with('?') {
        return format!("{scheme}://{authority}{path}{location}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{scheme}://{authority}{folder}/{location}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_seen_from_where_it_was_told() {
        for (location, expected) in [
            ("https://b/x", "https://b/x"),
            ("//b/x", "http://b/x"),
            ("/x?y", "http://a:1/x?y"),
            ("x", "http://a:1/p/x"),
            ("?z", "http://a:1/p/q?z"),
        ] {
            assert_eq!(resolved("http://a:1/p/q?r=/s", location), expected, "{location}");
        }
        assert_eq!(resolved("http://a", "x"), "http://a/x");
    }
}
