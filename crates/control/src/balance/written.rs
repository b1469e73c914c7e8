//! How a balancer is written: its name alone, or a table with its name as `policy` and its settings.

use std::fmt;

use schemars::Schema;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::{Value, json};

use super::Balance;

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = Tagged(self);
        let plain = Self::all().contains(self);
        match serde_json::to_value(&tagged).map_err(ser::Error::custom)?.get("policy") {
            Some(name) if plain => name.serialize(serializer),
            _ => tagged.serialize(serializer),
        }
    }
}

/// A balancer as a table.
struct Tagged<'a>(&'a Balance);

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Balance::serialize(self.0, serializer)
    }
}

/// Adds to the schema of the tables that the name alone will do.
pub(super) fn or_a_name(schema: &mut Schema) {
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        let name = |choice: &Value| choice.pointer("/properties/policy/const").cloned();
        let names: Vec<_> = choices.iter().filter_map(name).collect();
        choices.push(json!({ "description": "With its usual settings.", "enum": names }));
    }
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Balance;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a balancer, or a table with its `policy`")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Balance, E> {
        Balance::deserialize(MapDeserializer::new([("policy", name)].into_iter()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Balance, A::Error> {
        Balance::deserialize(MapAccessDeserializer::new(map))
    }
}
