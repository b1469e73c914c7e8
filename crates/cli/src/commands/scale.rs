use clap::Args;
use http::Method;
use serde::Deserialize;

use crate::admin::Admin;
use crate::failure::{Exit, Failure, Outcome};
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

/// What the number of replicas is from now on.
#[derive(Debug, Deserialize)]
struct Scaled {
    replicas: u32,
}

impl Scale {
    pub(crate) fn run(self, quiet: bool) -> Outcome {
        let name = super::functions::path_segment(&self.function)?;
        let body = serde_json::json!({ "serviceName": name, "replicas": self.replicas });
        let path = format!("/system/scale-function/{name}");
        let answer = self.admin.ask(Method::POST, &path, body.to_string().into_bytes())?;
        let scaled: Scaled = serde_json::from_slice(&answer.body)
            .map_err(|fault| Failure::failed(format!("the answer is not understood: {fault}")))?;
        let bounded = if scaled.replicas == self.replicas {
            String::new()
        } else {
            format!(", not {}: the system file sets its bounds", self.replicas)
        };
        if !quiet {
            output::note(&format!("{name}: replicas wanted: {}{bounded}", scaled.replicas));
        }
        Ok(Exit::Done)
    }
}
