//! A model into a folder that transformers loads.
//!
//! A model whose placement and options are those of an architecture of transformers ([`ARCHITECTURES`](crate::hugging_face::ARCHITECTURES))
//! becomes one of that kind. Every other becomes `model_type: hybridnorm`, with the code that computes it beside the weights
//! (`modeling_hybridnorm.py`), for `AutoModelForCausalLM.from_pretrained(.., trust_remote_code=True)`.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | the model |
//! | `generation_config.json` | where a text ends, and the rows of the embedding that stand for no token |
//! | `model.safetensors`, or `model-*.safetensors` and their index | the weights |
//! | `configuration_hybridnorm.py`, `modeling_hybridnorm.py` | the code, where it is not one of transformers' own |

mod weights;

use std::fs;
use std::path::Path;

use hybridnorm_core::Decoder;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};
use serde_json::{Map, Value, json};

use crate::error::InteropError;
use crate::hugging_face::{Architecture, Exported, ours, theirs};
pub use weights::{WeightType, Written, write_weights};

/// The code of models that transformers does not know, by file name.
pub const PYTHON: [(&str, &str); 2] = [
    (
        "configuration_hybridnorm.py",
        include_str!("python/configuration_hybridnorm.py"),
    ),
    (
        "modeling_hybridnorm.py",
        include_str!("python/modeling_hybridnorm.py"),
    ),
];

/// What a folder is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// An architecture of transformers where one computes the model, this project's own otherwise.
    #[default]
    Auto,
    /// An architecture of transformers.
    HuggingFace,
    /// This project's own.
    HybridNorm,
}

/// Token ids that a text is generated with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// What a document begins with.
    pub begin: Option<u32>,
    /// What ends one, each of them.
    pub end: Vec<u32>,
    /// Ids below it are the tokenizer's; `None` for all.
    pub known: Option<usize>,
}

impl SpecialTokens {
    /// As transformers has it: none, one, or a list.
    fn ends(&self) -> Value {
        match self.end.as_slice() {
            [] => Value::Null,
            [end] => json!(end),
            ends => json!(ends),
        }
    }
}

/// A model and the format it is written in.
#[derive(Debug, Clone)]
pub struct Export {
    exported: Exported,
    dtype: WeightType,
    tokens: SpecialTokens,
    /// What is known already of `generation_config.json`.
    generation: Map<String, Value>,
}

impl Export {
    /// Chooses the architecture for `model`; among several of transformers that compute it, the one called `first`, as `model_type` has it.
    ///
    /// # Errors
    /// When it has to be one of transformers and none computes the model: says what stands against the closest.
    pub fn new(
        model: &ModelConfig,
        format: Format,
        first: Option<&str>,
        dtype: WeightType,
        tokens: SpecialTokens,
    ) -> Result<Self, InteropError> {
        model.validate()?;
        let exported = match format {
            Format::HuggingFace => theirs(model, first)?,
            Format::HybridNorm => ours(model)?,
            Format::Auto => theirs(model, first).or_else(|_| ours(model))?,
        };
        Ok(Self {
            exported,
            dtype,
            tokens,
            generation: Map::new(),
        })
    }

    /// The row of the table.
    pub fn architecture(&self) -> &'static Architecture {
        self.exported.imported.architecture
    }

    /// Takes over what `generation`, the contents of a `generation_config.json`, says.
    #[must_use]
    pub fn with_generation(mut self, generation: Map<String, Value>) -> Self {
        self.generation = generation;
        self
    }

    /// Whether the folder needs the code beside it.
    pub fn needs_code(&self) -> bool {
        self.architecture().needs_code()
    }

    /// The contents of `config.json`.
    pub fn config(&self) -> Map<String, Value> {
        let mut config = self.exported.config.clone();
        let mut put = |name: &str, value: Value| config.insert(name.to_string(), value);
        put("architectures", json!([self.architecture().class]));
        // The older spelling is read by old and new versions.
        put("torch_dtype", self.dtype.torch_name().into());
        put("bos_token_id", json!(self.tokens.begin));
        put("eos_token_id", self.tokens.ends());
        put("use_cache", true.into());
        if self.needs_code() {
            let map = json!({
                "AutoConfig": "configuration_hybridnorm.HybridNormConfig",
                "AutoModel": "modeling_hybridnorm.HybridNormModel",
                "AutoModelForCausalLM": "modeling_hybridnorm.HybridNormForCausalLM",
            });
            put("auto_map", map);
        }
        config
    }

    /// The contents of `generation_config.json`.
    fn generation(&self, rows: usize) -> Value {
        let mut generation = self.generation.clone();
        let mut put = |name: &str, value: Value| {
            generation.entry(name).or_insert(value);
        };
        put("bos_token_id", json!(self.tokens.begin));
        put("eos_token_id", self.tokens.ends());
        put("pad_token_id", json!(self.tokens.end.first()));
        let known = self.tokens.known.unwrap_or(rows).min(rows);
        if known < rows {
            // Trained like the others, and no token of the tokenizer.
            put("suppress_tokens", (known..rows).collect());
        }
        generation.into()
    }

    /// Writes `model` into the folder `dir`, which is there and holds none of the files.
    ///
    /// # Errors
    /// When a parameter is not finite or cannot be read from its device, or the file system refuses.
    pub fn write(
        &self,
        dir: &Path,
        model: &Decoder<FeedForwardLayer>,
        max_shard: u64,
    ) -> Result<Written, InteropError> {
        let rows = self.exported.imported.model.decoder.padded_vocab_size;
        write_json(&dir.join("config.json"), &self.config().into())?;
        write_json(&dir.join("generation_config.json"), &self.generation(rows))?;
        if self.needs_code() {
            for (name, code) in PYTHON {
                let path = dir.join(name);
                fs::write(&path, code).map_err(InteropError::write(&path))?;
            }
        }
        let names = &self.exported.imported.names;
        write_weights(dir, model, names, self.dtype, max_shard)
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), InteropError> {
    let text = format!("{value:#}\n");
    fs::write(path, text).map_err(InteropError::write(path))
}
