//! Cores and bandwidths as files write them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Cores, to the thousandth: "500m", "4", or 0.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cores(u64);

/// Bits per second: "150Kbit", "125Mbit", "10Gbit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(u64);

impl Cores {
    /// So many thousandths.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Thousandths of a core.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    fn read(text: &str) -> Option<Self> {
        match text.strip_suffix('m') {
            Some(millis) => millis.parse().ok().map(Self),
            None => text.parse().ok().and_then(Self::of_number),
        }
    }

    fn of_number(cores: f64) -> Option<Self> {
        let millis = (cores * 1_000.0).round();
        (0.0..=1e12).contains(&millis).then_some(Self(millis as u64))
    }
}

impl Bandwidth {
    /// So many million bits per second.
    #[must_use]
    pub const fn from_mbit(mbit: u64) -> Self {
        Self(mbit * 1_000_000)
    }

    /// Whole bytes per second.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    fn read(text: &str) -> Option<Self> {
        const UNITS: [(&str, f64); 4] = [("Kbit", 1e3), ("Mbit", 1e6), ("Gbit", 1e9), ("bit", 1.0)];
        let text = text.strip_suffix("/s").unwrap_or(text);
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, unit)))?;
        let bits = number.trim().parse::<f64>().ok()? * unit;
        (8.0..=1e15).contains(&bits).then_some(Self(bits.round() as u64))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) {
            write!(f, "{}", self.0 / 1_000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] =
            [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("Kbit", 1_000)];
        match UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}bit", self.0),
        }
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cores like \"500m\", \"4\" or 0.5")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cores, E> {
                Cores::read(text).ok_or_else(|| {
                    E::custom(format!("`{text}` is no number of cores like \"500m\" or \"4\""))
                })
            }

            fn visit_i64<E: de::Error>(self, cores: i64) -> Result<Cores, E> {
                self.visit_f64(cores as f64)
            }

            fn visit_u64<E: de::Error>(self, cores: u64) -> Result<Cores, E> {
                self.visit_f64(cores as f64)
            }

            fn visit_f64<E: de::Error>(self, cores: f64) -> Result<Cores, E> {
                Cores::of_number(cores)
                    .ok_or_else(|| E::custom(format!("{cores} is no number of cores")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no bandwidth like \"125Mbit\" or \"1Gbit\""))
        })
    }
}

impl JsonSchema for Cores {
    fn schema_name() -> Cow<'static, str> {
        "Cores".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "description": "Cores, to the thousandth: \"500m\", \"4\", 0.5.",
        })
    }
}

impl JsonSchema for Bandwidth {
    fn schema_name() -> Cow<'static, str> {
        "Bandwidth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Bits per second: \"150Kbit\", \"125Mbit\", \"10Gbit\".",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_bandwidths_are_read_and_written() {
        let cores = |text| Cores::read(text).map(|cores| (cores.millis(), cores.to_string()));
        assert_eq!(cores("500m"), Some((500, "500m".to_owned())));
        assert_eq!(cores("4"), Some((4_000, "4".to_owned())));
        assert_eq!(cores("0.25"), Some((250, "250m".to_owned())));
        assert_eq!(cores("-1"), None);
        assert_eq!(cores("four"), None);
        let bits = |text| Bandwidth::read(text).map(|b| (b.bytes_per_second(), b.to_string()));
        assert_eq!(bits("125Mbit"), Some((15_625_000, "125Mbit".to_owned())));
        assert_eq!(bits("1.5Gbit/s"), Some((187_500_000, "1500Mbit".to_owned())));
        assert_eq!(bits("100"), None);
        assert_eq!(bits("0Mbit"), None);
    }
}
