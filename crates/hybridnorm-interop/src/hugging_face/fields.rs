//! `config.json`, field by field: every one is either read, known to change nothing, or refused by name.

use std::cell::RefCell;
use std::collections::BTreeSet;

use hybridnorm_core::ConfigError;
use hybridnorm_core::attention::rope::{Llama3Scaling, RotaryConfig};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{InteropError, unsupported};

/// Fields that do not change what a model computes.
const WITHOUT_EFFECT: [&str; 14] = [
    "architectures",
    "model_type",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "initializer_range",
    "output_router_logits",
    "use_cache",
    "_name_or_path",
    "_attn_implementation",
    "pretraining_tp",
];

/// An object of a configuration. `null` counts as absent.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What the names of its fields begin with in messages.
    prefix: &'static str,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn new(map: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self {
            map,
            prefix,
            read: RefCell::default(),
        }
    }

    /// The field called `name`.
    ///
    /// # Errors
    /// When it holds something of another kind.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, InteropError> {
        self.read.borrow_mut().insert(name.to_string());
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|error| {
                let field = format!("{}{name}", self.prefix);
                let allowed = error.to_string();
                // ConfigError's fields are the program's own; this one is the file's.
                InteropError::Unsupported {
                    field,
                    value: value.to_string(),
                    reason: allowed,
                }
            }),
        }
    }

    /// The first of `names` that is there.
    ///
    /// # Errors
    /// When none is.
    pub fn one_of<T: DeserializeOwned>(&self, names: &[&'static str]) -> Result<T, InteropError> {
        let mut found = None;
        for name in names {
            let value = self.get(name)?;
            found = found.or(value);
        }
        found.ok_or_else(|| ConfigError::new(names[0], "absent", "a value").into())
    }

    /// The field called `name`, or `default`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T, InteropError> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// Refuses any other value of the field called `name` than `only`, which is also its default.
    ///
    /// # Errors
    /// With `reason`.
    pub fn only(&self, name: &str, only: Value, reason: &str) -> Result<(), InteropError> {
        let same = |value: &Value| match (value.as_f64(), only.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *value == only,
        };
        match self.get::<Value>(name)? {
            Some(value) if !same(&value) => {
                unsupported(&format!("{}{name}", self.prefix), value, reason)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a field that nobody has read.
    ///
    /// # Errors
    /// Names it.
    pub fn finish(&self) -> Result<(), InteropError> {
        let read = self.read.borrow();
        let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let unread = self.map.iter().find(|(name, value)| {
            !read.contains(*name) && !WITHOUT_EFFECT.contains(&name.as_str()) && !off(value)
        });
        match unread {
            None => Ok(()),
            Some((name, value)) => unsupported(
                &format!("{}{name}", self.prefix),
                value,
                "what it does is not known here",
            ),
        }
    }

    /// Rotary positions: `rope_parameters`, or `rope_theta` and `rope_scaling` as older files have it.
    ///
    /// # Errors
    /// Names a scaling that is not implemented.
    pub fn rotary(&self, theta: f64) -> Result<RotaryConfig, InteropError> {
        let top: Option<f64> = self.get("rope_theta")?;
        let old: Option<Map<String, Value>> = self.get("rope_scaling")?;
        let new: Option<Map<String, Value>> = self.get("rope_parameters")?;
        let reason = "rotary positions are over whole heads here";
        self.only("partial_rotary_factor", 1.0.into(), reason)?;
        let theta = top.unwrap_or(theta);
        let (map, prefix) = match (&new, &old) {
            (Some(map), _) => (map, "rope_parameters."),
            (None, Some(map)) => (map, "rope_scaling."),
            (None, None) => {
                let scaling = None;
                return Ok(RotaryConfig { theta, scaling });
            }
        };
        let rope = Fields::new(map, prefix);
        let theta = rope.or("rope_theta", theta)?;
        rope.only("partial_rotary_factor", 1.0.into(), reason)?;
        let (kind, older): (Option<String>, Option<String>) =
            (rope.get("rope_type")?, rope.get("type")?);
        let kind = kind.or(older).unwrap_or_else(|| "default".to_string());
        let scaling = match kind.as_str() {
            "default" => None,
            "llama3" => Some(Llama3Scaling {
                factor: rope.one_of(&["factor"])?,
                low_freq_factor: rope.one_of(&["low_freq_factor"])?,
                high_freq_factor: rope.one_of(&["high_freq_factor"])?,
                original_max_position: rope.one_of(&["original_max_position_embeddings"])?,
            }),
            other => {
                let reason = "implemented are default and llama3";
                return unsupported(&format!("{prefix}rope_type"), other, reason);
            }
        };
        rope.finish()?;
        Ok(RotaryConfig { theta, scaling })
    }
}
