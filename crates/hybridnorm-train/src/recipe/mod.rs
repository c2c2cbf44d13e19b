//! The training recipe (paper.md §3.3): parameter groups, AdamW, learning-rate schedule, global-norm clipping.

mod adamw;
mod clip;
mod groups;
mod schedule;

use serde::{Deserialize, Serialize};

pub use adamw::{AdamW, Moments};
pub use clip::{GradientNorms, clip_coefficient};
pub use groups::{GroupRule, ParamInfo, ParamKind, params};
pub use schedule::{Schedule, ScheduleShape};

/// Hyperparameters of the optimiser. The defaults are the paper's Table 10 and the released dense configuration.
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
}
