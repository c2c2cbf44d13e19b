//! Muon (Keller Jordan, 2024, <https://kellerjordan.github.io/posts/muon/>): momentum, made orthogonal, as the step of a matrix.
//!
//! Why not `burn_optim`'s: its aspect ratio is shape[0]/shape[1], which is out/in for PyTorch's `[out, in]`, but in/out for the
//! `[in, out]` that `Linear` stores; it takes no experts and no fused projections apart; and it keeps its state to itself.

use core::fmt;

use burn::tensor::Tensor;
use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use super::names::named;

/// a, b, c of the quintic x ↦ ax + bx³ + cx⁵, chosen by its author for the steepest slope at 0. Five rounds bring every
/// singular value from 0.003 to 1 into 0.68 to 1.21, but not to 1.
const QUINTIC: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// A Frobenius norm below this counts as this.
const SMALLEST_NORM: f64 = 1e-7;

/// Hyperparameters of Muon, for the matrices of a model. Weight decay is AdamW's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// μ, decay of the momentum.
    pub momentum: f64,
    /// Nesterov's momentum: the step looks one gradient ahead.
    pub nesterov: bool,
    /// Rounds of the Newton-Schulz iteration that makes a matrix orthogonal.
    pub newton_schulz_steps: usize,
    /// How the shape of a matrix scales its step.
    pub scale: MuonScale,
    /// Learning rate of the matrices, as a multiple of the schedule's.
    pub lr_multiple: f64,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            momentum: 0.95,
            nesterov: true,
            newton_schulz_steps: 5,
            scale: MuonScale::RmsMatch,
            lr_multiple: 1.0,
        }
    }
}

/// How the shape of a matrix scales its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MuonScale {
    /// √max(1, out/in): one spectral norm for all matrices.
    Spectral,
    /// 0.2·√max(in, out): the root mean square of a step of AdamW.
    RmsMatch,
}

named! { MuonScale, "optimizer.muon.scale":
    "spectral" Spectral "√max(1, out/in), as its author has it: wants a learning rate of its own (`lr_multiple`), about 0.02",
    "rms-match" RmsMatch "0.2·√max(in, out), as Moonlight has it (arXiv 2502.16982): AdamW's learning rate fits",
}

impl MuonScale {
    /// The factor for a matrix `[inputs, outputs]`, which is how `Linear` stores it.
    pub fn factor(self, inputs: usize, outputs: usize) -> f64 {
        let (inputs, outputs) = (inputs as f64, outputs as f64);
        match self {
            Self::Spectral => (outputs / inputs).max(1.0).sqrt(),
            Self::RmsMatch => 0.2 * inputs.max(outputs).sqrt(),
        }
    }
}

impl MuonConfig {
    /// Refuses what cannot be stepped with.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(0.0..1.0).contains(&self.momentum) {
            let (field, allowed) = ("optimizer.muon.momentum", "at least 0 and below 1");
            return Err(ConfigError::new(field, self.momentum, allowed));
        }
        if !(1..100).contains(&self.newton_schulz_steps) {
            let field = "optimizer.muon.newton_schulz_steps";
            let value = self.newton_schulz_steps;
            return Err(ConfigError::new(field, value, "from 1 to 99"));
        }
        if !(self.lr_multiple.is_finite() && self.lr_multiple > 0.0) {
            let (field, allowed) = ("optimizer.muon.lr_multiple", "a finite number above 0");
            return Err(ConfigError::new(field, self.lr_multiple, allowed));
        }
        Ok(())
    }

    /// The matrix and its momentum after one step at learning rate `lr`, the schedule's. With g the gradient times `grad_scale`:
    /// m ← μm + (1−μ)g; u = μm + (1−μ)g (Nesterov) or m; p ← p·(1 − lr·decay) − lr·factor·orthogonal(u).
    ///
    /// `columns` are the widths of the matrices that stand side by side in one tensor; each is a matrix of its own.
    ///
    /// # Shapes
    /// - all tensors `[in, out]`, or `[experts, in, out]`, where each expert's matrix is one of its own
    pub(super) fn step<const D: usize>(
        &self,
        weight: Tensor<D>,
        grad: Tensor<D>,
        momentum: Tensor<D>,
        columns: &[usize],
        at: MuonStep,
    ) -> (Tensor<D>, Tensor<D>) {
        let lr = at.lr * self.lr_multiple;
        let fresh = grad * (at.grad_scale * (1.0 - self.momentum));
        let momentum = momentum * self.momentum + fresh.clone();
        let update = match self.nesterov {
            true => momentum.clone() * self.momentum + fresh,
            false => momentum.clone(),
        };
        let step = self.orthogonal(update, columns) * lr;
        let weight = weight * (1.0 - lr * at.weight_decay) - step;
        (weight, momentum)
    }

    /// Each matrix made orthogonal and scaled by its shape.
    fn orthogonal<const D: usize>(&self, update: Tensor<D>, columns: &[usize]) -> Tensor<D> {
        let shape = update.dims();
        let (inputs, outputs) = (shape[D - 2], shape[D - 1]);
        let matrices: usize = shape[..D - 2].iter().product();
        let update = update.reshape([matrices, inputs, outputs]);
        let mut start = 0;
        let parts: Vec<Tensor<3>> = columns
            .iter()
            .map(|width| {
                let part = update.clone().narrow(2, start, *width);
                start += width;
                let factor = self.scale.factor(inputs, *width);
                orthogonalize(part, self.newton_schulz_steps) * factor
            })
            .collect();
        Tensor::cat(parts, 2).reshape(shape)
    }
}

impl fmt::Display for MuonConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nesterov = if self.nesterov { " Nesterov" } else { "" };
        let (steps, scale) = (self.newton_schulz_steps, self.scale);
        write!(
            f,
            "Muon({}{nesterov}, {steps} rounds, {scale}",
            self.momentum
        )?;
        match self.lr_multiple {
            1.0 => f.write_str(")"),
            multiple => write!(f, ", {multiple} x the learning rate)"),
        }
    }
}

/// What changes from one step to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct MuonStep {
    /// On the gradient: averaging over micro-batches times clipping.
    pub grad_scale: f64,
    /// The schedule's learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Matrices with their singular values brought near 1: U·S·Vᵀ to about U·Vᵀ, by `steps` rounds of
/// X ← aX + (bXXᵀ + c(XXᵀ)²)X from X over its Frobenius norm.
///
/// # Shapes
/// - input and output `[matrices, in, out]`
pub fn orthogonalize(x: Tensor<3>, steps: usize) -> Tensor<3> {
    let (a, b, c) = QUINTIC;
    let [_, inputs, outputs] = x.dims();
    // XXᵀ is the smaller of the two products where X is wide, and the iteration commutes with transposition.
    let tall = inputs > outputs;
    let mut x = if tall { x.swap_dims(1, 2) } else { x };
    let norm = x.clone().square().sum_dim(2).sum_dim(1).sqrt();
    x = x / norm.clamp_min(SMALLEST_NORM);
    for _ in 0..steps {
        let gram = x.clone().matmul(x.clone().swap_dims(1, 2));
        let polynomial = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    if tall { x.swap_dims(1, 2) } else { x }
}
