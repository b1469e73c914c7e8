//! What programs and workers print.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::task::JoinHandle;

use crate::logs::Logs;

/// Longest line that is taken whole, in bytes.
const MAX_LINE: usize = 16 * 1024;
/// How long the output of a process that has ended is read on.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// The output of a process on its way to the log.
#[derive(Debug)]
pub(crate) struct Output {
    last_line: Arc<Mutex<String>>,
    stderr: Option<JoinHandle<()>>,
}

impl Output {
    /// Logs what a process prints, line by line, until its pipes are closed.
    pub(crate) fn follow(
        stdout: Option<impl AsyncRead + Unpin + Send + 'static>,
        stderr: Option<impl AsyncRead + Unpin + Send + 'static>,
        logs: Arc<Logs>,
        name: &str,
    ) -> Self {
        let last_line = Arc::new(Mutex::new(String::new()));
        let instance: Arc<str> = name.into();
        if let Some(stdout) = stdout {
            let from = Source {
                logs: Arc::clone(&logs),
                instance: Arc::clone(&instance),
                stream: "stdout",
            };
            tokio::spawn(from.read(stdout, None));
        }
        let stderr = stderr.map(|stderr| {
            let last = Some(Arc::clone(&last_line));
            tokio::spawn(Source { logs, instance, stream: "stderr" }.read(stderr, last))
        });
        Self { last_line, stderr }
    }

    /// The last line on stderr of a process that has ended.
    pub(crate) async fn last_words(&mut self) -> String {
        if let Some(stderr) = self.stderr.take() {
            // A child of the process may hold the pipe open: not waited for beyond a moment.
            drop(tokio::time::timeout(LAST_OUTPUT, stderr).await);
        }
        self.last_line.lock().clone()
    }
}

/// Who prints.
struct Source {
    logs: Arc<Logs>,
    instance: Arc<str>,
    stream: &'static str,
}

impl Source {
    /// Reads to the end; the last line that is not blank is kept in `last`.
    async fn read(self, pipe: impl AsyncRead + Unpin, last: Option<Arc<Mutex<String>>>) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            let (used, whole) = match reader.fill_buf().await {
                Ok([]) | Err(_) => break,
                Ok(bytes) => match bytes.iter().position(|&byte| byte == b'\n') {
                    Some(end) => (line.extend_from_slice(&bytes[..end]), (end + 1, true)).1,
                    None => (line.extend_from_slice(bytes), (bytes.len(), false)).1,
                },
            };
            reader.consume(used);
            if whole || line.len() >= MAX_LINE {
                self.take(&mut line, last.as_deref());
            }
        }
        if !line.is_empty() {
            self.take(&mut line, last.as_deref());
        }
    }

    fn take(&self, line: &mut Vec<u8>, last: Option<&Mutex<String>>) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches('\r');
        let (function, worker, stream) = (self.logs.function(), &*self.instance, self.stream);
        tracing::info!(target: "worker", function, worker, stream, "{text}");
        self.logs.push(&self.instance, text);
        if let Some(last) = last
            && !text.trim().is_empty()
        {
            text.clone_into(&mut last.lock());
        }
        line.clear();
    }
}
