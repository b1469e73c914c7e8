use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// The protocols that connections of a route may switch to, and bounds of what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum Upgrade {
    /// Names of protocols, as `Upgrade` says them: "websocket".
    Protocols(Vec<String>),
    /// The same with bounds.
    Bounded(UpgradeRules),
}

/// The protocols that connections of a route may switch to, and bounds of the tunnels that they become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRules {
    /// Names of protocols, as `Upgrade` says them: "websocket".
    pub protocols: Vec<String>,
    /// How long a tunnel may be silent in both directions before it is closed.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: HumanDuration,
    /// Tunnels of the route at a time; one more is answered with 503.
    #[serde(default = "default_max")]
    pub max: u32,
}

const fn default_idle_timeout() -> HumanDuration {
    HumanDuration::from_secs(300)
}

const fn default_max() -> u32 {
    1_000
}

impl Upgrade {
    /// The protocols, and the bounds, which are the usual ones unless given.
    #[must_use]
    pub fn rules(&self) -> UpgradeRules {
        match self {
            Self::Bounded(rules) => rules.clone(),
            Self::Protocols(protocols) => UpgradeRules {
                protocols: protocols.clone(),
                idle_timeout: default_idle_timeout(),
                max: default_max(),
            },
        }
    }

    /// What is wrong with it.
    pub(super) fn fault(&self) -> Option<String> {
        let rules = self.rules();
        if rules.protocols.is_empty() {
            return Some("upgrade names no protocol".to_owned());
        }
        let token = |name: &str| {
            let sign =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
            !name.is_empty() && name.bytes().all(sign)
        };
        rules.protocols.iter().find_map(|name| {
            let lower = name.to_ascii_lowercase();
            if lower == "h2c" || lower.starts_with("http/") || lower.starts_with("tls/") {
                // Requests in it would not be seen by any rule of the gateway.
                return Some(format!(
                    "upgrade: `{name}` carries requests, and is never passed through"
                ));
            }
            (!token(name)).then(|| format!("upgrade: `{name}` is no name of a protocol"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemFile;

    fn read(upgrade: &str, more: &str) -> Result<SystemFile, String> {
        let text = format!(
            "[function.o]\nhttp = \"http://h\"\n{more}\n[[route]]\npath = \"/a\"\nto = \"o\"\nupgrade = {upgrade}\n"
        );
        SystemFile::parse(&text, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn names_protocols_with_or_without_bounds() {
        let rules = |text| read(text, "").unwrap().routes[0].upgrade.as_ref().unwrap().rules();
        let plain = rules("[\"websocket\"]");
        assert_eq!((plain.idle_timeout.get().as_secs(), plain.max), (300, 1_000));
        let bounded = rules("{ protocols = [\"websocket\"], idle_timeout = \"1h\", max = 5 }");
        assert_eq!((bounded.idle_timeout.get().as_secs(), bounded.max), (3_600, 5));
    }

    #[test]
    fn what_would_carry_requests_past_the_rules_is_refused() {
        for (upgrade, more, wrong) in [
            ("[\"h2c\"]", "", "carries requests"),
            ("[\"HTTP/2.0\"]", "", "carries requests"),
            ("[]", "", "no protocol"),
            ("[\"web socket\"]", "", "no name"),
            ("[\"websocket\"]", "http2 = true", "HTTP/1.1"),
        ] {
            let error = read(upgrade, more).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
