//! The fields of the mixture-of-experts release.

use std::collections::BTreeMap;

use hybridnorm_core::{Activation, DecoderConfig};
use hybridnorm_moe::{LossConfig, LossConvention, RouterConfig, SparseConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{InteropError, unsupported};

/// The fields of `ModelConfig` that begin with `moe_`; `None` where one is `null`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct SparseFields {
    #[serde(default = "eight")]
    pub moe_num_experts: Option<usize>,
    #[serde(default = "two")]
    pub moe_top_k: Option<usize>,
    #[serde(default)]
    pub moe_normalize_expert_weights: Option<Value>,
    #[serde(default)]
    pub moe_shared_expert: Option<bool>,
    #[serde(default = "tenth")]
    pub moe_loss_weight: Option<f64>,
    #[serde(default)]
    pub moe_zloss_weight: Option<f64>,
    #[serde(default = "yes")]
    pub moe_dropless: Option<bool>,
    /// Every other field, those of dense models included.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

fn eight() -> Option<usize> {
    Some(8)
}
fn two() -> Option<usize> {
    Some(2)
}
fn tenth() -> Option<f64> {
    Some(0.1)
}
fn yes() -> Option<bool> {
    Some(true)
}

/// Fields that change nothing here: which kernel runs, what is logged, what happens under autocast, the capacity of a layer that is
/// dropless.
const WITHOUT_EFFECT: [&str; 4] = [
    "moe_mlp_impl",
    "moe_log_expert_assignment",
    "moe_lbl_in_fp32",
    "moe_capacity_factor",
];

impl SparseFields {
    /// The sparse layers of a model that is `decoder` otherwise; each expert has the inner width of its dense layer.
    pub(super) fn to_sparse(&self, decoder: &DecoderConfig) -> Result<SparseConfig, InteropError> {
        let off = |value: &Value| *value == Value::Null || *value == Value::Bool(false);
        let unknown = self.others.iter().find(|(field, value)| {
            let known = WITHOUT_EFFECT.contains(&field.as_str());
            field.starts_with("moe_") && !known && !off(value)
        });
        if let Some((field, value)) = unknown {
            return unsupported(field, value, "the release has no such field");
        }
        if self.moe_dropless != Some(true) {
            let reason = "megablocks' layer with a capacity has experts without gates, and drops by position";
            return unsupported("moe_dropless", "false", reason);
        }
        if decoder.activation != Activation::SwiGlu {
            let reason = "the experts here are SwiGLU layers";
            return unsupported("activation_type", decoder.activation, reason);
        }
        let (Some(n_experts), Some(top_k)) = (self.moe_num_experts, self.moe_top_k) else {
            return unsupported("moe_num_experts, moe_top_k", "null", "both are needed");
        };
        let router = RouterConfig {
            renormalize: self.renormalizes()?,
            ..RouterConfig::new(n_experts, top_k)
        };
        let shared = self.moe_shared_expert == Some(true);
        Ok(SparseConfig {
            router,
            shared_d_ff: shared.then_some(decoder.d_ff),
            losses: LossConfig {
                convention: LossConvention::Authors,
                balance: self.moe_loss_weight.unwrap_or(0.0),
                z: self.moe_zloss_weight.unwrap_or(0.0),
            },
            ..SparseConfig::new(n_experts, top_k, decoder.d_ff)
        })
    }

    /// The order of the norm that weights are divided by: none, or the first, which is their sum.
    fn renormalizes(&self) -> Result<bool, InteropError> {
        match &self.moe_normalize_expert_weights {
            None | Some(Value::Null | Value::Bool(false)) => Ok(false),
            Some(order) if order.as_f64() == Some(0.0) => Ok(false),
            Some(order) if order.as_f64() == Some(1.0) => Ok(true),
            Some(order) => {
                let reason = "weights are divided by their sum (1) or not at all (null)";
                unsupported("moe_normalize_expert_weights", order, reason)
            }
        }
    }
}
