//! How far long work is, on stderr: a bar on a terminal, else a line every few seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Shows how far one piece of work is.
#[derive(Debug)]
pub(crate) struct Meter {
    view: View,
}

#[derive(Debug)]
enum View {
    Bar(ProgressBar),
    Lines { label: String, last: Instant },
    Nothing,
}

const STEPS: u64 = 1_000;
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Meter {
    pub(crate) fn new(label: &str, quiet: bool) -> Self {
        if quiet {
            return Self { view: View::Nothing };
        }
        let target = ProgressDrawTarget::stderr();
        if target.is_hidden() {
            let label = label.to_owned();
            return Self { view: View::Lines { label, last: Instant::now() } };
        }
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}")
            .expect("the template names known keys")
            .progress_chars("=> ");
        bar.set_style(style);
        bar.set_prefix(label.to_owned());
        Self { view: View::Bar(bar) }
    }

    /// Tells how far it is: `fraction` from 0 to 1, the time left if it is known, and what else there is to say.
    pub(crate) fn update(&mut self, fraction: f64, left: Option<Duration>, text: &str) {
        let left = left.map_or_else(String::new, |left| format!(", {} left", whole(left)));
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_position((fraction.clamp(0.0, 1.0) * STEPS as f64) as u64);
                bar.set_message(format!("{text}{left}"));
            }
            View::Lines { label, last } if last.elapsed() >= BETWEEN_LINES => {
                *last = Instant::now();
                output::note(&format!("{label}: {:.0} %, {text}{left}", fraction * 100.0));
            }
            View::Lines { .. } | View::Nothing => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }
}

/// Time left if it goes on as so far: `fraction` of it took `elapsed`.
pub(crate) fn left(elapsed: Duration, fraction: f64) -> Option<Duration> {
    let rest = elapsed.as_secs_f64() * (1.0 - fraction) / fraction;
    (fraction > 0.0).then(|| Duration::try_from_secs_f64(rest).ok()).flatten()
}

/// A span in whole seconds: "1m 5s".
pub(crate) fn whole(span: Duration) -> String {
    let seconds = (span.as_secs_f64() + 0.5) as u64;
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
