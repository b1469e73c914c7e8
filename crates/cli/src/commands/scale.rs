use clap::Args;
use http::Method;

use crate::admin::Admin;
use crate::failure::{Exit, Outcome};
use crate::output;

/// Set how many replicas a function of a running gateway has.
///
/// The number stays within the bounds that the system file sets.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gatewright scale square 8
  gatewright scale square 0")]
pub(crate) struct Scale {
    /// Name of the function.
    function: String,

    /// Number of replicas.
    replicas: u32,

    #[command(flatten)]
    admin: Admin,
}

impl Scale {
    pub(crate) fn run(self) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        let body = serde_json::json!({ "serviceName": name, "replicas": self.replicas });
        let path = format!("/system/scale-function/{name}");
        self.admin.ask(Method::POST, &path, body.to_string().into_bytes())?;
        output::note(&format!("{name}: {} replicas asked for", self.replicas));
        Ok(Exit::Done)
    }
}
