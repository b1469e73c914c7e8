use std::path::PathBuf;

use clap::Args;
use gatewright_control::config::Override;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
use crate::output;
use crate::settings::{self, SYSTEM_FILE, parse_set};

/// Deploy a function of a system file to a running gateway.
///
/// The gateway goes on as it is and serves the function besides, at /function/NAME. A Python class is looked for in
/// the folder that the gateway was started with.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright deploy square
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

    #[command(flatten)]
    admin: Admin,
}

impl Deploy {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        let loaded = settings::load(&self.file, &self.set)?;
        let function = loaded.system.function.get(name).ok_or_else(|| {
            Failure::usage(format!("{}: there is no function `{name}`", self.file.display()))
        })?;
        let mut body = serde_json::to_value(function)
            .map_err(|fault| Failure::failed(format!("cannot be sent: {fault}")))?;
        body["service"] = name.into();
        self.admin.ask(Method::POST, "/system/functions", body.to_string().into_bytes())?;
        if !quiet {
            output::note(&format!("{name}: deployed"));
        }
        Ok(Exit::Done)
    }
}
