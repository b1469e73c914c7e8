//! The last lines that the replicas of a function printed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes of text that are kept of one function.
const MAX_BYTES: usize = 1024 * 1024;
/// What a line takes besides its text.
const LINE_OVERHEAD: usize = 64;

/// The last lines of one function, whatever replica printed them; bounded in bytes.
#[derive(Debug)]
pub(crate) struct Logs {
    function: Arc<str>,
    ring: Mutex<Ring>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    /// Lines so far, those that are gone included.
    count: u64,
}

/// A line of output.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) at: SystemTime,
    /// Who printed it: the function and the number of its replica.
    pub(crate) instance: Arc<str>,
    pub(crate) text: Box<str>,
}

/// Which lines somebody wants to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) since: Option<SystemTime>,
    /// Only so many of the last ones.
    pub(crate) tail: Option<usize>,
    /// Only those of this replica.
    pub(crate) instance: Option<String>,
}

impl Logs {
    /// No lines yet.
    pub(crate) fn new(function: Arc<str>) -> Arc<Self> {
        Arc::new(Self { function, ring: Mutex::default(), news: Notify::new() })
    }

    /// Name of the function.
    pub(crate) fn function(&self) -> &str {
        &self.function
    }

    /// Takes a line; the oldest ones make room for it.
    pub(crate) fn push(&self, instance: &Arc<str>, text: &str) {
        let line =
            Line { at: SystemTime::now(), instance: Arc::clone(instance), text: text.into() };
        let mut ring = self.ring.lock();
        ring.bytes += line.size();
        ring.count += 1;
        ring.lines.push_back(Arc::new(line));
        while ring.bytes > MAX_BYTES
            && let Some(oldest) = ring.lines.pop_front()
        {
            ring.bytes -= oldest.size();
        }
        drop(ring);
        self.news.notify_waiters();
    }

    /// The lines that are wanted, oldest first, and the number of the next line.
    pub(crate) fn read(&self, wanted: &Wanted) -> (Vec<Arc<Line>>, u64) {
        let ring = self.ring.lock();
        let newest_first = ring.lines.iter().rev().filter(|line| wanted.takes(line));
        let mut lines: Vec<_> =
            newest_first.take(wanted.tail.unwrap_or(usize::MAX)).cloned().collect();
        lines.reverse();
        (lines, ring.count)
    }

    /// Waits for lines from number `next` on that are wanted; tells the number of the next line, too.
    pub(crate) async fn follow(&self, wanted: &Wanted, next: u64) -> (Vec<Arc<Line>>, u64) {
        loop {
            // Listened for before it is looked: no line is missed between the two.
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let count = {
                let ring = self.ring.lock();
                let new = usize::try_from(ring.count - next).unwrap_or(usize::MAX);
                let known = ring.lines.len().saturating_sub(new);
                let lines = ring.lines.iter().skip(known).filter(|line| wanted.takes(line));
                let lines: Vec<_> = lines.cloned().collect();
                if !lines.is_empty() {
                    return (lines, ring.count);
                }
                ring.count
            };
            if count == next {
                news.await;
            } else {
                return (Vec::new(), count);
            }
        }
    }
}

impl Line {
    fn size(&self) -> usize {
        self.text.len() + LINE_OVERHEAD
    }
}

impl Wanted {
    fn takes(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.at >= since)
            && self.instance.as_deref().is_none_or(|instance| &*line.instance == instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Arc<Line>]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn the_oldest_lines_make_room() {
        let logs = Logs::new("f".into());
        let instance: Arc<str> = "f/0".into();
        let long = "x".repeat(16 * 1024);
        for number in 0..1000 {
            logs.push(&instance, &format!("{number} {long}"));
        }
        let ring = logs.ring.lock();
        assert!(ring.bytes <= MAX_BYTES && ring.lines.len() < 64, "{}", ring.lines.len());
        assert!(ring.lines.back().unwrap().text.starts_with("999 "));
        assert_eq!(ring.bytes, ring.lines.iter().map(|line| line.size()).sum::<usize>());
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        let logs = Logs::new("f".into());
        for (instance, text) in [("f/0", "a"), ("f/1", "b"), ("f/0", "c")] {
            logs.push(&instance.into(), text);
        }
        let read = |wanted: Wanted| logs.read(&wanted);
        assert_eq!(texts(&read(Wanted::default()).0), ["a", "b", "c"]);
        assert_eq!(texts(&read(Wanted { tail: Some(2), ..Wanted::default() }).0), ["b", "c"]);
        let instance = Some("f/0".to_owned());
        assert_eq!(texts(&read(Wanted { instance, ..Wanted::default() }).0), ["a", "c"]);
        let since = Some(SystemTime::now() + std::time::Duration::from_secs(60));
        assert!(read(Wanted { since, ..Wanted::default() }).0.is_empty());
    }

    #[tokio::test]
    async fn who_follows_sees_every_line_once() {
        let logs = Logs::new("f".into());
        let instance: Arc<str> = "f/0".into();
        logs.push(&instance, "before");
        let (_, mut next) = logs.read(&Wanted::default());
        let writer = Arc::clone(&logs);
        tokio::spawn(async move {
            for number in 0..100 {
                writer.push(&instance, &number.to_string());
                tokio::task::yield_now().await;
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let (lines, after) = logs.follow(&Wanted::default(), next).await;
            seen.extend(lines.iter().map(|line| line.text.to_string()));
            next = after;
        }
        assert_eq!(seen, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}
