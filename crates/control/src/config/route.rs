use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RateLimit, Upgrade};
use crate::cache::CachePolicy;
use crate::compress::Compress;

/// A path of the gateway and the function that answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path with `{name}` for one segment and `{*name}` for the rest.
    pub path: String,
    /// "function", or "function:/path/{name}" for an upstream's path.
    pub to: String,
    /// Whether and how long responses are stored. Not at all unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CachePolicy>,
    /// JSON Schema that successful responses must fit: "schema.json", or { schema = "schema.json", status = 404 }.
    /// One that does not fit is answered with 502, or that status, and never stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Protocols that a client may switch its connection to, if the upstream agrees: ["websocket"], or
    /// { protocols = ["websocket"], idle_timeout = "5m", max = 1000 }. From then on bytes go both ways unseen. None
    /// unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// Whether answers are compressed for clients that accept it: true, ["zstd", "br", "gzip"], or
    /// { codings = ["gzip"], min_size = "1KiB", types = ["text/*", "+json"] }. The upstream is asked for plain ones. As
    /// they come unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// How often each client may ask, beside what the function says. As often as it likes unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<RateLimit>,
    /// Names of the API keys of which a request must present one, in place of the function's and the gateway's; [] for
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
}

/// What a body must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Check {
    /// Path of a JSON Schema file, from the folder of the system file.
    Schema(String),
    /// The same, and the status of the answer in place of one that does not fit.
    WithStatus {
        /// Path of a JSON Schema file, from the folder of the system file.
        schema: String,
        /// 400 to 599.
        status: u16,
    },
}

impl Route {
    /// The function's name, and the upstream's path if one is given.
    #[must_use]
    pub fn target(&self) -> (&str, Option<&str>) {
        match self.to.split_once(':') {
            Some((function, path)) => (function, Some(path)),
            None => (&self.to, None),
        }
    }
}

impl Check {
    /// Path of the schema file, and the status of the answer in place of one that does not fit it, if one is given.
    #[must_use]
    pub fn parts(&self) -> (&str, Option<u16>) {
        match self {
            Self::Schema(schema) => (schema, None),
            Self::WithStatus { schema, status } => (schema, Some(*status)),
        }
    }

    /// Whether the status, if one is given, says that something went wrong.
    pub(crate) fn is_status_of_error(&self) -> bool {
        self.parts().1.is_none_or(|status| (400..=599).contains(&status))
    }
}
