use clap::Args;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Outcome};
use crate::output;

/// Replace the workers of a function by new ones, without a lost request.
///
/// Their code is read anew. One more than wanted is started; when it is ready, an old one finishes what it has and
/// ends; and so on. SIGHUP to the gateway reloads every Python function.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright reload square")]
pub(crate) struct Reload {
    /// Name of the function.
    function: String,

    #[command(flatten)]
    admin: Admin,
}

impl Reload {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        self.admin.ask(Method::POST, &format!("/system/reload/{name}"), Vec::new())?;
        if !quiet {
            output::note(&format!("{name}: its workers are replaced, one after another"));
        }
        Ok(Exit::Done)
    }
}
