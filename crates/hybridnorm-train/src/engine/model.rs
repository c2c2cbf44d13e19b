//! The decoder as Burn's learner sees it.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, ExecutionError, Int, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use hybridnorm_core::{ConfigError, Decoder, Pass};
use hybridnorm_moe::{FeedForwardLayer, LossConfig, ModelConfig, Routing};

use super::metrics::{Evaluation, StepRecord};
use super::stages::{Recompute, Stages};

/// A [`Decoder`], dense or sparse, that implements Burn's [`TrainStep`] and [`InferenceStep`].
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// The model itself.
    pub decoder: Decoder<FeedForwardLayer>,
    /// What is added to the loss in training where there are sparse layers.
    #[module(skip)]
    pub(super) losses: LossConfig,
    /// How a pass is divided in training.
    #[module(skip)]
    pub(super) stages: Stages,
}

/// Sequences to predict, each one token longer than the model's input.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// Token ids, `[batch, seq + 1]`.
    pub tokens: Tensor<2, Int>,
    /// `[batch, seq]`: the document each input belongs to, the only one it attends to; `None` where it attends to all.
    pub documents: Option<Tensor<2, Int>>,
    /// `[batch, seq]`: true where a target counts for nothing; `None` where all count.
    pub ignored: Option<Tensor<2, Bool>>,
    /// Seed of the noise that layers are configured for, in training; `None` for none.
    pub noise: Option<u64>,
}

/// What a learner's step hands to its metrics: `R` is [`StepRecord`] in training, [`Evaluation`] in validation.
#[derive(Debug, Clone)]
pub enum Output<R> {
    /// What one micro-batch gave.
    MicroBatch(Box<MicroBatch>),
    /// The figures of a whole optimiser step, or of a whole evaluation.
    Record(R),
}

/// What one micro-batch gave, still on the device.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// Mean cross-entropy in nats per token, `[1]`, without autodiff.
    pub cross_entropy: Tensor<1>,
    /// Load balancing loss times its weight, `[1]`, without autodiff; `None` in a dense model, and where the weight is 0.
    pub balance: Option<Tensor<1>>,
    /// Router z-loss times its weight, likewise.
    pub router_z: Option<Tensor<1>>,
    /// What the routers did, in layer order.
    pub routings: Vec<Routing>,
}

impl LanguageModel {
    /// An untrained model.
    ///
    /// # Errors
    /// When the configuration is not allowed.
    pub fn new(config: &ModelConfig, device: &Device) -> Result<Self, ConfigError> {
        Ok(Self {
            decoder: config.init(device)?,
            losses: match &config.sparse {
                Some(sparse) => sparse.losses.clone(),
                None => LossConfig::default(),
            },
            stages: Stages::default(),
        })
    }

    /// Divides the passes of training.
    #[must_use]
    pub fn with_stages(self, stages: Stages) -> Self {
        Self { stages, ..self }
    }

    /// Whether any layer is sparse.
    pub fn is_sparse(&self) -> bool {
        let blocks = &self.decoder.blocks;
        blocks
            .iter()
            .any(|block| block.feed_forward.as_sparse().is_some())
    }

    /// The pass to train on `batch`.
    pub(super) fn pass(&self, batch: &TokenBatch) -> Pass<Routing> {
        self.stages.on(batch.pass())
    }

    /// Mean cross-entropy in nats per token: positions `0..seq` predict `1..=seq`. A target that is ignored costs nothing and
    /// stays in the divisor, as it does for the authors (paper.md §3.4), so that micro-batches average to the batch.
    ///
    /// # Shapes
    /// - `batch.tokens` `[batch, seq + 1]`
    /// - output `[1]`
    pub fn loss(&self, batch: TokenBatch) -> Tensor<1> {
        let mut pass = batch.context().with_logit_rows(self.stages.logit_rows);
        self.loss_in(batch, &mut pass)
    }

    /// As [`loss`](Self::loss), in a pass of the caller's.
    pub(super) fn loss_in(&self, batch: TokenBatch, pass: &mut Pass<Routing>) -> Tensor<1> {
        let hidden = self.decoder.hidden(batch.input(), pass);
        self.head_loss(hidden, &batch, pass)
    }

    /// The [loss](Self::loss) of `hidden`, `[batch, seq, d_model]`, the stream before the head.
    pub(super) fn head_loss(
        &self,
        hidden: Tensor<3>,
        batch: &TokenBatch,
        pass: &Pass<Routing>,
    ) -> Tensor<1> {
        let ignored = batch.ignored.clone();
        self.decoder.loss(hidden, batch.targets(), ignored, pass)
    }
}

impl TokenBatch {
    /// Sequences of which every target counts, and whose tokens attend to all before them.
    pub fn new(tokens: Tensor<2, Int>) -> Self {
        Self {
            tokens,
            documents: None,
            ignored: None,
            noise: None,
        }
    }

    /// `[batch, seq]`
    pub(crate) fn input(&self) -> Tensor<2, Int> {
        let [_, length] = self.tokens.dims();
        self.tokens.clone().narrow(1, 0, length - 1)
    }

    /// `[batch, seq]`: the token after each of the input.
    pub(super) fn targets(&self) -> Tensor<2, Int> {
        let [_, length] = self.tokens.dims();
        self.tokens.clone().narrow(1, 1, length - 1)
    }

    /// The first `sequences` of it, or all where there are fewer.
    pub(crate) fn first(self, sequences: usize) -> Self {
        let [rows, _] = self.tokens.dims();
        let rows = sequences.min(rows);
        Self {
            tokens: self.tokens.narrow(0, 0, rows),
            documents: self.documents.map(|ids| ids.narrow(0, 0, rows)),
            ignored: self.ignored.map(|ignored| ignored.narrow(0, 0, rows)),
            noise: self.noise,
        }
    }

    /// The same on the device below autodiff.
    pub(crate) fn without_autodiff(self) -> Self {
        Self {
            tokens: self.tokens.inner(),
            documents: self.documents.map(Tensor::inner),
            ignored: self.ignored.map(Tensor::inner),
            noise: self.noise,
        }
    }

    /// The same on another device.
    ///
    /// Truths travel as numbers: Burn 0.22.1 hands another backend the bytes that a device stores them in, and CubeCL's four for
    /// each became four truths on a CPU, of which it read the first quarter.
    pub(super) fn moved_to(self, device: &Device) -> Self {
        Self {
            tokens: self.tokens.to_device(device),
            documents: self.documents.map(|documents| documents.to_device(device)),
            ignored: self
                .ignored
                .map(|ignored| ignored.int().to_device(device).bool()),
            noise: self.noise,
        }
    }

    /// The pass to train on it.
    pub(super) fn pass(&self) -> Pass<Routing> {
        match self.noise {
            Some(seed) => self.context().with_noise(seed),
            None => self.context(),
        }
    }

    /// The pass without noise.
    pub(crate) fn context(&self) -> Pass<Routing> {
        match &self.documents {
            Some(documents) => Pass::documents(documents.clone()),
            None => Pass::causal(),
        }
    }
}

impl TrainStep for LanguageModel {
    type Input = TokenBatch;
    type Output = Output<StepRecord>;

    fn step(&self, batch: TokenBatch) -> TrainOutput<Self::Output> {
        if self.stages.recompute == Recompute::Block {
            let (grads, micro_batch) = self.block_by_block(&batch);
            let item = Output::MicroBatch(Box::new(micro_batch));
            return TrainOutput { grads, item };
        }
        let mut pass = self.pass(&batch);
        let cross_entropy = self.loss_in(batch, &mut pass);
        let auxiliary = self.losses.of(&pass.reports);
        let loss = auxiliary.add_to(cross_entropy.clone());
        let grads = GradientsParams::from_grads(loss.backward(), self);
        let micro_batch = MicroBatch {
            cross_entropy: cross_entropy.inner(),
            balance: auxiliary.balance.map(Tensor::inner),
            router_z: auxiliary.z.map(Tensor::inner),
            routings: pass.reports,
        };
        TrainOutput {
            grads,
            item: Output::MicroBatch(Box::new(micro_batch)),
        }
    }
}

impl InferenceStep for LanguageModel {
    type Input = TokenBatch;
    type Output = Output<Evaluation>;

    fn step(&self, batch: TokenBatch) -> Self::Output {
        let mut pass = batch.context().with_logit_rows(self.stages.logit_rows);
        Output::MicroBatch(Box::new(MicroBatch {
            cross_entropy: self.loss_in(batch, &mut pass),
            balance: None,
            router_z: None,
            routings: pass.reports,
        }))
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
            Self::MicroBatch(_) => None,
            Self::Record(record) => Some(record.clone()),
        }
    }
}
