use clap::Args;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Outcome};
use crate::output;

/// Remove a function from a running gateway.
///
/// What it works on is finished; what waits is refused. The system file is left as it is.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright remove square")]
pub(crate) struct Remove {
    /// Name of the function.
    function: String,

    #[command(flatten)]
    admin: Admin,
}

impl Remove {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        let body = serde_json::json!({ "functionName": name });
        self.admin.ask(Method::DELETE, "/system/functions", body.to_string().into_bytes())?;
        if !quiet {
            output::note(&format!("{name}: removed"));
        }
        Ok(Exit::Done)
    }
}
