use std::time::{Duration, SystemTime};

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::Format;
use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Show what the replicas of a function of a running gateway print.
///
/// The gateway keeps the last lines of every function, about a mebibyte of them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright logs square --tail 20
  gatewright logs square --follow
  gatewright logs square --since 5m --replica 3 --format json")]
pub(crate) struct Logs {
    /// Name of the function.
    function: String,

    /// Go on with the lines to come, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,

    /// Only lines of this last span of time, such as 5m.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,

    /// Only so many of the last lines.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,

    /// Only lines of the replica with this number.
    #[arg(long, value_name = "NUMBER")]
    replica: Option<u64>,

    /// What they are written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

/// A line, in OpenFaaS's words.
#[derive(Debug, Deserialize)]
struct Message {
    instance: String,
    timestamp: String,
    text: String,
}

impl Logs {
    pub(crate) fn run(self) -> Outcome {
        let path = self.path()?;
        let mut rest: Vec<u8> = Vec::new();
        self.admin.stream(Method::GET, &path, !self.follow, |bytes| {
            rest.extend_from_slice(bytes);
            let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(()) };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            self.show(&String::from_utf8_lossy(&whole))
        })?;
        Ok(Exit::Done)
    }

    fn path(&self) -> Outcome<String> {
        let name = super::functions::path_segment(&self.function)?;
        let mut path = format!("/system/logs?name={name}&follow={}", self.follow);
        if let Some(tail) = self.tail {
            path = format!("{path}&tail={tail}");
        }
        if let Some(replica) = self.replica {
            path = format!("{path}&instance={replica}");
        }
        if let Some(since) = self.since {
            let since = SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH);
            path = format!("{path}&since={}", humantime::format_rfc3339_millis(since));
        }
        Ok(path)
    }

    fn show(&self, lines: &str) -> Outcome<()> {
        if self.format == Format::Json {
            return output::data(lines);
        }
        let mut text = String::new();
        for line in lines.lines() {
            let message: Message = serde_json::from_str(line).map_err(|fault| {
                Failure::failed(format!("the answer has a line that is no log line: {fault}"))
            })?;
            let Message { instance, timestamp, text: said } = message;
            // To the millisecond.
            let moment = timestamp.get(..23).unwrap_or(&timestamp);
            text.push_str(&format!("{moment}Z {instance}  {said}\n"));
        }
        output::data(&text)
    }
}
