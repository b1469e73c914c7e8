use clap::Args;
use http::Method;
use serde_json::Value;

use super::Format;
use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;

/// Show everything that a running gateway tells of a function.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright describe square
  gatewright describe square --format json")]
pub(crate) struct Describe {
    /// Name of the function.
    function: String,

    /// What it is written as.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    admin: Admin,
}

impl Describe {
    pub(crate) fn run(self) -> Outcome {
        let function = status(&self.admin, &self.function)?;
        match self.format {
            Format::Json => output::json(&function)?,
            Format::Text => output::data(&lines(&function, ""))?,
        }
        Ok(Exit::Done)
    }
}

/// What the gateway tells of a function.
pub(super) fn status(admin: &Admin, function: &str) -> Outcome<Value> {
    let name = super::functions::path_segment(function)?;
    let answer = admin.ask(Method::GET, &format!("/system/function/{name}"), Vec::new())?;
    serde_json::from_slice(&answer.body).map_err(|fault| {
        Failure::failed(format!("the answer is no description of a function: {fault}"))
            .hint("does --admin name the admin address of a gateway?")
    })
}

/// One line for each value, those in objects with the names on the way; lists are for `gatewright replicas`.
fn lines(value: &Value, prefix: &str) -> String {
    let Value::Object(members) = value else { return String::new() };
    let line = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => lines(value, &format!("{prefix}{name}.")),
        Value::Array(_) => String::new(),
        Value::String(text) => format!("{prefix}{name}: {text}\n"),
        other => format!("{prefix}{name}: {other}\n"),
    };
    members.iter().map(line).collect()
}
