//! A forward and backward pass in stages, for less memory than one graph of everything takes.
//!
//! With [`Recompute::Block`] the forward pass keeps the blocks' inputs only, and each block is computed once more when its gradient is
//! due. A stage is differentiated as `Σ y ⊙ ∂L/∂y`, whose gradient is that of `L`.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use hybridnorm_core::{ConfigError, Pass, unknown_name};
use serde::{Deserialize, Serialize};

use super::model::{LanguageModel, MicroBatch, TokenBatch};
use super::precision::Precision;

/// Which activations are computed a second time instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// None: fastest.
    #[default]
    None,
    /// Everything inside the blocks: one more forward pass, and the memory of one block instead of all.
    Block,
}

impl Recompute {
    /// Every choice by name.
    pub const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("block", Self::Block)];
}

impl core::str::FromStr for Recompute {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, choice)| *choice)
            .ok_or_else(|| unknown_name("recompute", name, Self::ALL.iter().map(|(name, _)| *name)))
    }
}

/// How a pass is divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// What is computed twice.
    pub recompute: Recompute,
    /// Rows of logits that exist at once; `None` for [so many](hybridnorm_core::logit_rows).
    pub logit_rows: Option<usize>,
    /// What matrices are multiplied in.
    pub precision: Precision,
}

impl Stages {
    /// `pass` with what is settled here.
    pub(crate) fn on<R>(&self, pass: Pass<R>) -> Pass<R> {
        pass.with_products(self.precision.products())
            .with_logit_rows(self.logit_rows)
    }
}

impl LanguageModel {
    /// Loss and gradients of a micro-batch, with the activations of one block at a time.
    pub(super) fn block_by_block(&self, batch: &TokenBatch) -> (GradientsParams, MicroBatch) {
        let mut sum = GradientsAccumulator::new();
        // Forward, with nothing kept but what goes into each block.
        let plain = self.decoder.valid();
        let bare = batch.clone().without_autodiff();
        let mut pass = self.pass(&bare);
        let mut x = plain.embed(bare.input(), &mut pass);
        let mut inputs = Vec::new();
        for layer in 0..plain.blocks.len() {
            inputs.push(x.clone());
            x = plain.forward_block(layer, x, &mut pass);
        }
        let routings = std::mem::take(&mut pass.reports);
        let auxiliary = self.losses.of(&routings);

        // Backward.
        let last = leaf(x);
        let hidden = self.decoder.normalise(last.clone(), &mut self.pass(batch));
        let (cross_entropy, gradient) = self.head(&hidden, batch, &mut sum);
        let mut gradient = self.differentiate(along(hidden, gradient), last, &mut sum);
        for (layer, input) in inputs.into_iter().enumerate().rev() {
            let input = leaf(input);
            let mut pass = self.pass(batch);
            let output = self.decoder.forward_block(layer, input.clone(), &mut pass);
            let parts = pass.reports.iter();
            let parts = parts.map(|routing| self.losses.part_of(routing, &routings));
            let loss = parts.fold(along(output, gradient), |sum, part| part.add_to(sum));
            gradient = self.differentiate(loss, input, &mut sum);
        }
        let embedded = self.decoder.embed(batch.input(), &mut self.pass(batch));
        let grads = along(embedded, gradient).backward();
        sum.accumulate(self, GradientsParams::from_grads(grads, self));
        let micro_batch = MicroBatch {
            cross_entropy,
            balance: auxiliary.balance,
            router_z: auxiliary.z,
            routings,
        };
        (sum.grads(), micro_batch)
    }

    /// Mean cross-entropy `[1]`, without autodiff, and its gradient in `hidden`; the head's gradient goes into `sum`.
    fn head(
        &self,
        hidden: &Tensor<3>,
        batch: &TokenBatch,
        sum: &mut GradientsAccumulator<Self>,
    ) -> (Tensor<1>, Tensor<3>) {
        let hidden = leaf(hidden.clone().inner());
        let loss = self.head_loss(hidden.clone(), batch, &self.pass(batch));
        (loss.clone().inner(), self.differentiate(loss, hidden, sum))
    }

    /// The gradient of `loss` in `input`, without autodiff; that in the parameters goes into `sum`.
    fn differentiate(
        &self,
        loss: Tensor<1>,
        input: Tensor<3>,
        sum: &mut GradientsAccumulator<Self>,
    ) -> Tensor<3> {
        let mut grads = loss.backward();
        // A stage that does not depend on its input has no gradient there.
        let gradient = input.grad_remove(&mut grads);
        let gradient = gradient.unwrap_or_else(|| input.inner().zeros_like());
        sum.accumulate(self, GradientsParams::from_grads(grads, self));
        gradient
    }
}

/// `x` as the beginning of a stage.
fn leaf(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_inner(x).require_grad()
}

/// `Σ y ⊙ gradient`, whose gradient in everything that `y` depends on is that of a loss with `gradient` in `y`.
fn along(y: Tensor<3>, gradient: Tensor<3>) -> Tensor<1> {
    (y * Tensor::from_inner(gradient)).sum()
}
