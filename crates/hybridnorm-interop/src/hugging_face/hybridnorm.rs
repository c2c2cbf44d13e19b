//! This project's own `model_type`: any placement and every option, with the Python code beside it that transformers runs
//! (`export/python`). The norms of each layer stand in `config.json`, so one file of code serves them all.

use hybridnorm_core::{DecoderConfig, LayerNorms, Placement, RotaryConfig};
use hybridnorm_moe::{ModelConfig, SparseLayers};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::architectures::Architecture;
use super::fields::Fields;
use super::names::row;
use crate::error::{InteropError, unsupported};
use crate::names::{NameRow, Theirs};

/// Its name in `config.json`.
pub(super) const MODEL_TYPE: &str = "hybridnorm";

/// The model that `fields` describe.
pub(super) fn read(
    fields: &Fields<'_>,
    _row: &'static Architecture,
) -> Result<ModelConfig, InteropError> {
    let rows = fields.needed("vocab_size")?;
    let layers: Vec<LayerNorms> = fields.needed("layer_norms")?;
    let n_layers = fields.needed("num_hidden_layers")?;
    if layers.len() != n_layers {
        let reason = format!("num_hidden_layers is {n_layers}");
        return unsupported("layer_norms", format!("{} records", layers.len()), &reason);
    }
    let n_heads = fields.needed("num_attention_heads")?;
    let decoder = DecoderConfig {
        vocab_size: fields.or("tokenizer_vocab_size", rows)?,
        padded_vocab_size: rows,
        n_kv_heads: fields.or("num_key_value_heads", n_heads)?,
        head_dim: fields.get("head_dim")?,
        d_ff: fields.needed("intermediate_size")?,
        max_seq_len: fields.needed("max_position_embeddings")?,
        activation: fields.needed("activation")?,
        placement: Placement::from_layers(&layers)?,
        norm: fields.needed("norm")?,
        embedding_norm: Some(fields.needed("embedding_norm")?),
        final_norm: Some(fields.needed("final_norm")?),
        embedding_scale: fields.get("embedding_scale")?,
        rope: fields.needed("rotary")?,
        local_rope: fields.get("local_rotary")?,
        attention_bias: Some(fields.flag("attention_bias")?),
        feed_forward_bias: Some(fields.flag("feed_forward_bias")?),
        head_bias: Some(fields.flag("head_bias")?),
        clip_qkv: fields.get("clip_qkv")?,
        clip_normed: fields.flag("clip_normed")?,
        softmax_scale: fields.get("softmax_scale")?,
        attention_softcap: fields.get("attention_softcap")?,
        sliding_window: fields.get("attention_window")?,
        global_layers: fields.or("global_layers", Vec::new())?,
        logit_scale: fields.get("logit_scale")?,
        logit_softcap: fields.get("logit_softcap")?,
        tied: fields.needed("tie_word_embeddings")?,
        ..DecoderConfig::new(rows, fields.needed("hidden_size")?, n_heads, n_layers)
    };
    // Where the code is, for transformers.
    let _: Option<Value> = fields.get("auto_map")?;
    let sparse = fields.get("sparse")?;
    Ok(ModelConfig { decoder, sparse })
}

/// The fields of `model`: what [`read`] reads, everything spelled out.
///
/// # Errors
/// When the placement does not fit the number of layers.
pub(super) fn write(model: &ModelConfig) -> Result<Map<String, Value>, InteropError> {
    let c = &model.decoder;
    let layers = (0..c.n_layers).map(|layer| c.placement.layer(layer, c.n_layers));
    let layers: Vec<LayerNorms> = layers.collect::<Result<_, _>>()?;
    let has_window = (0..c.n_layers).any(|layer| c.window(layer).is_some());
    let local: Option<&RotaryConfig> = c.local_rope.as_ref().filter(|_| has_window);
    let attention = c.attention(0);
    let fields = [
        ("vocab_size", json!(c.padded_vocab_size)),
        ("tokenizer_vocab_size", json!(c.vocab_size)),
        ("hidden_size", json!(c.d_model)),
        ("intermediate_size", json!(c.d_ff)),
        ("num_hidden_layers", json!(c.n_layers)),
        ("num_attention_heads", json!(c.n_heads)),
        ("num_key_value_heads", json!(c.n_kv_heads)),
        ("head_dim", json!(c.head_dim())),
        ("max_position_embeddings", json!(c.max_seq_len)),
        ("activation", value(&c.activation)?),
        ("layer_norms", value(&layers)?),
        ("norm", value(&c.norm)?),
        ("embedding_norm", json!(c.has_embedding_norm())),
        ("final_norm", json!(c.has_final_norm()?)),
        ("embedding_scale", json!(c.embedding_scale)),
        ("rotary", value(&c.rope)?),
        ("local_rotary", value(&local)?),
        ("attention_bias", json!(attention.bias)),
        ("feed_forward_bias", json!(c.feed_forward().bias)),
        ("head_bias", json!(!c.tied && c.head_bias.unwrap_or(c.bias))),
        ("clip_qkv", json!(c.clip_qkv)),
        ("clip_normed", json!(c.clip_normed)),
        ("softmax_scale", json!(c.softmax_scale)),
        ("attention_softcap", json!(c.attention_softcap)),
        (
            "attention_window",
            json!(c.sliding_window.filter(|_| has_window)),
        ),
        (
            "global_layers",
            json!(if has_window {
                &c.global_layers[..]
            } else {
                &[]
            }),
        ),
        ("logit_scale", json!(c.logit_scale)),
        ("logit_softcap", json!(c.logit_softcap)),
        ("sparse", value(&model.sparse)?),
        ("tie_word_embeddings", json!(c.tied)),
    ];
    let fields = fields.into_iter();
    Ok(fields
        .map(|(name, value)| (name.to_string(), value))
        .collect())
}

/// What a model computes, as fields that are equal where two models compute the same: without what only matters in training, and
/// without what nothing reads.
///
/// # Errors
/// As [`write`].
pub(super) fn computed(model: &ModelConfig) -> Result<Map<String, Value>, InteropError> {
    let mut model = model.clone();
    let c = &mut model.decoder;
    c.vocab_size = c.padded_vocab_size;
    c.softmax_scale = Some(
        c.softmax_scale
            .unwrap_or(1.0 / (c.head_dim() as f64).sqrt()),
    );
    c.local_rope = c.local_rope.take().filter(|local| *local != c.rope);
    c.clip_normed &= c.clip_qkv.is_some();
    let mut has_attention_norm = false;
    for layer in 0..c.n_layers {
        let qkv = c.placement.layer(layer, c.n_layers)?.qkv;
        let sites = [qkv.query, qkv.key, qkv.value, qkv.context];
        has_attention_norm |= sites.iter().any(Option::is_some);
    }
    c.norm.attention_affine &= has_attention_norm;
    c.norm.bias &= c.norm.affine || c.norm.attention_affine;
    let mut all_sparse = false;
    if let Some(sparse) = &mut model.sparse {
        let layers: Vec<usize> = (0..c.n_layers)
            .filter(|l| sparse.layers.contains(*l))
            .collect();
        all_sparse = layers.len() == c.n_layers;
        sparse.layers = SparseLayers::Only(layers);
        sparse.losses = Default::default();
        sparse.router.jitter = None;
    }
    let mut fields = write(&model)?;
    if all_sparse {
        for dense in ["intermediate_size", "activation", "feed_forward_bias"] {
            fields.remove(dense);
        }
    }
    Ok(fields)
}

fn value(of: &impl Serialize) -> Result<Value, InteropError> {
    serde_json::to_value(of)
        .or_else(|error| unsupported("config.json", "a value", &error.to_string()))
}

use Theirs::{Linear, Same};

/// What the modules of `modeling_hybridnorm.py` are called, beside those that every model has.
pub(super) const NAMES: &[NameRow] = &[
    row("embedding_norm", Same("model.embed_norm")),
    row(
        "blocks.*.attention.norms.value.norm",
        Same("model.layers.*.self_attn.v_norm"),
    ),
    row(
        "blocks.*.attention.norms.context.norm",
        Same("model.layers.*.self_attn.c_norm"),
    ),
    row(
        "blocks.*.attention_residual.stream",
        Same("model.layers.*.attention_residual.stream"),
    ),
    row(
        "blocks.*.attention_residual.input",
        Same("model.layers.*.attention_residual.input"),
    ),
    row(
        "blocks.*.attention_residual.output",
        Same("model.layers.*.attention_residual.output"),
    ),
    row(
        "blocks.*.attention_residual.after",
        Same("model.layers.*.attention_residual.after"),
    ),
    row(
        "blocks.*.feed_forward_residual.stream",
        Same("model.layers.*.feed_forward_residual.stream"),
    ),
    row(
        "blocks.*.feed_forward_residual.input",
        Same("model.layers.*.feed_forward_residual.input"),
    ),
    row(
        "blocks.*.feed_forward_residual.output",
        Same("model.layers.*.feed_forward_residual.output"),
    ),
    row(
        "blocks.*.feed_forward_residual.after",
        Same("model.layers.*.feed_forward_residual.after"),
    ),
    row(
        "blocks.*.feed_forward.input",
        Linear("model.layers.*.mlp.in_proj"),
    ),
    row(
        "blocks.*.feed_forward.output",
        Linear("model.layers.*.mlp.out_proj"),
    ),
    row(
        "blocks.*.feed_forward.router.linear",
        Linear("model.layers.*.mlp.router"),
    ),
    row(
        "blocks.*.feed_forward.router.selection_bias",
        Same("model.layers.*.mlp.selection_bias"),
    ),
    row(
        "blocks.*.feed_forward.shared.input",
        Linear("model.layers.*.mlp.shared.in_proj"),
    ),
    row(
        "blocks.*.feed_forward.shared.output",
        Linear("model.layers.*.mlp.shared.out_proj"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hugging_face::import;
    use hybridnorm_core::PLACEMENTS;
    use hybridnorm_moe::SparseConfig;

    fn written(model: &ModelConfig) -> Map<String, Value> {
        let mut fields = write(model).unwrap();
        fields.insert("model_type".to_string(), MODEL_TYPE.into());
        fields
    }

    /// Every placement, dense and sparse, comes back as the same function and under the same name.
    #[test]
    fn what_is_written_is_read() {
        for row in PLACEMENTS {
            let decoder = DecoderConfig {
                placement: row.into(),
                attention_bias: Some(true),
                n_kv_heads: 2,
                sliding_window: Some(7),
                global_layers: vec![1],
                softmax_scale: Some(0.3),
                ..DecoderConfig::new(50, 32, 4, 5)
            };
            let sparse = SparseConfig {
                layers: SparseLayers::Every(2),
                shared_d_ff: Some(9),
                ..SparseConfig::new(4, 2, 24)
            };
            for sparse in [None, Some(sparse)] {
                let decoder = decoder.clone();
                let model = ModelConfig { decoder, sparse };
                let back = import(&written(&model)).unwrap().model;
                assert_eq!(computed(&back).unwrap(), computed(&model).unwrap());
                assert_eq!(back.sparse, model.sparse);
                let same_norms = |name: &str| {
                    ["sandwich", "peri-ln", "hybrid", "hybrid-embed-norm"].contains(&name)
                };
                if !same_norms(row.name) {
                    assert_eq!(
                        back.decoder.placement, model.decoder.placement,
                        "{}",
                        row.name
                    );
                }
            }
        }
    }

    #[test]
    fn a_difference_is_seen() {
        let model: ModelConfig = DecoderConfig::new(50, 32, 4, 5).into();
        for change in [
            |c: &mut DecoderConfig| c.placement = "hybrid".parse().unwrap(),
            |c: &mut DecoderConfig| c.rope.theta = 1e4,
            |c: &mut DecoderConfig| c.tied = false,
            |c: &mut DecoderConfig| c.norm.epsilon = 1e-6,
            |c: &mut DecoderConfig| c.bias = true,
            |c: &mut DecoderConfig| c.softmax_scale = Some(0.1),
        ] {
            let mut other = model.clone();
            change(&mut other.decoder);
            assert_ne!(computed(&other).unwrap(), computed(&model).unwrap());
        }
        let mut same = model.clone();
        same.decoder.softmax_scale = Some(1.0 / 8f64.sqrt());
        same.decoder.head_dim = Some(8);
        same.decoder.init.seed = 7;
        assert_eq!(computed(&same).unwrap(), computed(&model).unwrap());
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let model: ModelConfig = DecoderConfig::new(50, 32, 4, 2).into();
        let fields = written(&model);
        for (field, found) in [
            ("rotary", None),
            ("layer_norms", Some(json!([{}]))),
            ("dropout", Some(json!(0.1))),
        ] {
            let mut fields = fields.clone();
            match found {
                Some(found) => fields.insert(field.to_string(), found),
                None => fields.remove(field),
            };
            let error = import(&fields).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
