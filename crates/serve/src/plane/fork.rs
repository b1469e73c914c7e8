//! Functions that are one process for each request.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::Outcome;
use gatewright_record::Status;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};

use super::{Asked, Failure, Plane};
use crate::answer::{Attempt, Body, Refusal};
use crate::call::{Call, Step};
use crate::function::{Function, Program};
use crate::gateway::MAX_FRAME;
use crate::logs::Logs;
use crate::output;
use crate::process::{self, Reaper};
use crate::records::Trail;

/// What a process did.
struct Output {
    status: ExitStatus,
    stdout: Bytes,
    /// The last line that it wrote to stderr.
    last_words: String,
}

impl Plane {
    /// Runs a process with the body on its stdin; what it writes to stdout is the answer.
    pub(super) async fn fork<B>(
        &self,
        function: &Arc<Function>,
        program: &Program,
        parts: &Parts,
        body: B,
        asked: &Asked,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let body = self.body(body, &parts.headers, function, trail).await?;
        self.check_input(function, &parts.headers, &body)?;
        let received = trail.invocation.received.unwrap_or_default();
        let call = Call::new(asked.id, None, received + function.timeout);
        let call = Arc::new(call.with_urgency(asked.urgency));
        trail.call = Some(Arc::clone(&call));
        let Some(ticket) = self.driver.invoke(function, Arc::clone(&call)) else {
            return Err(self.unknown(&function.name));
        };
        let mut attempt = Attempt::new(ticket);
        loop {
            match call.step().await {
                Step::Dispatched => break,
                Step::Ended(end) => return Err(self.ended(end, function)),
                Step::Pieces { .. } => {}
            }
        }
        let mut command = forked(program, parts, &body, &self.driver.workplace.base_dir);
        self.driver.reaper.mark(&mut command);
        let replica = call.last_dispatch().map_or(0, |dispatch| dispatch.replica);
        let name = format!("{}/{replica}", function.name);
        let logs = Arc::clone(&function.logs);
        let output = tokio::select! {
            output = run(command, &body, &self.driver.reaper, logs, &name) => output,
            end = until_ended(&call) => return Err(self.ended(end, function)),
        };
        trail.invocation.first_byte = Some(self.book.clock.now());
        let good = output.as_ref().is_ok_and(|output| output.status.success());
        attempt.finish(if good { Outcome::Ok } else { Outcome::Error });
        match output {
            Ok(output) if good => {
                self.check_output(function, &output.stdout)?;
                Ok(answer(parts, output.stdout))
            }
            Ok(output) => {
                trail.failed(Status::Error, &output.status.to_string());
                let mut text = format!("its process ended ({})", output.status);
                if !output.last_words.is_empty() {
                    text = format!("{text}: {}", output.last_words);
                }
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text).into())
            }
            Err(error) => {
                tracing::warn!(function = &*function.name, %error, "cannot run its program");
                let text = format!("cannot run {}: {error}", program.path.display());
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text).into())
            }
        }
    }
}

async fn until_ended(call: &Call) -> gatewright_control::End {
    loop {
        if let Step::Ended(end) = call.step().await {
            return end;
        }
    }
}

/// The process of a request, told of its head as OpenFaaS' watchdog does it: `Http_Method`, `Http_Path`,
/// `Http_Query`, `Http_Content_Length`, and `Http_` with the name of each field.
fn forked(program: &Program, parts: &Parts, body: &[u8], folder: &Path) -> Command {
    let mut command = process::command(program, &program.args, folder);
    for (name, value) in &parts.headers {
        if let Ok(value) = value.to_str() {
            let name = name.as_str().split('-').map(capital).collect::<Vec<_>>().join("_");
            command.env(format!("Http_{name}"), value);
        }
    }
    command
        .env("Http_Method", parts.method.as_str())
        .env("Http_Path", parts.uri.path())
        .env("Http_Query", parts.uri.query().unwrap_or_default())
        .env("Http_Content_Length", body.len().to_string())
        .envs(&program.env)
        .stdin(Stdio::piped());
    command
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Runs a process to its end; what it says on stderr goes to the log of its function as it comes.
async fn run(
    mut command: Command,
    body: &[u8],
    reaper: &Arc<Reaper>,
    logs: Arc<Logs>,
    name: &str,
) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    // What it has started in the background ends with it.
    let _group = reaper.watch(&child);
    let stderr = child.stderr.take();
    let mut words = output::Output::follow(None::<ChildStdout>, stderr, logs, name);
    let stdout = talk(&mut child, body).await?;
    let status = child.wait().await?;
    Ok(Output { status, stdout, last_words: words.last_words().await })
}

/// Feeds a process and reads it, both at once: neither pipe may fill up.
async fn talk(child: &mut Child, body: &[u8]) -> std::io::Result<Bytes> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let feed = async {
        if let Some(mut stdin) = stdin
            && let Err(error) = stdin.write_all(body).await
        {
            tracing::debug!(%error, "a process does not read its body");
        }
    };
    let read = async {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(u64::from(MAX_FRAME) + 1).read_to_end(&mut bytes).await?;
        }
        if bytes.len() > MAX_FRAME as usize {
            return Err(std::io::Error::other(format!(
                "its answer has more than {MAX_FRAME} bytes"
            )));
        }
        Ok(bytes)
    };
    let ((), stdout) = tokio::join!(feed, read);
    Ok(stdout?.into())
}

/// The answer has the content type of the request: a process cannot name its own.
fn answer(parts: &Parts, stdout: Bytes) -> Response<Body> {
    let media = parts.headers.get(CONTENT_TYPE).cloned();
    let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::whole(stdout));
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}
