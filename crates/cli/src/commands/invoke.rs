use std::io::Read as _;
use std::path::Path;

use clap::Args;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Ask a function of a running gateway, and print its answer.
///
/// A JSON object becomes keyword arguments, an array positional ones, any other JSON one argument.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright invoke square 3
  gatewright invoke resize '{\"width\": 640, \"height\": 480}'
  gatewright invoke parse --data @page.html --content-type text/html
  echo '[1, 2]' | gatewright invoke add --data @-")]
pub(crate) struct Invoke {
    /// Name of the function.
    function: String,

    /// Arguments as JSON.
    #[arg(conflicts_with = "data", allow_negative_numbers = true)]
    json: Option<String>,

    /// Body of the request: the text itself, @FILE, or @- for stdin.
    #[arg(short, long, value_name = "TEXT|@FILE")]
    data: Option<String>,

    /// Content type of the body.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,

    #[command(flatten)]
    admin: Admin,
}

impl Invoke {
    pub(crate) fn run(self) -> Outcome {
        let body = self.body()?;
        let path = format!("/function/{}", super::functions::path_segment(&self.function)?);
        let content_type = (!body.is_empty()).then_some(self.content_type.as_str());
        let answer = self.admin.send(Method::POST, &path, content_type, body)?;
        if !answer.status.is_success() {
            return Err(self.admin.complaint(&answer));
        }
        let is_text =
            answer.content_type.starts_with("text/") || answer.content_type.contains("json");
        match std::str::from_utf8(&answer.body) {
            Ok(text) if is_text => output::data(text)?,
            _ => output::bytes(&answer.body)?,
        }
        Ok(Exit::Done)
    }

    fn body(&self) -> Outcome<Vec<u8>> {
        if let Some(json) = &self.json {
            serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|fault| {
                Failure::usage(format!("the arguments `{json}` are no JSON: {fault}"))
                    .hint("a text needs its quotes: gatewright invoke greet '\"world\"'")
            })?;
            return Ok(json.clone().into_bytes());
        }
        match self.data.as_deref() {
            None => Ok(Vec::new()),
            Some(data) => read_data(data),
        }
    }
}

/// The bytes that `text`, `@file` or `@-` stand for.
fn read_data(data: &str) -> Outcome<Vec<u8>> {
    match data.strip_prefix('@') {
        None => Ok(data.as_bytes().to_vec()),
        Some("-") => {
            let mut body = Vec::new();
            std::io::stdin()
                .read_to_end(&mut body)
                .map_err(|fault| Failure::failed(format!("stdin: {fault}")))?;
            Ok(body)
        }
        Some(path) => {
            let path = Path::new(path);
            std::fs::read(path).map_err(|fault| Failure::of_reading(path, &fault))
        }
    }
}
