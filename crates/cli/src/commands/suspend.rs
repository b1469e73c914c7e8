use clap::Args;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Outcome};
use crate::output;

/// Stop every replica of a function until somebody asks for it.
///
/// What runs is finished. The next request starts replicas again, and waits for them.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright suspend square")]
pub(crate) struct Suspend {
    /// Name of the function.
    function: String,

    #[command(flatten)]
    admin: Admin,
}

impl Suspend {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        self.admin.ask(Method::POST, &format!("/system/suspend-function/{name}"), Vec::new())?;
        if !quiet {
            output::note(&format!("{name}: stops until somebody asks for it"));
        }
        Ok(Exit::Done)
    }
}
