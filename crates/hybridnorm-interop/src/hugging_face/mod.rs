//! The files of Hugging Face transformers: `config.json` and the names in `model.safetensors`.
//!
//! [`ARCHITECTURES`] is the table of what can be read, a row for each `model_type`: the placement it has, what its configuration
//! assumes where it says nothing, and what its tensors are called. Both spellings of a configuration are read, that of transformers 5
//! (`rope_parameters`) and the older one (`rope_theta`, `rope_scaling`). [`Pretrained`] reads a whole folder.

mod architectures;
mod dense;
mod fields;
mod folder;
mod gemma;
mod hybridnorm;
mod names;
mod rope;
mod sparse;
mod write;

use hybridnorm_moe::ModelConfig;
use serde_json::{Map, Value};

use crate::error::{InteropError, unsupported};
use crate::names::NameMap;
pub use architectures::{ARCHITECTURES, Architecture, RELEASE};
use fields::Fields;
pub use folder::{Pretrained, json_object};
pub use write::{Exported, ours, theirs};

/// A model that a `config.json` describes.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The row of the table that it is.
    pub architecture: &'static Architecture,
    /// Its configuration.
    pub model: ModelConfig,
    /// What its tensors are called.
    pub names: NameMap,
}

/// The model that `config`, the contents of a `config.json`, describes.
///
/// # Errors
/// Names the field that cannot be expressed: no field that is not understood is passed over.
pub fn import(config: &Map<String, Value>) -> Result<Imported, InteropError> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or("(absent)");
    let architecture = architectures::find(model_type)?;
    let fields = Fields::new(config, "");
    let model = architecture.model(&fields)?;
    fields.finish()?;
    model.validate()?;
    let decoder = &model.decoder;
    let width = |heads: usize| heads * decoder.head_dim();
    let names = architecture.names((width(decoder.n_heads), width(decoder.n_kv_heads)));
    Ok(Imported {
        architecture,
        model,
        names,
    })
}
