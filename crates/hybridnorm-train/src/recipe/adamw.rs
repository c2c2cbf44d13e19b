//! AdamW over a whole module, as PyTorch computes it.
//!
//! Why not `burn_optim`'s: clipping there is per tensor, the learner does not give its optimiser's state back, and
//! β and bias corrections are rounded to f32 before use.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use hybridnorm_kernels::{AdamWStep, adamw};
use std::collections::HashSet;

use super::AdamWConfig;
use super::groups::params;

/// The optimiser and its state: both moments of every parameter, and the number of steps taken.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    decayed: HashSet<ParamId>,
    moments: Moments,
    steps: u64,
}

/// First and second moments, by parameter.
#[derive(Debug, Default)]
pub struct Moments {
    /// Running mean of the gradients.
    pub first: GradientsParams,
    /// Running mean of their squares.
    pub second: GradientsParams,
}

impl AdamW {
    /// A fresh optimiser for `module`.
    pub fn new<M: Module>(config: AdamWConfig, module: &M) -> Self {
        let groups = config.groups();
        let decayed = params(module)
            .into_iter()
            .filter(|param| groups.decays(param))
            .map(|param| param.id)
            .collect();
        Self {
            config,
            decayed,
            moments: Moments::default(),
            steps: 0,
        }
    }

    /// Continues from saved state.
    pub fn restore(&mut self, moments: Moments, steps: u64) {
        self.moments = moments;
        self.steps = steps;
    }

    /// Both moments of every parameter that has had a gradient.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes one step. Gradients are multiplied by `scale` first: averaging over micro-batches times clipping.
    ///
    /// With g the scaled gradient: p ← p·(1 − lr·decay); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
    /// p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
    pub fn step<M: Module>(&mut self, module: M, grads: GradientsParams, lr: f64, scale: f64) -> M {
        self.steps += 1;
        let t = self.steps as f64;
        let c = &self.config;
        let step = AdamWStep {
            scale,
            beta1: c.beta1,
            beta2: c.beta2,
            epsilon: c.epsilon,
            keep: 1.0 - lr * c.weight_decay,
            rate: lr / (1.0 - c.beta1.powf(t)),
            root_correction: (1.0 - c.beta2.powf(t)).sqrt(),
        };
        module.map(&mut Step {
            grads,
            step,
            decayed: &self.decayed,
            moments: &mut self.moments,
        })
    }
}

struct Step<'a> {
    grads: GradientsParams,
    step: AdamWStep,
    decayed: &'a HashSet<ParamId>,
    moments: &'a mut Moments,
}

impl Step<'_> {
    fn update<const D: usize>(
        &mut self,
        id: ParamId,
        weight: Tensor<D>,
        grad: Tensor<D>,
    ) -> Tensor<D> {
        let Moments { first, second } = &mut self.moments;
        let state =
            [first, second].map(|moment| moment.remove(id).unwrap_or_else(|| weight.zeros_like()));
        let step = match self.decayed.contains(&id) {
            true => self.step,
            false => AdamWStep {
                keep: 1.0,
                ..self.step
            },
        };
        let (weight, [first, second]) = adamw(weight, grad, state, step);
        self.moments.first.register(id, first);
        self.moments.second.register(id, second);
        weight
    }
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return param;
        };
        let id = param.id;
        param.map(|weight| {
            let checkpointing = weight.gradient_checkpointing_strategy();
            let updated = Tensor::from_inner(self.update(id, weight.inner(), grad));
            let updated = match checkpointing {
                Some(strategy) => updated.with_gradient_checkpointing_strategy(strategy),
                None => updated,
            };
            updated.require_grad()
        })
    }
}
