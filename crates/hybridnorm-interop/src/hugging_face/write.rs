//! From a model back to a `config.json`: the same rows of the table as reading, the other way.
//!
//! A row writes what it can say of a model. Whether that is the whole of it is decided by reading it again: a model is one of theirs
//! exactly where it comes back as the same function.

use hybridnorm_core::DecoderConfig;
use hybridnorm_core::attention::rope::{RopeScaling, RotaryConfig};
use hybridnorm_moe::ModelConfig;
use serde_json::{Map, Value, json};

use super::architectures::{ARCHITECTURES, Architecture};
use super::dense::GATES;
use super::{Imported, hybridnorm, import};
use crate::error::{InteropError, unsupported};

/// A model as a `config.json`, and what its tensors are called.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The contents of `config.json` that describe the model.
    pub config: Map<String, Value>,
    /// The row of the table, the model as it is read again, and the names.
    pub imported: Imported,
}

/// The architecture of transformers that computes what `model` computes: the one called `first` if it does, or else the first of the table.
///
/// # Errors
/// When there is none: says what stands against the closest ones.
pub fn theirs(model: &ModelConfig, first: Option<&str>) -> Result<Exported, InteropError> {
    let wanted = hybridnorm::computed(model)?;
    let c = &model.decoder;
    let mut misses: Vec<(usize, String)> = Vec::new();
    let mut rows: Vec<&'static Architecture> = ARCHITECTURES.iter().collect();
    rows.sort_by_key(|row| Some(row.model_type) != first);
    for row in rows {
        let Some(write) = row.write else {
            continue;
        };
        if row.whole_heads && !c.d_model.is_multiple_of(c.n_heads) {
            let (name, width, heads) = (row.model_type, c.d_model, c.n_heads);
            let miss = format!(
                "{name} wants a hidden_size that is a multiple of its {heads} heads, not {width}"
            );
            misses.push((usize::MAX, miss));
            continue;
        }
        let config = write(model, row);
        let imported = match import(&config) {
            Ok(imported) => imported,
            Err(error) => {
                misses.push((usize::MAX, format!("{}: {error}", row.model_type)));
                continue;
            }
        };
        let found = hybridnorm::computed(&imported.model)?;
        let differing: Vec<&str> = wanted
            .iter()
            .filter(|(field, value)| found.get(*field) != Some(value))
            .map(|(field, _)| field.as_str())
            .collect();
        if differing.is_empty() {
            return Ok(Exported { config, imported });
        }
        let fields = differing.join(", ");
        misses.push((
            differing.len(),
            format!("{} has other {fields}", row.model_type),
        ));
    }
    misses.sort();
    let closest: Vec<String> = misses.into_iter().take(3).map(|(_, miss)| miss).collect();
    let reason = format!(
        "no architecture of transformers computes it: {}",
        closest.join("; ")
    );
    unsupported("placement", &model.decoder.placement, &reason)
}

/// `model` in this project's own format, which expresses every one.
///
/// # Errors
/// When the configuration is not allowed.
pub fn ours(model: &ModelConfig) -> Result<Exported, InteropError> {
    let mut config = hybridnorm::write(model)?;
    config.insert("model_type".to_string(), hybridnorm::MODEL_TYPE.into());
    let imported = import(&config)?;
    Ok(Exported { config, imported })
}

pub(super) type Write = fn(&ModelConfig, &Architecture) -> Map<String, Value>;

/// What most architectures have in common, in the spelling that transformers 4 and 5 both read.
fn common(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let mut config = Map::new();
    let mut put = |name: &str, value: Value| config.insert(name.to_string(), value);
    put("model_type", row.model_type.into());
    put("vocab_size", c.padded_vocab_size.into());
    put("hidden_size", c.d_model.into());
    put("intermediate_size", c.d_ff.into());
    put("num_hidden_layers", c.n_layers.into());
    put("num_attention_heads", c.n_heads.into());
    put("num_key_value_heads", c.n_kv_heads.into());
    if row.defaults.head_dim.is_some() || c.head_dim() * c.n_heads != c.d_model {
        put("head_dim", c.head_dim().into());
    }
    put("max_position_embeddings", c.max_seq_len.into());
    put("rms_norm_eps", c.norm.epsilon.into());
    put("rope_theta", c.rope.theta.into());
    put("rope_scaling", scaling(&c.rope));
    put("attention_bias", c.attention(0).bias.into());
    put("attention_dropout", 0.0.into());
    put("tie_word_embeddings", c.tied.into());
    put("hidden_act", gate(model).into());
    config
}

/// What is on the gates of experts, or else of dense layers, by its name in transformers' `ACT2FN`. Layers without a gate have no name there:
/// with that of another one, reading it again shows that they differ.
fn gate(model: &ModelConfig) -> &'static str {
    let activation = match &model.sparse {
        Some(sparse) => sparse.activation,
        None => model.decoder.activation,
    };
    let mut gates = GATES.iter();
    let found = gates.find(|(known, _)| *known == activation);
    found.map_or("silu", |(_, names)| names[0])
}

fn scaling(rope: &RotaryConfig) -> Value {
    match &rope.scaling {
        None => Value::Null,
        Some(RopeScaling::Linear(linear)) => {
            json!({"rope_type": "linear", "factor": linear.factor})
        }
        Some(RopeScaling::Llama3(llama)) => json!({
            "rope_type": "llama3",
            "factor": llama.factor,
            "low_freq_factor": llama.low_freq_factor,
            "high_freq_factor": llama.high_freq_factor,
            "original_max_position_embeddings": whole(llama.original_max_position),
        }),
        Some(RopeScaling::Yarn(yarn)) => json!({
            "rope_type": "yarn",
            "factor": yarn.factor,
            "original_max_position_embeddings": whole(yarn.original_max_position),
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "attention_factor": yarn.attention_factor,
            "truncate": yarn.truncate,
        }),
    }
}

/// A count of tokens, which transformers wants to be a whole number.
fn whole(tokens: f64) -> Value {
    match tokens.fract() == 0.0 && (0.0..1e15).contains(&tokens) {
        true => (tokens as u64).into(),
        false => tokens.into(),
    }
}

/// `layer_types`.
fn kinds(c: &DecoderConfig) -> Value {
    let kind = |layer| match c.window(layer) {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    (0..c.n_layers).map(kind).collect()
}

fn with(mut config: Map<String, Value>, more: Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        config.extend(more);
    }
    config
}

pub(super) fn llama(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let bias = model.decoder.feed_forward().bias;
    with(common(model, row), json!({"mlp_bias": bias}))
}

pub(super) fn mistral(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let window = model.decoder.sliding_window;
    with(common(model, row), json!({"sliding_window": window}))
}

pub(super) fn olmo2(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    common(model, row)
}

pub(super) fn qwen3(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let more = json!({
        "sliding_window": c.sliding_window,
        "use_sliding_window": c.sliding_window.is_some(),
        "layer_types": kinds(c),
    });
    with(common(model, row), more)
}

pub(super) fn mixtral(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let window = model.decoder.sliding_window;
    with(
        experts(model, row, "num_local_experts"),
        json!({"sliding_window": window}),
    )
}

pub(super) fn olmoe(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let clip = model.decoder.clip_qkv;
    with(
        experts(model, row, "num_experts"),
        json!({"clip_qkv": clip}),
    )
}

pub(super) fn qwen3_moe(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let dense = (0..c.n_layers).filter(|layer| model.sparse_at(*layer).is_none());
    let more = json!({
        "intermediate_size": c.d_ff,
        "moe_intermediate_size": model.sparse.as_ref().map(|sparse| sparse.d_ff),
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense.collect::<Vec<_>>(),
        "sliding_window": c.sliding_window,
        "use_sliding_window": c.sliding_window.is_some(),
    });
    with(experts(model, row, "num_experts"), more)
}

/// What architectures with experts have in common; `count` is what they call the number of experts.
fn experts(model: &ModelConfig, row: &Architecture, count: &str) -> Map<String, Value> {
    let config = common(model, row);
    let Some(sparse) = &model.sparse else {
        return config;
    };
    let more = json!({
        count: sparse.router.n_experts,
        "num_experts_per_tok": sparse.router.top_k,
        "norm_topk_prob": sparse.router.renormalize,
        "router_aux_loss_coef": sparse.losses.balance,
        "intermediate_size": sparse.d_ff,
    });
    let mut config = with(config, more);
    if row.model_type == "mixtral" {
        // Its weights always sum to one; it has no such field.
        config.remove("norm_topk_prob");
    }
    config
}

pub(super) fn gemma2(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let more = json!({
        "attn_logit_softcapping": c.attention_softcap,
        "final_logit_softcapping": c.logit_softcap,
    });
    with(gemma(model, row), more)
}

pub(super) fn gemma3(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let local = c.local_rope.as_ref().unwrap_or(&c.rope);
    let mut config = gemma(model, row);
    config.insert("final_logit_softcapping".into(), json!(c.logit_softcap));
    if local.scaling.is_none() {
        config.insert("rope_local_base_freq".into(), local.theta.into());
        return config;
    }
    // The older spelling has no word for it.
    config.remove("rope_theta");
    config.remove("rope_scaling");
    let kinds =
        json!({"full_attention": parameters(&c.rope), "sliding_attention": parameters(local)});
    config.insert("rope_parameters".into(), kinds);
    config
}

/// A table of `rope_parameters`.
fn parameters(rope: &RotaryConfig) -> Value {
    let mut table = json!({"rope_type": "default", "rope_theta": rope.theta});
    if let (Value::Object(table), Value::Object(scaling)) = (&mut table, scaling(rope)) {
        table.extend(scaling);
    }
    table
}

fn gemma(model: &ModelConfig, row: &Architecture) -> Map<String, Value> {
    let c = &model.decoder;
    let scale = c
        .softmax_scale
        .unwrap_or(1.0 / (c.head_dim() as f64).sqrt());
    // A whole number there; where the scale is of another one, reading it again shows.
    let scalar = scale.powi(-2).round();
    let more = json!({
        "hidden_activation": gate(model),
        "query_pre_attn_scalar": scalar as u64,
        // transformers asks for one even where no layer has it.
        "sliding_window": c.sliding_window.unwrap_or(c.max_seq_len),
        "layer_types": kinds(c),
    });
    let mut config = with(common(model, row), more);
    config.remove("hidden_act");
    config
}
