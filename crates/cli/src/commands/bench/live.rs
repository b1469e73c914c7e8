//! The course of a benchmark on the terminal while it runs: rates, latencies, failures, a histogram.

use std::collections::VecDeque;
use std::io::{self, Stderr};

use gatewright_bench::Snapshot;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Gauge, Paragraph, Sparkline};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use crate::render::{count, duration, rate};

/// The view, in the last lines of the terminal.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    step: String,
    /// Requests answered per second and median response time in microseconds, the latest last.
    rates: VecDeque<u64>,
    medians: VecDeque<u64>,
}

const HEIGHT: u16 = 16;
const REMEMBERED: usize = 200;

impl Live {
    /// None where the terminal does not allow it.
    pub(super) fn begin() -> Option<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
        let backend = CrosstermBackend::new(io::stderr());
        let terminal = Terminal::with_options(backend, options).ok()?;
        Some(Self {
            terminal,
            step: String::new(),
            rates: VecDeque::new(),
            medians: VecDeque::new(),
        })
    }

    /// A step begins.
    pub(super) fn step(&mut self, name: String) {
        self.step = name;
        self.rates.clear();
        self.medians.clear();
    }

    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        push(&mut self.rates, snapshot.rate as u64);
        push(&mut self.medians, snapshot.p50.unwrap_or(0) / 1_000);
        let (step, rates, medians) = (&self.step, &self.rates, &self.medians);
        // What cannot be drawn now is drawn the next time.
        drop(self.terminal.draw(|frame| draw(frame, step, snapshot, rates, medians)));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.terminal.clear());
        drop(self.terminal.show_cursor());
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() >= REMEMBERED {
        history.pop_front();
    }
    history.push_back(value);
}

fn draw(
    frame: &mut Frame<'_>,
    step: &str,
    snapshot: &Snapshot,
    rates: &VecDeque<u64>,
    medians: &VecDeque<u64>,
) {
    let [top, gauge, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Min(1),
    ])
    .areas(frame.area());
    frame.render_widget(
        Paragraph::new(Line::from(vec!["bench ".bold(), step.to_owned().into()])),
        top,
    );
    let left = snapshot
        .left
        .map_or_else(String::new, |left| format!(", {} left", crate::progress::whole(left)));
    let elapsed = crate::progress::whole(snapshot.elapsed);
    let bar =
        Gauge::default().ratio(snapshot.fraction.clamp(0.0, 1.0)).label(format!("{elapsed}{left}"));
    frame.render_widget(bar.gauge_style(Style::new().blue()), gauge);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(middle);
    history(frame, left, &format!("answered {}", rate(snapshot.rate)), rates);
    let median = snapshot.p50.map_or_else(|| "-".to_owned(), |nanos| duration(nanos as f64));
    history(frame, right, &format!("response p50 {median}"), medians);
    let [left, right] =
        Layout::horizontal([Constraint::Length(30), Constraint::Fill(1)]).areas(bottom);
    frame.render_widget(Paragraph::new(numbers(snapshot)), left);
    frame.render_widget(Paragraph::new(histogram(snapshot, right)), right);
}

fn history(frame: &mut Frame<'_>, area: Rect, title: &str, values: &VecDeque<u64>) {
    let skipped = values.len().saturating_sub(usize::from(area.width));
    let shown: Vec<_> = values.iter().skip(skipped).copied().collect();
    let block = Block::new().borders(Borders::TOP).title(title.to_owned());
    frame.render_widget(Sparkline::default().block(block).data(shown), area);
}

fn numbers(snapshot: &Snapshot) -> Vec<Line<'static>> {
    let time = |nanos: Option<u64>| nanos.map_or_else(|| "-".to_owned(), |n| duration(n as f64));
    let row = |name: &str, value: String| Line::from(format!("{name:<10}{value:>14}"));
    let in_flight = snapshot.sent.saturating_sub(snapshot.done);
    let failed = row("failed", count(snapshot.errors));
    vec![
        row("sent", count(snapshot.sent)),
        row("answered", count(snapshot.done)),
        row("in flight", count(in_flight)),
        if snapshot.errors > 0 { failed.red() } else { failed },
        row("p50", time(snapshot.p50)),
        row("p90", time(snapshot.p90)),
        row("p99", time(snapshot.p99)),
        row("longest", time(snapshot.max)),
    ]
}

fn histogram(snapshot: &Snapshot, area: Rect) -> Vec<Line<'static>> {
    let most = snapshot.histogram.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let width = u64::from(area.width.saturating_sub(26));
    let bar = |(upper, n): &(u64, u64)| {
        let length = (n * width).div_ceil(most) as usize;
        Line::from(vec![
            Span::from(format!("<= {:>10} ", duration(*upper as f64))),
            "█".repeat(length).blue(),
            Span::from(format!(" {}", count(*n))),
        ])
    };
    snapshot.histogram.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn the_view_shows_what_matters() {
        let mut terminal = Terminal::new(TestBackend::new(80, HEIGHT)).unwrap();
        let snapshot = Snapshot {
            elapsed: Duration::from_secs(3),
            left: Some(Duration::from_secs(7)),
            fraction: 0.3,
            sent: 1_210,
            done: 1_200,
            errors: 4,
            rate: 400.0,
            p50: Some(2_000_000),
            p90: Some(3_000_000),
            p99: None,
            max: Some(9_000_000),
            histogram: vec![(2_000_000, 900), (9_000_000, 300)],
        };
        let history = VecDeque::from([300, 400]);
        let shown = terminal
            .draw(|frame| draw(frame, "poisson, 400/s", &snapshot, &history, &history))
            .unwrap();
        let cells = shown.buffer.content().chunks(80);
        let text: Vec<String> =
            cells.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect()).collect();
        let text = text.join("\n");
        for part in [
            "poisson, 400/s",
            "3s, 7s left",
            "answered 400.0/s",
            "response p50 2.000 ms",
            "in flight             10",
            "failed                 4",
            "p99                    -",
            "9.000 ms",
            "█",
            "900",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
