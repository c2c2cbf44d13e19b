//! One optimiser step: what training repeats, and what `bench step` measures.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Tensor, TensorReadError};
use burn::train::TrainStep;

use super::error::TrainError;
use super::model::{LanguageModel, Output, TokenBatch};
use crate::recipe::{AdamW, GradientNorms, clip_coefficient};

/// The gradient of a step, not yet applied.
pub(crate) struct StepGradients {
    /// Summed over the micro-batches.
    sum: GradientsParams,
    /// How many there were.
    micro_batches: usize,
    /// Mean loss in nats per token.
    pub loss: f64,
    /// Global norm of the average over the micro-batches.
    pub norm: f64,
}

impl StepGradients {
    /// Forward and backward passes over `micro_batches`, those of step `step`, counted from 1. The weights are not
    /// touched.
    ///
    /// # Errors
    /// What a micro-batch brings with it, a device that fails, and a loss or a norm that is not finite.
    pub fn of(
        model: &LanguageModel,
        micro_batches: impl Iterator<Item = Result<TokenBatch, TrainError>>,
        step: u64,
    ) -> Result<Self, TrainError> {
        let mut sum = GradientsAccumulator::new();
        let mut losses: Vec<Tensor<1>> = Vec::new();
        for batch in micro_batches {
            let output = TrainStep::step(model, batch?);
            sum.accumulate(model, output.grads);
            if let Output::Loss(loss) = output.item {
                losses.push(*loss);
            }
        }
        let sum = sum.grads();
        let micro_batches = losses.len();
        let unreadable = |what| {
            move |error: TensorReadError| TrainError::Device {
                what,
                step,
                reason: error.to_string(),
            }
        };
        let losses: Vec<f32> = Tensor::cat(losses, 0)
            .try_into_vec_as()
            .map_err(unreadable("loss"))?;
        let loss = losses.iter().copied().map(f64::from).sum::<f64>() / micro_batches as f64;
        let norms = GradientNorms::measure(&sum, model).map_err(unreadable("gradient norm"))?;
        let norm = norms.global() / micro_batches as f64;
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            finite(what, value, step)?;
        }
        Ok(Self {
            sum,
            micro_batches,
            loss,
            norm,
        })
    }

    /// Averages the gradient, clips it to `max_norm` and lets the optimiser take its step.
    pub fn apply(
        self,
        model: LanguageModel,
        optimizer: &mut AdamW,
        lr: f64,
        max_norm: f64,
    ) -> LanguageModel {
        let scale = clip_coefficient(self.norm, max_norm) / self.micro_batches as f64;
        optimizer.step(model, self.sum, lr, scale)
    }
}

/// Refuses a figure that says that training has gone wrong.
pub(super) fn finite(what: &'static str, value: f64, step: u64) -> Result<(), TrainError> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(TrainError::NonFinite { what, value, step })
    }
}
