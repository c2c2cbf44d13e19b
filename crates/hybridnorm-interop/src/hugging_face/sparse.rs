//! Mixtral, OLMoE, Qwen3-MoE (transformers 5.24, `models/{mixtral,olmoe,qwen3_moe}/modeling_*.py`).

use hybridnorm_core::DecoderConfig;
use hybridnorm_moe::{
    LossConfig, LossConvention, ModelConfig, RouterConfig, SparseConfig, SparseLayers,
};

use super::architectures::Architecture;
use super::dense::{decoder, only_full_layers};
use super::fields::Fields;
use crate::error::{InteropError, unsupported};

type Model = Result<ModelConfig, InteropError>;

/// Weights of the chosen experts always sum to one.
pub(super) fn mixtral(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let reason = "it multiplies the experts' input too, in training";
    fields.only("router_jitter_noise", 0.into(), reason)?;
    let decoder = DecoderConfig {
        sliding_window: fields.or("sliding_window", row.defaults.window)?,
        ..decoder(fields, row, "hidden_act")?
    };
    if decoder.attention_bias == Some(true) {
        return unsupported("attention_bias", true, "Mixtral has none");
    }
    only_full_layers(fields, decoder.n_layers)?;
    let assumed = Assumed {
        experts: 8,
        top_k: 2,
        balance: 0.001,
    };
    let sparse = sparse(fields, true, decoder.d_ff, &assumed)?;
    Ok(with_experts(decoder, Some(sparse)))
}

/// Queries and keys are clamped behind their norms, values too.
pub(super) fn olmoe(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let clip_qkv: Option<f64> = fields.get("clip_qkv")?;
    let decoder = DecoderConfig {
        clip_qkv,
        clip_normed: clip_qkv.is_some(),
        ..decoder(fields, row, "hidden_act")?
    };
    only_full_layers(fields, decoder.n_layers)?;
    let assumed = Assumed {
        experts: 64,
        top_k: 8,
        balance: 0.01,
    };
    let renormalize = fields.flag("norm_topk_prob")?;
    let sparse = sparse(fields, renormalize, decoder.d_ff, &assumed)?;
    Ok(with_experts(decoder, Some(sparse)))
}

/// Layers may be dense; a window is in all of them, whatever `max_window_layers` says: transformers does not read it.
pub(super) fn qwen3_moe(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let window: Option<usize> = fields.or("sliding_window", row.defaults.window)?;
    let use_window = fields.flag("use_sliding_window")?;
    let _: Option<usize> = fields.get("max_window_layers")?;
    let decoder = DecoderConfig {
        sliding_window: window.filter(|_| use_window),
        ..decoder(fields, row, "hidden_act")?
    };
    only_full_layers(fields, decoder.n_layers)?;
    let every: usize = fields.or("decoder_sparse_step", 1)?;
    let dense: Option<Vec<usize>> = fields.get("mlp_only_layers")?;
    let dense = dense.unwrap_or_default();
    if every == 0 {
        return unsupported("decoder_sparse_step", every, "from 1");
    }
    let is_sparse = |layer: &usize| (layer + 1).is_multiple_of(every) && !dense.contains(layer);
    let layers: Vec<usize> = (0..decoder.n_layers).filter(is_sparse).collect();
    let d_ff = fields.or("moe_intermediate_size", 768)?;
    let assumed = Assumed {
        experts: 128,
        top_k: 8,
        balance: 0.001,
    };
    let sparse = sparse(fields, fields.flag("norm_topk_prob")?, d_ff, &assumed)?;
    let sparse = match layers.len() {
        0 => None,
        n if n == decoder.n_layers => Some(sparse),
        _ => Some(SparseConfig {
            layers: SparseLayers::Only(layers),
            ..sparse
        }),
    };
    Ok(with_experts(decoder, sparse))
}

/// What transformers assumes where a configuration says nothing.
struct Assumed {
    experts: usize,
    top_k: usize,
    balance: f64,
}

fn sparse(
    fields: &Fields<'_>,
    renormalize: bool,
    d_ff: usize,
    assumed: &Assumed,
) -> Result<SparseConfig, InteropError> {
    let n_experts = fields.first(&["num_local_experts", "num_experts"], assumed.experts)?;
    let top_k = fields.or("num_experts_per_tok", assumed.top_k)?;
    Ok(SparseConfig {
        router: RouterConfig {
            renormalize,
            ..RouterConfig::new(n_experts, top_k)
        },
        losses: LossConfig {
            convention: LossConvention::HuggingFace,
            balance: fields.or("router_aux_loss_coef", assumed.balance)?,
            z: 0.0,
        },
        ..SparseConfig::new(n_experts, top_k, d_ff)
    })
}

/// Experts have the non-linearity that dense layers have.
fn with_experts(decoder: DecoderConfig, sparse: Option<SparseConfig>) -> ModelConfig {
    let activation = decoder.activation;
    let sparse = sparse.map(|sparse| SparseConfig {
        activation,
        ..sparse
    });
    ModelConfig { decoder, sparse }
}
