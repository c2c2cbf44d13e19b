//! Llama and its dense descendants: Mistral, Qwen3, OLMo 2 (transformers 5.24, `models/{llama,mistral,qwen3,olmo2}`).

use hybridnorm_core::{Activation, DecoderConfig, NormStyle, Placement};
use hybridnorm_moe::ModelConfig;
use serde_json::json;

use super::architectures::Architecture;
use super::fields::Fields;
use crate::error::{InteropError, unsupported};

type Model = Result<ModelConfig, InteropError>;

pub(super) fn llama(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let decoder = DecoderConfig {
        feed_forward_bias: Some(fields.flag("mlp_bias")?),
        ..decoder(fields, row, "hidden_act")?
    };
    only_full_layers(fields, decoder.n_layers)?;
    Ok(decoder.into())
}

/// Without biases, whatever the configuration says; the window is in all layers.
pub(super) fn mistral(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let decoder = decoder(fields, row, "hidden_act")?;
    if decoder.attention_bias == Some(true) {
        return unsupported("attention_bias", true, "Mistral has none");
    }
    let window: Option<usize> = fields.or("sliding_window", row.defaults.window)?;
    let kind = match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    let reason = format!("transformers takes {kind} in all layers, by sliding_window");
    only_layers(fields, decoder.n_layers, kind, &reason)?;
    let decoder = DecoderConfig {
        sliding_window: window,
        ..decoder
    };
    Ok(decoder.into())
}

/// A window from `max_window_layers` on, where there is one at all.
pub(super) fn qwen3(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let window: Option<usize> = fields.or("sliding_window", row.defaults.window)?;
    let use_window: bool = fields.flag("use_sliding_window")?;
    let window = window.filter(|_| use_window);
    let first: usize = fields.or("max_window_layers", 28)?;
    let decoder = decoder(fields, row, "hidden_act")?;
    let is_local = |layer| window.is_some() && layer >= first;
    Ok(layered(decoder, fields, window, is_local)?.into())
}

pub(super) fn olmo2(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let decoder = decoder(fields, row, "hidden_act")?;
    only_full_layers(fields, decoder.n_layers)?;
    Ok(decoder.into())
}

/// What all architectures share: sizes, RMSNorm, a gated feed-forward layer, grouped-query attention with rotary positions, and the
/// norms where the table says.
pub(super) fn decoder(
    fields: &Fields<'_>,
    row: &'static Architecture,
    activation: &'static str,
) -> Result<DecoderConfig, InteropError> {
    fields.only("attention_dropout", 0.into(), "dropout is not implemented")?;
    let assumed = &row.defaults;
    let n_heads = fields.or("num_attention_heads", assumed.heads)?;
    let kv_heads: Option<usize> = fields.or("num_key_value_heads", assumed.kv_heads)?;
    let max_seq_len = fields.or("max_position_embeddings", assumed.positions)?;
    let (rope, local_rope) = match assumed.local_theta {
        None => (fields.rotary(assumed.rope_theta, max_seq_len)?, None),
        Some(local) => {
            let bases = [assumed.rope_theta, local];
            let (rope, local) = fields.rotary_by_kind(bases, max_seq_len)?;
            (rope, Some(local))
        }
    };
    Ok(DecoderConfig {
        n_kv_heads: kv_heads.unwrap_or(n_heads),
        head_dim: fields.or("head_dim", assumed.head_dim)?,
        d_ff: fields.or("intermediate_size", assumed.intermediate_size)?,
        max_seq_len,
        activation: gate(fields, activation)?,
        placement: Placement::of_row(row.placement),
        norm: NormStyle {
            epsilon: fields.or("rms_norm_eps", assumed.epsilon)?,
            ..NormStyle::default()
        },
        rope,
        local_rope,
        attention_bias: Some(fields.flag("attention_bias")?),
        tied: fields.or("tie_word_embeddings", assumed.tied)?,
        ..DecoderConfig::new(
            fields.or("vocab_size", assumed.vocab_size)?,
            fields.or("hidden_size", assumed.hidden_size)?,
            n_heads,
            fields.or("num_hidden_layers", assumed.layers)?,
        )
    })
}

/// Names in transformers' `ACT2FN` of what is on the gate, the one that is written first. Those in a row are the same function but for
/// rounding.
pub(super) const GATES: &[(Activation, &[&str])] = &[
    (Activation::SwiGlu, &["silu", "swish"]),
    (
        Activation::GeGlu,
        &[
            "gelu_pytorch_tanh",
            "gelu_new",
            "gelu_fast",
            "gelu_accurate",
            "gelu_python_tanh",
        ],
    ),
    (Activation::GeGluExact, &["gelu", "gelu_python"]),
    (Activation::ReGlu, &["relu"]),
];

/// The non-linearity on the gate.
fn gate(fields: &Fields<'_>, field: &'static str) -> Result<Activation, InteropError> {
    let assumed = match field {
        "hidden_act" => "silu",
        _ => "gelu_pytorch_tanh",
    };
    let name: String = fields.or(field, assumed.to_string())?;
    let mut gates = GATES.iter();
    match gates.find(|(_, names)| names.contains(&name.as_str())) {
        Some((activation, _)) => Ok(*activation),
        None => {
            let known: Vec<&str> = GATES
                .iter()
                .flat_map(|(_, names)| *names)
                .copied()
                .collect();
            let reason = format!("implemented on gates are {}", known.join(", "));
            unsupported(&fields.path(field), name, &reason)
        }
    }
}

/// `decoder` with a window in the layers that `layer_types` names, or else in those for which `is_local` says so.
pub(super) fn layered(
    decoder: DecoderConfig,
    fields: &Fields<'_>,
    window: Option<usize>,
    is_local: impl Fn(usize) -> bool,
) -> Result<DecoderConfig, InteropError> {
    let layers = decoder.n_layers;
    let local: Vec<bool> = match kinds_of_layers(fields, layers)? {
        None => (0..layers).map(is_local).collect(),
        Some(kinds) => {
            let kind = |kind: String| match kind.as_str() {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                other => {
                    let reason = "implemented are full_attention and sliding_attention";
                    unsupported(&fields.path("layer_types"), other, reason)
                }
            };
            kinds.into_iter().map(kind).collect::<Result<_, _>>()?
        }
    };
    if !local.contains(&true) {
        return Ok(DecoderConfig {
            local_rope: None,
            ..decoder
        });
    }
    if window.is_none() {
        let reason = "layers with sliding_attention need a window";
        return unsupported(&fields.path("sliding_window"), json!(null), reason);
    }
    Ok(DecoderConfig {
        sliding_window: window,
        global_layers: (0..layers).filter(|layer| !local[*layer]).collect(),
        ..decoder
    })
}

/// Refuses other layers than those with full attention.
pub(super) fn only_full_layers(fields: &Fields<'_>, layers: usize) -> Result<(), InteropError> {
    let reason = "this architecture has full_attention only";
    only_layers(fields, layers, "full_attention", reason)
}

/// Refuses other `layer_types` than `kind`, with `reason`.
fn only_layers(
    fields: &Fields<'_>,
    layers: usize,
    kind: &str,
    reason: &str,
) -> Result<(), InteropError> {
    let kinds = kinds_of_layers(fields, layers)?;
    match kinds.iter().flatten().find(|found| *found != kind) {
        Some(other) => unsupported(&fields.path("layer_types"), other, reason),
        None => Ok(()),
    }
}

/// `layer_types`, one for each of the `layers`.
fn kinds_of_layers(
    fields: &Fields<'_>,
    layers: usize,
) -> Result<Option<Vec<String>>, InteropError> {
    let kinds: Option<Vec<String>> = fields.get("layer_types")?;
    match kinds {
        Some(kinds) if kinds.len() != layers => {
            let reason = format!("num_hidden_layers is {layers}");
            let value = format!("{} entries", kinds.len());
            unsupported(&fields.path("layer_types"), value, &reason)
        }
        kinds => Ok(kinds),
    }
}
