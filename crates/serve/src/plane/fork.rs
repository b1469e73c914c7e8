//! Functions that are one process for each request.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use gatewright_control::Outcome;
use gatewright_record::Status;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::{Asked, Failure, Plane};
use crate::answer::{Attempt, Body, Refusal};
use crate::call::{Call, Step};
use crate::function::{Function, Program};
use crate::gateway::MAX_FRAME;
use crate::headers;
use crate::records::Trail;

/// Bytes of what a process says on stderr that are kept for the log.
const LAST_WORDS: u64 = 16 * 1024;

/// What a process did.
struct Output {
    status: ExitStatus,
    stdout: Bytes,
    stderr: String,
}

/// Kills a process and whatever it has started when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::trace!(%error, "a process left nobody behind");
        }
    }
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
        let body = self.body(body, function, trail).await?;
        let received = trail.invocation.received.unwrap_or_default();
        let call = Call::new(asked.id, None, received + function.timeout);
        let call = Arc::new(call.with_urgency(headers::urgency(&parts.headers)));
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
        let command = command(program, parts, &body, &self.driver.workplace.base_dir);
        let output = tokio::select! {
            output = run(command, &body) => output,
            end = until_ended(&call) => return Err(self.ended(end, function)),
        };
        trail.invocation.first_byte = Some(self.book.clock.now());
        let good = output.as_ref().is_ok_and(|output| output.status.success());
        attempt.finish(if good { Outcome::Ok } else { Outcome::Error });
        match output {
            Ok(output) if good => Ok(answer(parts, output.stdout)),
            Ok(output) => {
                trail.failed(Status::Error, &output.status.to_string());
                tracing::warn!(function = &*function.name, status = %output.status, "{}", output.stderr);
                let last = output.stderr.lines().rfind(|line| !line.trim().is_empty());
                let text = format!("its process ended ({})", output.status);
                let text = last.map_or_else(|| text.clone(), |last| format!("{text}: {last}"));
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text).into())
            }
            Err(error) => {
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
fn command(program: &Program, parts: &Parts, body: &[u8], folder: &std::path::Path) -> Command {
    // A name is looked for, a path is relative to the system file.
    let is_name = program.path.components().count() == 1 && !program.path.starts_with(".");
    let path = if is_name { program.path.clone() } else { folder.join(&program.path) };
    let mut command = Command::new(path);
    command.args(&program.args).current_dir(folder);
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
        .env_remove("GATEWRIGHT_TOKEN")
        .env_remove("GATEWRIGHT_WORKER_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

async fn run(mut command: Command, body: &[u8]) -> std::io::Result<Output> {
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // What it has started in the background ends with it.
    let _group = Group(pid);
    talk(&mut child, body).await
}

/// Feeds a process and reads it, all at once: none of its pipes may fill up.
async fn talk(child: &mut Child, body: &[u8]) -> std::io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
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
    let words = async {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            (&mut stderr).take(LAST_WORDS).read_to_end(&mut bytes).await?;
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        }
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let ((), stdout, stderr) = tokio::join!(feed, read, words);
    let (stdout, stderr) = (stdout?.into(), stderr?);
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

/// The answer has the content type of the request: a process cannot name its own.
fn answer(parts: &Parts, stdout: Bytes) -> Response<Body> {
    let media = parts.headers.get(CONTENT_TYPE).cloned();
    let media = media.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::whole(stdout));
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}
