use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate that a listener shows, and whose certificates it asks for. Files are PEM, their paths relative
/// to the system file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// File with the certificate, and those between it and its root.
    pub certificate: String,
    /// File with the certificate's private key.
    pub key: String,
    /// File with the roots of clients' certificates. If set, a client without one of theirs is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
}

/// Whom a client trusts, and the certificate that it shows. Files are PEM, their paths relative to the system
/// file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// File with the roots that are trusted in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// File with the certificate that is shown to a server that asks for one. It needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// File with the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
