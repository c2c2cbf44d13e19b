//! AdamW on one parameter, as PyTorch computes it.
//!
//! Why not `burn_optim`'s: clipping there is per tensor, the learner does not give its optimiser's state back, and
//! β and bias corrections are rounded to f32 before use.

use hybridnorm_kernels::AdamWStep;
use serde::{Deserialize, Serialize};

use super::groups::GroupRule;

/// Hyperparameters of AdamW. The defaults are the paper's Table 10 and the released dense configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// β₁, decay of the first moment.
    pub beta1: f64,
    /// β₂, decay of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the bias-corrected second moment.
    pub epsilon: f64,
    /// Decoupled weight decay: p ← p·(1 − lr·decay).
    pub weight_decay: f64,
    /// Norm weights and biases decay too (true in both released configurations).
    pub decay_norm_and_bias: bool,
    /// The embedding decays too (false in the dense release, true in the sparse one).
    pub decay_embeddings: bool,
    /// Gradients are scaled so that their global norm over all parameters is at most this.
    pub max_grad_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            decay_norm_and_bias: true,
            decay_embeddings: false,
            max_grad_norm: 1.0,
        }
    }
}

impl AdamWConfig {
    /// Which parameters decay.
    pub fn groups(&self) -> GroupRule {
        GroupRule {
            decay_norm_and_bias: self.decay_norm_and_bias,
            decay_embeddings: self.decay_embeddings,
        }
    }

    /// Step number `t`, counted from 1, on gradients that are multiplied by `scale` first.
    ///
    /// With g the scaled gradient: p ← p·(1 − lr·decay); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
    /// p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
    pub(super) fn step(&self, t: u64, lr: f64, scale: f64) -> AdamWStep {
        let t = t as f64;
        AdamWStep {
            scale,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            keep: 1.0 - lr * self.weight_decay,
            rate: lr / (1.0 - self.beta1.powf(t)),
            root_correction: (1.0 - self.beta2.powf(t)).sqrt(),
        }
    }
}
