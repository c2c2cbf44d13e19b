//! The decoder as Burn's learner sees it.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{ExecutionError, Int, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use hybridnorm_core::{Decoder, loss};

use super::metrics::{Evaluation, StepRecord};

/// A [`Decoder`] that implements Burn's [`TrainStep`] and [`InferenceStep`].
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// The model itself.
    pub decoder: Decoder,
}

/// Sequences to predict, each one token longer than the model's input.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// Token ids, `[batch, seq + 1]`.
    pub tokens: Tensor<2, Int>,
}

/// What a learner's step hands to its metrics: `R` is [`StepRecord`] in training, [`Evaluation`] in validation.
#[derive(Debug, Clone)]
pub enum Output<R> {
    /// Mean cross-entropy of one micro-batch in nats per token, `[1]`, still on the device.
    Loss(Box<Tensor<1>>),
    /// The figures of a whole optimiser step, or of a whole evaluation.
    Record(R),
}

impl LanguageModel {
    /// Mean cross-entropy in nats per token: positions `0..seq` predict `1..=seq`.
    ///
    /// # Shapes
    /// - `batch.tokens` `[batch, seq + 1]`
    /// - output `[1]`
    pub fn loss(&self, batch: TokenBatch) -> Tensor<1> {
        let [_, length] = batch.tokens.dims();
        let input = batch.tokens.clone().narrow(1, 0, length - 1);
        let target = batch.tokens.narrow(1, 1, length - 1);
        loss::next_token_loss(self.decoder.forward(input), target)
    }
}

impl TrainStep for LanguageModel {
    type Input = TokenBatch;
    type Output = Output<StepRecord>;

    fn step(&self, batch: TokenBatch) -> TrainOutput<Self::Output> {
        let loss = self.loss(batch);
        let grads = GradientsParams::from_grads(loss.backward(), self);
        TrainOutput {
            grads,
            item: Output::Loss(Box::new(loss.inner())),
        }
    }
}

impl InferenceStep for LanguageModel {
    type Input = TokenBatch;
    type Output = Output<Evaluation>;

    fn step(&self, batch: TokenBatch) -> Self::Output {
        Output::Loss(Box::new(self.loss(batch)))
    }
}

impl<R: Send> ItemLazy for Output<R> {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl<R: Clone> Adaptor<Option<R>> for Output<R> {
    fn adapt(&self) -> Option<R> {
        match self {
            Self::Loss(_) => None,
            Self::Record(record) => Some(record.clone()),
        }
    }
}
