//! The model whose parameters have certain names and shapes.

use std::collections::BTreeMap;

use hybridnorm_interop::InteropError;
use hybridnorm_interop::official::OfficialConfig;
use serde_json::{Value, json};

use super::malformed;

/// The configuration of the authors' model that has the parameters `named`, each with its shape, or an empty one where only the names
/// are known: then its sizes are small ones. `more` holds further fields.
///
/// # Errors
/// When no model has these parameters.
pub(super) fn official_of(
    named: &BTreeMap<&str, &[usize]>,
    more: Value,
) -> Result<OfficialConfig, InteropError> {
    let number = |name: &&str| -> Option<usize> {
        let rest = name.strip_prefix("transformer.blocks.")?;
        rest.split_once('.')?.0.parse().ok()
    };
    let last = named.keys().filter_map(number).max();
    let last = last.ok_or_else(|| malformed("names of parameters"))?;
    let has = |layer: usize, part: &str| {
        named.contains_key(format!("transformer.blocks.{layer}.{part}.weight").as_str())
    };
    let size = |name: &str, dimension: usize, otherwise: usize| {
        let shape = named.get(format!("transformer.{name}").as_str());
        let size = shape.and_then(|shape| shape.get(dimension));
        size.copied().unwrap_or(otherwise)
    };
    let d_model = size("wte.weight", 1, 16);
    let mut head_dim = None;
    for norm in ["q_norm", "k_norm", "v_norm", "c_norm"] {
        let shape = named.get(format!("transformer.blocks.0.{norm}.weight").as_str());
        head_dim = head_dim.or(shape.and_then(|shape| shape.first().copied()));
    }
    // Without norms inside attention nothing tells; initialisation does not depend on it.
    let head_dim = head_dim.unwrap_or(d_model.min(64)).max(1);
    let qkv = size("blocks.0.att_proj.weight", 0, 3 * d_model);
    let norm_of = |norm: &str, layer: usize| has(layer, norm);
    let special: Vec<String> = (0..last)
        .map(|layer| {
            let python = |on| if on { "True" } else { "False" };
            let (attn, ffn) = (norm_of("attn_norm", layer), norm_of("ff_norm", layer));
            format!(
                "{layer}:{{'attn_norm':{},'ffn_norm':{}}}",
                python(attn),
                python(ffn)
            )
        })
        .collect();
    let sparse = named.keys().any(|name| name.contains(".ffn.experts."));
    let experts = size("blocks.0.ffn.router.layer.weight", 0, 4);
    let hidden = match sparse {
        true => size("blocks.0.ffn.experts.mlp.w1", 0, 8 * experts) / experts.max(1) * 2,
        false => size("blocks.0.ff_proj.weight", 0, 16),
    };
    let gated = size("blocks.0.ff_out.weight", 1, hidden / 2) * 2 == hidden;
    let mut config = json!({
        "d_model": d_model, "n_heads": d_model / head_dim, "n_layers": last + 1,
        "n_kv_heads": qkv.saturating_sub(d_model) / (2 * head_dim), "mlp_hidden_size": hidden,
        "activation_type": if gated { "swiglu" } else { "gelu" },
        "block_type": if sparse { "moe" } else { "sequential" }, "moe_num_experts": experts, "moe_top_k": 1,
        "moe_shared_expert": named.keys().any(|name| name.contains(".shared_expert.")),
        "rope": true, "include_bias": named.keys().any(|name| name.ends_with("att_proj.bias")),
        "bias_for_layer_norm": named.keys().any(|name| name.ends_with("ln_f.bias")),
        "layer_norm_type": "rms", "vocab_size": size("wte.weight", 0, 32),
        "use_query_norm": has(0, "q_norm"), "use_key_norm": has(0, "k_norm"), "use_value_norm": has(0, "v_norm"),
        "use_context_norm": has(0, "c_norm"), "attn_norm": has(last, "attn_norm"), "ffn_norm": has(last, "ff_norm"),
        "norm_pos_special_config": format!("{{{}}}", special.join(",")),
        "weight_tying": !named.contains_key("transformer.ff_out.weight"),
    });
    if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
        config.extend(more.clone());
    }
    serde_json::from_value(config).map_err(|_| malformed("names of parameters"))
}
