//! A forward and backward pass in stages, for less memory than one graph of everything takes.
//!
//! The head comes in slices of rows, each differentiated before the next is computed, so that the logits of a whole batch never exist
//! at once. With [`Recompute::Block`], a block's activations do not either: the forward pass keeps the blocks' inputs only, and each
//! block is computed once more when its gradient is due. A stage is differentiated as `Σ y ⊙ ∂L/∂y`, whose gradient is that of `L`.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Bool, Int, Tensor};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{ConfigError, unknown_name};
use serde::{Deserialize, Serialize};

use super::model::{LanguageModel, MicroBatch, TokenBatch};
use super::precision::Precision;

/// Logits that exist at once where nobody says otherwise: 128 MiB in f32.
const LOGITS: usize = 1 << 25;

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
    /// Rows of logits that exist at once; `None` for as many as make 128 MiB.
    pub logit_rows: Option<usize>,
    /// What matrices are multiplied in.
    pub precision: Precision,
}

impl Stages {
    /// Rows of logits that exist at once, of `rows` in all, each of `vocab`.
    pub fn rows(&self, rows: usize, vocab: usize) -> usize {
        let most = self.logit_rows.unwrap_or(LOGITS / vocab.max(1));
        most.clamp(1, rows.max(1))
    }
}

impl LanguageModel {
    /// Loss and gradients of a micro-batch, stage by stage.
    pub(super) fn in_stages(&self, batch: &TokenBatch) -> (GradientsParams, MicroBatch) {
        match self.stages.recompute {
            Recompute::None => self.with_all_activations(batch),
            Recompute::Block => self.block_by_block(batch),
        }
    }

    fn with_all_activations(&self, batch: &TokenBatch) -> (GradientsParams, MicroBatch) {
        let mut sum = GradientsAccumulator::new();
        let mut pass = self.pass(batch);
        let hidden = self.decoder.hidden(batch.input(), &mut pass);
        let (cross_entropy, gradient) = self.head(&hidden, batch, &mut sum);
        let auxiliary = self.losses.of(&pass.reports);
        let loss = auxiliary.add_to(along(hidden, gradient));
        sum.accumulate(self, GradientsParams::from_grads(loss.backward(), self));
        let micro_batch = MicroBatch {
            cross_entropy,
            balance: auxiliary.balance.map(Tensor::inner),
            router_z: auxiliary.z.map(Tensor::inner),
            routings: pass.reports,
        };
        (sum.grads(), micro_batch)
    }

    fn block_by_block(&self, batch: &TokenBatch) -> (GradientsParams, MicroBatch) {
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
        let [sequences, seq, d_model] = hidden.dims();
        let total = sequences * seq;
        let flat = hidden.clone().inner().reshape([1, total, d_model]);
        let targets: Tensor<1, Int> = batch.targets().reshape([total]);
        let ignored = batch.ignored.clone();
        let ignored: Option<Tensor<1, Bool>> = ignored.map(|ignored| ignored.reshape([total]));
        let rows = self.stages.rows(total, self.vocab);
        let pass = self.pass(batch);
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for start in (0..total).step_by(rows) {
            let count = rows.min(total - start);
            let slice = leaf(flat.clone().narrow(1, start, count));
            let logits = self.decoder.logits_in(slice.clone(), &pass);
            let [_, _, vocab] = logits.dims();
            let target = targets.clone().narrow(0, start, count);
            let ignored = ignored.as_ref();
            let ignored = ignored.map(|ignored| ignored.clone().narrow(0, start, count));
            let nll = token_losses(logits.reshape([count, vocab]), target, ignored).nll;
            let loss = nll.sum() / total as f64;
            losses.push(loss.clone().inner());
            gradients.push(self.differentiate(loss, slice, sum));
        }
        let cross_entropy = Tensor::cat(losses, 0).sum();
        let gradient = Tensor::cat(gradients, 1).reshape([sequences, seq, d_model]);
        (cross_entropy, gradient)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_logits_are_bounded() {
        let rows = |logit_rows, rows, vocab| {
            Stages {
                logit_rows,
                ..Stages::default()
            }
            .rows(rows, vocab)
        };
        assert_eq!(rows(None, 2048, 320), 2048);
        assert_eq!(rows(None, 4096, 50_304), 667);
        assert_eq!(rows(Some(100), 4096, 320), 100);
        assert_eq!(rows(Some(100), 7, 320), 7);
        assert_eq!(rows(None, 7, 1 << 30), 1);
    }
}
