//! The time of one training step.

use std::time::{Duration, Instant};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use hybridnorm_core::{ConfigError, DecoderConfig};
use hybridnorm_kernels::{on_pool, profile};
use hybridnorm_moe::ModelConfig;
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

use super::looks::Looks;
use super::machine::Peak;
use super::spread::Spread;
use super::step_report::StepReport;
use crate::device::{DeviceSpec, adapter_name};
use crate::engine::{LanguageModel, Replicas, Stages, StepGradients, TokenBatch, TrainError};
use crate::error::Error;
use crate::memory::{Memory, Workload};
use crate::recipe::{Optimizer, OptimizerConfig, OptimizerName};
use crate::run::ScheduleConfig;

/// Seed of the random tokens.
const SEED: u64 = 6198;

/// A training step to be measured, by the rules of `torch_train_step.py`, the PyTorch yardstick:
///
/// - each step has `batch` sequences of `seq + 1` random tokens, drawn from all rows of the embedding; they are on the
///   device before the clock starts;
/// - timed are forward pass, mean cross-entropy, backward pass, clipping to a global norm of 1, AdamW and reading the
///   loss back, until the device has finished;
/// - the learning rate stays at 3e-4; numbers are f32; unless it is asked for, nothing is accumulated or computed twice, and
///   no matrix is multiplied in another type.
///
/// It is the step of [`train`](crate::engine::train()) with its recipe. Two things differ from the yardstick: the
/// embedding does not decay, and the gradient norm is read back as well.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBench {
    /// The model, dense or sparse.
    pub model: ModelConfig,
    /// The preset it started from.
    pub preset: Option<&'static str>,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Sequences in a step.
    pub batch: usize,
    /// Sequences in one forward and backward pass; divides `batch`.
    pub micro_batch: usize,
    /// How a pass is divided.
    pub stages: Stages,
    /// The optimiser.
    pub optimizer: OptimizerName,
    /// The pass that a trained model makes over a text, loss included, in place of the step.
    pub forward_only: bool,
    /// A look at every layer, as `--diagnostics` takes it, in every second step, timed apart from the steps.
    pub diagnostics: bool,
    /// Steps that are timed.
    pub steps: u64,
    /// Steps before those, not timed.
    pub warmup: u64,
}

impl Default for StepBench {
    /// The shape that PyTorch was first measured at: 6.3 million parameters with their own head, 1,024 tokens.
    fn default() -> Self {
        Self {
            model: DecoderConfig {
                d_ff: 1024,
                max_seq_len: 256,
                tied: false,
                ..DecoderConfig::new(4096, 256, 8, 4)
            }
            .into(),
            preset: None,
            seq: 256,
            batch: 4,
            micro_batch: 4,
            stages: Stages::default(),
            optimizer: OptimizerName::default(),
            forward_only: false,
            diagnostics: false,
            steps: 10,
            warmup: 3,
        }
    }
}

impl StepBench {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        for (field, value) in [
            ("steps", self.steps),
            ("seq", self.seq as u64),
            ("batch", self.batch as u64),
            ("micro_batch", self.micro_batch as u64),
            (
                "logit_rows",
                self.stages.logit_rows.map_or(1, |rows| rows as u64),
            ),
        ] {
            if value == 0 {
                return Err(ConfigError::new(field, value, "at least 1"));
            }
        }
        if !self.batch.is_multiple_of(self.micro_batch) {
            let allowed = format!("a divisor of batch = {}", self.batch);
            return Err(ConfigError::new("micro_batch", self.micro_batch, allowed));
        }
        if self.diagnostics && self.forward_only {
            let allowed = "not with forward_only, which has no gradients to look at";
            return Err(ConfigError::new("diagnostics", true, allowed));
        }
        if self.diagnostics && self.steps < 2 {
            let allowed = "at least 2 with diagnostics, which looks in every second";
            return Err(ConfigError::new("steps", self.steps, allowed));
        }
        let ModelConfig {
            decoder: model,
            sparse,
        } = &self.model;
        if self.seq > model.max_seq_len {
            let allowed = format!("at most max_seq_len = {}", model.max_seq_len);
            return Err(ConfigError::new("seq", self.seq, allowed));
        }
        // The widest tensors of a step: logits, feed-forward, fused projection, attention scores, the copies that go to
        // experts. Memory may run out far below this; beyond it a size could not even be counted.
        let copies = sparse.as_ref().map_or(0, |sparse| {
            sparse.router.top_k as u128 * model.d_model.max(sparse.d_ff) as u128
        });
        let widest = [
            copies,
            model.padded_vocab_size as u128,
            2 * model.d_ff as u128,
            (model.n_heads + 2 * model.n_kv_heads) as u128 * model.head_dim() as u128,
            model.n_heads as u128 * self.seq as u128,
        ];
        let widest = widest.into_iter().fold(0, u128::max);
        let most = isize::MAX as u128 / size_of::<f32>() as u128 / widest / (self.seq as u128 + 1);
        if self.batch as u128 > most {
            let allowed = match most {
                0 => {
                    "no batch, at this --seq: a tensor would not fit the address space".to_string()
                }
                most => format!("at most {most}, to fit the address space"),
            };
            return Err(ConfigError::new("batch", self.batch, allowed));
        }
        Ok(())
    }

    /// Tokens that a step trains on.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.seq
    }

    /// Measures the step on a device.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); a device that cannot be used or fails; a loss that is not finite.
    pub fn measure(&self, spec: &DeviceSpec) -> Result<StepReport, Error> {
        self.validate()?;
        let device = spec.open()?;
        let figures = self.run(&device)?;
        let peak = Peak::of(spec, figures.reserved);
        let name = adapter_name(&device);
        Ok(StepReport::new(self, spec, name, &figures, peak)?)
    }

    fn run(&self, device: &Device) -> Result<Figures, TrainError> {
        self.validate()?;
        self.stages.precision.check(device)?;
        let device = match (self.forward_only, device.is_autodiff()) {
            (true, true) => device.clone().inner(),
            (false, false) => device.clone().autodiff(),
            _ => device.clone(),
        };
        let mut recipe = OptimizerConfig::default();
        recipe.rename(self.optimizer);
        let (max_norm, lr) = (recipe.adamw.max_grad_norm, ScheduleConfig::default().lr);
        let mut model = LanguageModel::new(&self.model, &device)?.with_stages(self.stages);
        let mut optimizer = Optimizer::new(recipe, &model);
        let mut milliseconds = Vec::new();
        let mut looks = Looks::default();
        let mut loss = f64::NAN;
        let mut reserved = None;
        let layers = self.model.decoder.n_layers;
        let mut before = profile::times(layers);
        for step in 1..=self.warmup.saturating_add(self.steps) {
            let batch = self.tokens(step, &device);
            finish(&device, step)?;
            if step == self.warmup + 1 {
                before = profile::times(layers);
            }
            let looked = self.diagnostics && step.is_multiple_of(2);
            let started = Instant::now();
            let micro_batches = self.micro_batches(batch);
            if self.forward_only {
                loss = forward(&model, micro_batches, step)?;
            } else {
                let micro_batches = micro_batches.map(Ok);
                let replicas = Replicas::default();
                let gradients = StepGradients::of(&model, micro_batches, &replicas, step)?;
                gradients.check(&model, step)?;
                loss = gradients.figures.loss;
                let (rates, at) = ((lr, max_norm), (step, &device, looked));
                model = looks.update(model, gradients, &mut optimizer, rates, at)?;
                if step <= self.warmup {
                    looks = Looks::default();
                }
            }
            finish(&device, step)?;
            let seconds = started.elapsed().as_secs_f64();
            if step > self.warmup && !looked {
                milliseconds.push(seconds * 1e3);
            }
            let now = device.memory_pool_usage().map(|pool| pool.bytes_reserved);
            reserved = reserved.max(now);
        }
        let step_ms = Spread::of(&milliseconds)
            .ok_or_else(|| ConfigError::new("steps", self.steps, "at least 1"))?;
        let spent = |(after, before): (Duration, Duration)| (after - before).as_secs_f64() * 1e3;
        let places = profile::times(layers).into_iter().zip(before);
        let places = places.map(|(after, before)| {
            let times = after.into_iter().zip(before).map(spent);
            times.map(|ms| ms / self.steps as f64).collect()
        });
        let operations = places.collect();
        Ok(Figures {
            step_ms,
            loss,
            reserved,
            look_ms: looks.milliseconds(),
            operations,
        })
    }

    /// The memory that a step is predicted to take in a process that does nothing else.
    ///
    /// # Errors
    /// When the model's configuration is not allowed.
    pub fn memory(&self) -> Result<Memory, ConfigError> {
        Workload {
            model: self.model.clone(),
            optimizer: self.optimizer,
            seq: self.seq,
            micro_batch: self.micro_batch,
            accumulation: self.batch / self.micro_batch,
            stages: self.stages,
            devices: 1,
            host: Some(0),
        }
        .memory()
    }

    /// The sequences of a step in equal parts.
    fn micro_batches(&self, batch: TokenBatch) -> impl Iterator<Item = TokenBatch> {
        let size = self.micro_batch;
        let starts = (0..self.batch).step_by(size);
        starts.map(move |start| TokenBatch::new(batch.tokens.clone().narrow(0, start, size)))
    }

    /// The random tokens of `step`: a pure function of its number.
    ///
    /// # Shapes
    /// - `tokens` `[batch, seq + 1]`
    fn tokens(&self, step: u64, device: &Device) -> TokenBatch {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(step);
        let rows = self.model.decoder.padded_vocab_size as u64;
        let shape = [self.batch, self.seq + 1];
        // 32 random bits, scaled to the rows, of which there are at most 2²⁸.
        let ids: Vec<i32> = (0..shape[0] * shape[1])
            .map(|_| ((u64::from(rng.next_u32()) * rows) >> 32) as i32)
            .collect();
        TokenBatch::new(Tensor::from_data(TensorData::new(ids, shape), device))
    }
}

/// The mean loss of `model` over micro-batches, read from the device.
fn forward(
    model: &LanguageModel,
    micro_batches: impl Iterator<Item = TokenBatch>,
    step: u64,
) -> Result<f64, TrainError> {
    let loss = |batch: TokenBatch| {
        let device = batch.tokens.device();
        on_pool(&device, || model.loss(batch).cast(FloatDType::F32))
    };
    let losses = Tensor::cat(micro_batches.map(loss).collect(), 0);
    let read = losses.mean().try_into_vec_as::<f32>();
    let read = read.map_err(|error| TrainError::Device {
        what: "loss",
        step,
        reason: error.to_string(),
    })?;
    Ok(read.first().map_or(f64::NAN, |loss| f64::from(*loss)))
}

/// Waits until the device has done all it was asked to.
pub(super) fn finish(device: &Device, step: u64) -> Result<(), TrainError> {
    device.sync().map_err(|error| TrainError::Device {
        what: "end",
        step,
        reason: error.to_string(),
    })
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    /// Milliseconds of a step.
    pub step_ms: Spread,
    /// Loss of the last step, before its update, in nats per token.
    pub loss: f64,
    /// Most bytes Burn's allocator had reserved after a step, where it reports them.
    pub reserved: Option<u64>,
    /// Milliseconds that a look at every layer takes beside a step, the median, where looks were taken.
    pub look_ms: Option<f64>,
    /// Milliseconds of a step in each of [`Work::ALL`](profile::Work::ALL), outside all layers and then in each of them.
    pub operations: Vec<Vec<f64>>,
}

#[cfg(test)]
mod tests;
