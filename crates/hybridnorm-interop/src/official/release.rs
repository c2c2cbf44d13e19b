//! A folder of the authors' own code: `config.yaml` (or a reference case's `case.json`) beside `model.safetensors`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{OfficialConfig, names, yaml};
use crate::error::{InteropError, format_error};
use crate::files::Files;
use crate::hugging_face::{Imported, RELEASE};

/// What a training run of theirs writes beside its weights; the model is under `model`.
const YAML: &str = "config.yaml";
/// What a reference case has instead; the model is under `model_config`.
const CASE: &str = "case.json";

/// The model's part of the configuration among `files`; `None` where there is none of theirs.
pub(crate) fn config_of(files: &Files) -> Result<Option<Map<String, Value>>, InteropError> {
    let known = [(YAML, "model"), (CASE, "model_config")];
    let Some((name, section)) = known.into_iter().find(|(name, _)| files.has(name)) else {
        return Ok(None);
    };
    let path = files.path(name);
    let whole = match name {
        CASE => files.json(name, "reference")?,
        _ => yaml::parse(&files.text(name, "configuration")?)
            .map_err(|reason| format_error(&path, "configuration", reason))?,
    };
    let Value::Object(mut whole) = whole else {
        return Err(format_error(&path, "configuration", "it is no mapping"));
    };
    match whole.remove(section) {
        Some(Value::Object(model)) => Ok(Some(model)),
        Some(_) => {
            let reason = format!("{section} is no mapping");
            Err(format_error(&path, "configuration", reason))
        }
        // A model's section alone.
        None if whole.contains_key("d_model") => Ok(Some(whole)),
        None => {
            let reason = format!("it has no section {section}");
            Err(format_error(&path, "configuration", reason))
        }
    }
}

/// The model behind a `model` section.
pub(crate) fn import(config: &Map<String, Value>) -> Result<Imported, InteropError> {
    let read = OfficialConfig::deserialize(Value::Object(config.clone()));
    let read = read.map_err(|error| InteropError::Unsupported {
        field: "model".to_string(),
        value: "the configuration".to_string(),
        reason: error.to_string(),
    })?;
    Ok(Imported {
        architecture: &RELEASE,
        model: read.to_model()?,
        names: names(),
    })
}
