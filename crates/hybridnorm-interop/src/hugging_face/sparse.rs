//! Mixtral, OLMoE, Qwen3-MoE (transformers 5.23, `models/{mixtral,olmoe,qwen3_moe}/modeling_*.py`).

use hybridnorm_core::{DecoderConfig, NormSite, QkvNormSites};
use hybridnorm_moe::{
    LossConfig, LossConvention, ModelConfig, RouterConfig, SparseConfig, SparseLayers,
};

use super::fields::Fields;
use super::{Defaults, llama_like};
use crate::error::{InteropError, unsupported};

/// Weights of the chosen experts always sum to one.
pub(super) fn mixtral(fields: &Fields<'_>) -> Result<ModelConfig, InteropError> {
    let defaults = Defaults {
        rope_theta: 1e6,
        epsilon: 1e-5,
    };
    let reason = "it multiplies the experts' input too, in training";
    fields.only("router_jitter_noise", 0.into(), reason)?;
    let decoder = DecoderConfig {
        sliding_window: fields.get("sliding_window")?,
        ..llama_like(fields, &defaults, QkvNormSites::NONE)?
    };
    let d_ff = decoder.d_ff;
    let sparse = sparse(fields, true, d_ff, 0.001)?;
    all_sparse(decoder, sparse)
}

/// Queries and keys are normalised over their full width, and clamped after that.
pub(super) fn olmoe(fields: &Fields<'_>) -> Result<ModelConfig, InteropError> {
    let defaults = Defaults {
        rope_theta: 1e4,
        epsilon: 1e-5,
    };
    let qk = QkvNormSites::at("qk", NormSite::FULL_WIDTH);
    let clip_qkv: Option<f64> = fields.get("clip_qkv")?;
    let decoder = DecoderConfig {
        clip_qkv,
        clip_normed: clip_qkv.is_some(),
        ..llama_like(fields, &defaults, qk)?
    };
    let d_ff = decoder.d_ff;
    let sparse = sparse(fields, fields.or("norm_topk_prob", false)?, d_ff, 0.01)?;
    all_sparse(decoder, sparse)
}

/// Queries and keys are normalised per head; layers may be dense.
pub(super) fn qwen3_moe(fields: &Fields<'_>) -> Result<ModelConfig, InteropError> {
    let defaults = Defaults {
        rope_theta: 1e4,
        epsilon: 1e-6,
    };
    let window: Option<usize> = fields.get("sliding_window")?;
    let use_window = fields.or("use_sliding_window", false)?;
    let full_layers: usize = fields.or("max_window_layers", 0)?;
    if use_window && full_layers != 0 {
        let reason = "a window is in all layers here, or in none";
        return unsupported("max_window_layers", full_layers, reason);
    }
    let decoder = DecoderConfig {
        sliding_window: window.filter(|_| use_window),
        ..llama_like(fields, &defaults, QkvNormSites::per_head("qk"))?
    };
    let every: usize = fields.or("decoder_sparse_step", 1)?;
    let dense: Vec<usize> = fields.or("mlp_only_layers", Vec::new())?;
    if every == 0 {
        return unsupported("decoder_sparse_step", every, "from 1");
    }
    let is_sparse = |layer: &usize| (layer + 1).is_multiple_of(every) && !dense.contains(layer);
    let layers: Vec<usize> = (0..decoder.n_layers).filter(is_sparse).collect();
    let d_ff = fields.one_of(&["moe_intermediate_size"])?;
    let sparse = sparse(fields, fields.or("norm_topk_prob", false)?, d_ff, 0.001)?;
    let sparse = match layers.len() {
        0 => None,
        n if n == decoder.n_layers => Some(sparse),
        _ => Some(SparseConfig {
            layers: SparseLayers::Only(layers),
            ..sparse
        }),
    };
    with_bias_of_attention(ModelConfig { decoder, sparse })
}

fn sparse(
    fields: &Fields<'_>,
    renormalize: bool,
    d_ff: usize,
    coefficient: f64,
) -> Result<SparseConfig, InteropError> {
    let n_experts = fields.one_of(&["num_local_experts", "num_experts"])?;
    let top_k = fields.one_of(&["num_experts_per_tok"])?;
    Ok(SparseConfig {
        router: RouterConfig {
            renormalize,
            ..RouterConfig::new(n_experts, top_k)
        },
        losses: LossConfig {
            convention: LossConvention::HuggingFace,
            balance: fields.or("router_aux_loss_coef", coefficient)?,
            z: 0.0,
        },
        ..SparseConfig::new(n_experts, top_k, d_ff)
    })
}

fn all_sparse(decoder: DecoderConfig, sparse: SparseConfig) -> Result<ModelConfig, InteropError> {
    let sparse = Some(sparse);
    with_bias_of_attention(ModelConfig { decoder, sparse })
}

/// Refuses biases where a [`DecoderConfig`] would put them in more places than the file has them: it knows biases everywhere or
/// nowhere, and these architectures have them in attention only.
fn with_bias_of_attention(model: ModelConfig) -> Result<ModelConfig, InteropError> {
    let everywhere = model.sparse.as_ref().map(|sparse| &sparse.layers);
    let elsewhere = !model.decoder.tied || everywhere != Some(&SparseLayers::All);
    if model.decoder.bias && elsewhere {
        let reason =
            "biases in attention alone are not implemented beside dense layers or an untied head";
        return unsupported("attention_bias", true, reason);
    }
    Ok(model)
}
