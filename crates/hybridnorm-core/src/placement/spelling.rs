//! How placements stand in configuration files: as a name, or as a table where a name does not say it all.

use core::fmt;
use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{LayerNorms, Placement, Rule};
use crate::error::ConfigError;

/// Reads what is written as text or as a table, and refuses it as the one it is written as: serde's untagged enums say of either only
/// that it fits none.
pub(super) struct TextOrTable<T, Table> {
    /// What is allowed.
    pub expected: &'static str,
    /// Understands text.
    pub text: fn(&str) -> Result<T, ConfigError>,
    /// Understands a table.
    pub table: fn(Table) -> Result<T, ConfigError>,
}

impl<'de, T, Table: Deserialize<'de>> de::Visitor<'de> for TextOrTable<T, Table> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        (self.table)(table).map_err(de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementTable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom: Option<Box<LayerNorms>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, LayerNorms>,
}

impl TryFrom<PlacementTable> for Placement {
    type Error = ConfigError;

    fn try_from(table: PlacementTable) -> Result<Self, ConfigError> {
        let mut placement = match (table.base, table.custom) {
            (Some(name), None) => name.parse()?,
            (None, Some(layer)) => Self::custom(*layer),
            (None, None) | (Some(_), Some(_)) => {
                let allowed = "either base = \"NAME\" or custom = { .. }, one of the two";
                return Err(ConfigError::new("placement", "a table", allowed));
            }
        };
        for (layer, norms) in table.layers {
            let index = layer.parse().map_err(|_| {
                ConfigError::new("placement.layers", &layer, "a layer number, counted from 0")
            })?;
            placement.overrides.insert(index, norms);
        }
        Ok(placement)
    }
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable {
            expected: "the name of a placement, or a table with base or custom, and layers",
            text: str::parse,
            table: PlacementTable::try_into,
        })
    }
}

impl Serialize for Placement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (base, custom) = match &self.rule {
            Rule::Named(..) => (Some(self.rule.to_string()), None),
            Rule::Custom(layer) => (None, Some(layer.clone())),
        };
        if let (Some(name), true) = (&base, self.overrides.is_empty()) {
            return serializer.serialize_str(name);
        }
        let layers = self.overrides.iter();
        let layers = layers.map(|(layer, norms)| (layer.to_string(), norms.clone()));
        let table = PlacementTable {
            base,
            custom,
            layers: layers.collect(),
        };
        table.serialize(serializer)
    }
}
