use std::path::PathBuf;

use clap::Args;
use gatewright_control::config::{Override, nearest};
use http::{Method, StatusCode};

use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::settings::{self, SYSTEM_FILE, parse_set};

/// Deploy a function of a system file to a running gateway.
///
/// The gateway goes on as it is and serves the function besides, at /function/NAME. One that it serves already is
/// updated: its replicas are replaced one after another, and no request is lost. A Python class is looked for in the
/// folder that the gateway was started with.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright deploy square
  gatewright deploy square --no-update
  gatewright deploy square --file next.toml --set function.square.replicas.min=4")]
pub(crate) struct Deploy {
    /// Name of the function in the file.
    function: String,

    /// The system file.
    #[arg(long, value_name = "FILE", default_value = SYSTEM_FILE)]
    file: PathBuf,

    /// Set a key of the file, such as function.square.timeout=10s.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,

    /// Refuse to update a function that is served already.
    #[arg(long)]
    no_update: bool,

    #[command(flatten)]
    admin: Admin,
}

impl Deploy {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        let loaded = settings::load(&self.file, &self.set)?;
        let function = loaded.system.function.get(name).ok_or_else(|| {
            let failure =
                Failure::usage(format!("{}: there is no function `{name}`", self.file.display()));
            let names = loaded.system.function.keys().map(String::as_str);
            Failure { hint: nearest(name, names), ..failure }
        })?;
        let mut body = serde_json::to_value(function)
            .map_err(|fault| Failure::failed(format!("cannot be sent: {fault}")))?;
        body["service"] = name.into();
        let updated = self.send(&body)?;
        if !quiet {
            let what = if updated { "is being updated" } else { "deployed" };
            output::note(&format!("{name}: {what}"));
        }
        Ok(Exit::Done)
    }

    /// Updates the function, or deploys it if there is none of its name; whether it was there.
    fn send(&self, body: &serde_json::Value) -> Outcome<bool> {
        let send = |method| {
            let kind = Some("application/json");
            self.admin.send(method, "/system/functions", kind, body.to_string().into_bytes())
        };
        if !self.no_update {
            let answer = send(Method::PUT)?;
            if answer.status.is_success() {
                return Ok(true);
            }
            if answer.status != StatusCode::NOT_FOUND {
                return Err(self.admin.complaint(&answer));
            }
        }
        let answer = send(Method::POST)?;
        if answer.status.is_success() { Ok(false) } else { Err(self.admin.complaint(&answer)) }
    }
}
