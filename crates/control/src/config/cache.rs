//! Where responses are stored.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientTls, HumanDuration, HumanSize};

/// Where responses are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Memory for stored responses, bodies and heads together.
    pub memory: HumanSize,
    /// Largest body that is stored, at most half of `memory`; a longer one is passed on.
    pub max_body: HumanSize,
    /// A second tier that gateways share, Redis from 7.0 or Valkey: "redis://host:6379", or
    /// "redis://user:password@host:6379/0"; "rediss://" for TLS. While it is down or slow, requests go on without it.
    /// None unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedUrl>,
    /// Whom the certificate of a shared tier with TLS must come from, if not from the system's roots, and the
    /// certificate that is shown to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_tls: Option<ClientTls>,
    /// How long a request waits for the shared tier, all in all, before it goes on without it.
    pub shared_deadline: HumanDuration,
    /// A second tier on this machine's disk, which outlives the gateway. None unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A tier on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its folder, from the folder of the system file. Made if it is not there; nothing else may be in it.
    pub path: String,
    /// Bytes that it may take; the oldest responses go first.
    #[serde(default = "default_disk_size")]
    pub size: HumanSize,
}

/// Address of a Redis or Valkey server. Its password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedUrl(String);

const fn default_disk_size() -> HumanSize {
    HumanSize::from_mib(1024)
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            memory: HumanSize::from_mib(256),
            max_body: HumanSize::from_mib(8),
            shared: None,
            shared_tls: None,
            shared_deadline: HumanDuration::new(Duration::from_millis(20)),
            disk: None,
        }
    }
}

impl Cache {
    /// Largest body that is stored, in bytes: what is said, but never more than half of the memory, so that one response
    /// does not push out all others.
    #[must_use]
    pub fn max_body_kept(&self) -> u64 {
        self.max_body.bytes().min(self.memory.bytes() / 2)
    }
}

impl SharedUrl {
    /// The address as it was written, its password included.
    #[must_use]
    pub fn with_secret(&self) -> &str {
        &self.0
    }

    /// Whether it is spoken to in TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.parts().0, "rediss" | "valkeys")
    }

    /// The address for who has taken care of TLS, its password included.
    #[must_use]
    pub fn inside_tls(&self) -> String {
        format!("redis://{}", self.parts().1)
    }

    /// Host and port, for logs.
    #[must_use]
    pub fn server(&self) -> &str {
        let (_, rest) = self.parts();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        host.split(['/', '?']).next().unwrap_or_default()
    }

    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let (scheme, _) = self.parts();
        match scheme {
            _ if self.0.contains('#') => {
                Some("its certificate is always verified: leave out what is behind `#`")
            }
            "redis" | "valkey" | "rediss" | "valkeys" if !self.server().is_empty() => None,
            _ => Some("it is no address like \"redis://host:6379\""),
        }
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once("://").unwrap_or(("", &self.0))
    }
}

impl fmt::Display for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.parts();
        match rest.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://***@{host}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SharedUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SharedUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for SharedUrl {
    fn schema_name() -> Cow<'static, str> {
        "SharedUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Address of a Redis or Valkey server: \"redis://host:6379\".",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemFile;

    fn read(cache: &str) -> Result<SystemFile, String> {
        SystemFile::parse(&format!("[cache]\n{cache}\n"), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_never_shown() {
        let file = read("shared = \"redis://me:hidden@host:6379/1\"").unwrap();
        let shared = file.cache.shared.as_ref().unwrap();
        assert_eq!(shared.server(), "host:6379");
        assert!(shared.with_secret().contains("hidden"));
        let shown =
            format!("{shared} {shared:?} {file:?} {}", serde_json::to_string(&file).unwrap());
        assert!(!shown.contains("hidden") && shown.contains("redis://***@host:6379/1"), "{shown}");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (address, wrong) in [
            ("host:6379", "no address"),
            ("http://host", "no address"),
            ("redis://", "no address"),
            ("rediss://host/#insecure", "verified"),
        ] {
            let error = read(&format!("shared = \"{address}\"")).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn tls_to_the_shared_tier_is_for_an_address_with_tls() {
        let secure =
            read("shared = \"rediss://me:hidden@host/1\"\nshared_tls.ca = \"ca.pem\"").unwrap();
        let shared = secure.cache.shared.unwrap();
        assert!(shared.is_secure() && shared.inside_tls() == "redis://me:hidden@host/1");
        let plain = read("shared = \"redis://host\"\nshared_tls.ca = \"ca.pem\"").unwrap_err();
        assert!(plain.contains("rediss://"), "{plain}");
        let half = read("shared = \"rediss://host\"\nshared_tls.key = \"a.pem\"").unwrap_err();
        assert!(half.contains("go together"), "{half}");
    }

    #[test]
    fn a_disk_has_a_path_and_a_size() {
        let size = |text: &str| read(text).unwrap().cache.disk.unwrap().size.bytes();
        assert_eq!(size("disk = { path = \"kept\", size = \"2GiB\" }"), 2 << 30);
        assert_eq!(size("disk.path = \"kept\""), 1 << 30);
        assert!(read("disk = {}").is_err());
        assert!(read("disk = { path = \"\", size = \"1GiB\" }").unwrap_err().contains("path"));
    }
}
