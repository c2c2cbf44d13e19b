//! The files of Hugging Face transformers: `config.json` and the names in `model.safetensors`.
//!
//! [`ARCHITECTURES`] is the table of what can be read, a row for each `model_type`: how its configuration becomes a [`ModelConfig`],
//! and what its tensors are called. Both spellings of a configuration are read, that of transformers 5 (`rope_parameters`) and the
//! older one (`rope_theta`, `rope_scaling`).

mod fields;
mod names;
mod sparse;

use hybridnorm_core::{
    DecoderConfig, LayerNorms, NormStyle, Placement, QkvNormSites, ResidualNorms,
};
use hybridnorm_moe::ModelConfig;
use serde_json::{Map, Value, json};

use crate::error::{InteropError, unsupported};
use crate::names::{NameMap, NameRow};
use fields::Fields;

/// A `model_type`.
#[derive(Debug)]
pub struct Architecture {
    /// As `config.json` has it.
    pub model_type: &'static str,
    /// The model behind a configuration.
    config: fn(&Fields<'_>) -> Result<ModelConfig, InteropError>,
    /// What its tensors are called.
    names: &'static [&'static [NameRow]],
}

/// Every architecture that can be read.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture {
        model_type: "mixtral",
        config: sparse::mixtral,
        names: &[names::MODEL, names::MIXTRAL],
    },
    Architecture {
        model_type: "olmoe",
        config: sparse::olmoe,
        names: &[names::MODEL, names::SPARSE],
    },
    Architecture {
        model_type: "qwen3_moe",
        config: sparse::qwen3_moe,
        names: &[names::MODEL, names::DENSE, names::SPARSE],
    },
];

/// A model that a `config.json` describes.
#[derive(Debug, Clone)]
pub struct Imported {
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
    let mut rows = ARCHITECTURES.iter();
    let Some(row) = rows.find(|row| row.model_type == model_type) else {
        let known: Vec<_> = ARCHITECTURES.iter().map(|row| row.model_type).collect();
        let reason = format!("implemented are {}", known.join(", "));
        return unsupported("model_type", model_type, &reason);
    };
    let fields = Fields::new(config, "");
    let model = (row.config)(&fields)?;
    fields.finish()?;
    model.validate()?;
    let decoder = &model.decoder;
    let width = |heads: usize| heads * decoder.head_dim();
    let names = NameMap::new(
        row.names,
        (width(decoder.n_heads), width(decoder.n_kv_heads)),
    );
    Ok(Imported { model, names })
}

/// What an architecture assumes where a configuration says nothing.
struct Defaults {
    rope_theta: f64,
    epsilon: f64,
}

/// The decoder of Llama's descendants: RMSNorm before each sublayer, SwiGLU, grouped-query attention with rotary positions, and
/// `qk` norms on queries and keys.
fn llama_like(
    fields: &Fields<'_>,
    defaults: &Defaults,
    qk: QkvNormSites,
) -> Result<DecoderConfig, InteropError> {
    fields.only("hidden_act", json!("silu"), "only SwiGLU is implemented")?;
    fields.only("attention_dropout", 0.into(), "dropout is not implemented")?;
    let kinds: Vec<String> = fields.or("layer_types", Vec::new())?;
    if let Some(other) = kinds.iter().find(|kind| *kind != "full_attention") {
        return unsupported("layer_types", other, "only full_attention is implemented");
    }
    let n_heads = fields.one_of(&["num_attention_heads"])?;
    let decoder = DecoderConfig {
        n_kv_heads: fields.or("num_key_value_heads", n_heads)?,
        head_dim: fields.get("head_dim")?,
        d_ff: fields.one_of(&["intermediate_size"])?,
        max_seq_len: fields.or("max_position_embeddings", 2048)?,
        placement: Placement::custom(LayerNorms::new(qk, ResidualNorms::PRE, ResidualNorms::PRE)),
        norm: NormStyle {
            epsilon: fields.or("rms_norm_eps", defaults.epsilon)?,
            ..NormStyle::default()
        },
        rope: fields.rotary(defaults.rope_theta)?,
        bias: fields.or("attention_bias", false)?,
        tied: fields.or("tie_word_embeddings", false)?,
        ..DecoderConfig::new(
            fields.one_of(&["vocab_size"])?,
            fields.one_of(&["hidden_size"])?,
            n_heads,
            fields.one_of(&["num_hidden_layers"])?,
        )
    };
    let norms = decoder.placement.layer(0, decoder.n_layers)?;
    Ok(DecoderConfig {
        placement: Placement::from_layers(&vec![norms; decoder.n_layers])?,
        ..decoder
    })
}
