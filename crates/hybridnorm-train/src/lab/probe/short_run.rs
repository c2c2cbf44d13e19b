//! Short runs: a few steps of training, with the recipe of a long one.

use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;

use super::record::{Divergence, Layers, Line, Look, Setting, Trial};
use super::subject::{Job, Measure, Subject};
use crate::data::{DataError, StepBatch};
use crate::engine::{
    BatchSource, LanguageModel, LoadError, LoaderShape, Observed, Replicas, StepGradients,
    TokenBatch, TokenLoader, TrainError,
};
use crate::error::Error;
use crate::recipe::{Optimizer, ScheduleShape};
use crate::run::{RunConfig, ScheduleConfig};

/// Of a short run, the part in which the learning rate rises: one step in five.
const WARMUP: u64 = 5;
/// Of a short run, the part at its end whose mean loss counts: one step in four.
const LAST: usize = 4;
/// A run diverges where a loss is above the first times this: untrained models have hardly any preference, so that one batch is as hard as
/// another to them.
const RISE: f64 = 1.1;

/// Where measurements are taken: the model and data that they share, and a device.
pub struct Lab {
    config: RunConfig,
    device: Device,
    batches: Arc<dyn BatchSource>,
    document_mask: Option<u32>,
    replicas: Replicas,
}

/// What came of a short run.
struct Trained {
    losses: Vec<f64>,
    looks: Vec<Look>,
    diverged: Option<Divergence>,
    seconds: f64,
}

/// The configuration of short runs of `steps` steps of `config`: its learning rate after a linear warm-up, its optimiser and batches.
/// Placement, depth and initialisation are those of each measurement.
pub(crate) fn short(mut config: RunConfig, steps: u64) -> RunConfig {
    config.training.steps = steps;
    config.schedule = ScheduleConfig {
        shape: ScheduleShape::Constant,
        lr: config.schedule.lr,
        warmup_tokens: Some(warmup(steps).saturating_mul(config.training.tokens_per_step())),
        ..ScheduleConfig::default()
    };
    // It is measured in tokens of a long run.
    config.optimizer.clip_warmup = None;
    config.model.placement = Default::default();
    config.model.n_layers = 1;
    config.model.init.scheme = None;
    config
}

/// Steps of a short run of `steps` in which the learning rate rises.
pub(crate) fn warmup(steps: u64) -> u64 {
    (steps / WARMUP).max(1).min(steps)
}

impl Lab {
    /// Measurements with `setting` on `device`, which learn from `batches`.
    ///
    /// # Errors
    /// When the configuration asks for what the data or the device cannot do.
    pub fn new(
        setting: &Setting,
        device: &Device,
        batches: Arc<dyn BatchSource>,
    ) -> Result<Self, Error> {
        let config = setting.config.clone();
        let device = match device.is_autodiff() {
            true => device.clone(),
            false => device.clone().autodiff(),
        };
        config.training.precision.check(&device)?;
        let document_mask = crate::engine::document_mask(&config.data, &*batches)?;
        Ok(Self {
            config,
            device,
            batches,
            document_mask,
            replicas: Replicas::default(),
        })
    }

    /// Takes one measurement. Of a search for a learning rate, it tries `lr`; all others are taken with the configured rate.
    ///
    /// # Errors
    /// When the data or the device fails. A run that diverges is a result.
    pub fn measure(&self, job: &Job, lr: Option<f64>) -> Result<Line, Error> {
        let subject = &job.subject;
        let steps = self.config.training.steps;
        let lr = lr.unwrap_or(self.config.schedule.lr);
        let trial = |run: Trained| {
            let last = run.losses.len().div_ceil(LAST).max(1);
            let end = &run.losses[run.losses.len().saturating_sub(last)..];
            let whole = run.diverged.is_none() && run.losses.len() as u64 == steps;
            let mean = end.iter().sum::<f64>() / end.len() as f64;
            let final_loss = whole.then_some(mean).filter(|mean| mean.is_finite());
            Trial {
                subject: subject.clone(),
                lr,
                losses: run.losses,
                final_loss,
                diverged: run.diverged,
                seconds: run.seconds,
            }
        };
        Ok(match job.measure {
            Measure::Coupling => Line::Coupling(Box::new(self.coupling(subject)?)),
            Measure::LearningRate => Line::LearningRate(trial(self.train(subject, lr, &[])?)),
            Measure::Init => Line::Init(trial(self.train(subject, lr, &[])?)),
            Measure::Layers => {
                let run = self.train(subject, lr, &[1, steps])?;
                Line::Layers(Box::new(Layers {
                    subject: subject.clone(),
                    lr,
                    looks: run.looks,
                    diverged: run.diverged,
                    seconds: run.seconds,
                }))
            }
        })
    }

    /// Seconds of one step of `subject`: the faster of two.
    ///
    /// # Errors
    /// When the data or the device fails.
    pub fn step_seconds(&self, subject: &Subject) -> Result<f64, Error> {
        let mut quick = self.config.clone();
        quick.training.steps = 1;
        let lab = Self {
            config: short(quick, 1),
            device: self.device.clone(),
            batches: self.batches.clone(),
            document_mask: self.document_mask,
            replicas: Replicas::default(),
        };
        let time = || lab.train(subject, 0.0, &[]).map(|run| run.seconds);
        Ok(time()?.min(time()?))
    }

    /// A new model.
    pub(super) fn model(&self, subject: &Subject) -> Result<(RunConfig, LanguageModel), Error> {
        let config = subject.config(&self.config)?;
        let model = LanguageModel::new(&config.model_config(), &self.device)?;
        let model = model.with_stages(config.training.stages());
        Ok((config, model))
    }

    /// The micro-batches of the short run with `seed`.
    fn loader(&self, seed: u64) -> TokenLoader {
        let training = &self.config.training;
        let source = Part {
            inner: self.batches.clone(),
            first: seed.wrapping_mul(training.steps),
        };
        let shape = LoaderShape {
            batch: training.batch,
            micro_batch: training.micro_batch,
            seq: training.seq,
            vocab: self.config.model.padded_vocab_size,
            noise_seed: training.seed.wrapping_add(seed),
            document_mask: self.document_mask,
        };
        let steps = 0..training.steps;
        TokenLoader::new(Arc::new(source), shape, steps, self.device.clone())
    }

    /// The first micro-batch of the short run with `seed`.
    pub(super) fn first_batch(&self, seed: u64) -> Result<TokenBatch, Error> {
        let loader = self.loader(seed);
        let first = loader.iter().next();
        match first {
            Some(batch) => batch.map_err(|error| LoadError::of(1, &error).into()),
            None => Err(nothing(1).into()),
        }
    }

    /// Trains a new model, and looks at its layers in the steps of `looks`; where there are none, a loss far above the first ends it.
    fn train(&self, subject: &Subject, lr: f64, looks: &[u64]) -> Result<Trained, Error> {
        let (mut config, mut model) = self.model(subject)?;
        config.schedule.lr = lr;
        let started = Instant::now();
        let (schedule, clip) = (config.schedule(), config.optimizer.clip());
        let training = &config.training;
        let mut optimizer = Optimizer::new(config.optimizer.clone(), &model);
        let loader = self.loader(subject.seed);
        let mut batches = loader.iter();
        let mut run = Trained {
            losses: Vec::new(),
            looks: Vec::new(),
            diverged: None,
            seconds: 0.0,
        };
        for step in 1..=training.steps {
            let micro_batches = (0..training.accumulation()).map(|_| match batches.next() {
                Some(batch) => batch.map_err(|error| LoadError::of(step, &error)),
                None => Err(nothing(step)),
            });
            let gradients = StepGradients::of(&model, micro_batches, &self.replicas, step);
            let gradients = match gradients {
                Err(error @ TrainError::Routing { .. }) => Err(error),
                found => {
                    let found = found?;
                    found.check(&model, step).map(|()| found)
                }
            };
            let gradients = match gradients {
                Ok(gradients) => gradients,
                Err(error) => {
                    let reason = error.to_string();
                    run.diverged = Some(Divergence { step, reason });
                    break;
                }
            };
            let loss = gradients.figures.loss;
            run.losses.push(loss);
            let first = run.losses.first().copied().unwrap_or(loss);
            if looks.is_empty() && loss > RISE * first {
                let reason = format!(
                    "the loss is {loss:.4} in step {step}, more than a tenth above the {first:.4} of untrained weights"
                );
                run.diverged = Some(Divergence { step, reason });
                break;
            }
            if looks.contains(&step) {
                let seen = Observed::new(&model, &gradients, training.diagnostics_sequences, step)?;
                run.looks.push(Look {
                    step,
                    loss: gradients.figures.loss,
                    gradient_norm: seen.gradient_norm,
                    forward: seen.forward,
                });
            }
            let tokens = step * training.tokens_per_step();
            let (lr, max_norm) = (schedule.at(tokens), clip.at(tokens));
            model = gradients.apply(model, &mut optimizer, lr, max_norm);
        }
        run.seconds = started.elapsed().as_secs_f64();
        Ok(run)
    }
}

fn nothing(step: u64) -> TrainError {
    TrainError::Batch {
        step,
        problem: "the loader ended".to_string(),
    }
}

/// The steps of a source from `first` on.
struct Part {
    inner: Arc<dyn BatchSource>,
    first: u64,
}

impl BatchSource for Part {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        self.inner.batch(self.first.wrapping_add(step))
    }

    fn end_of_document(&self) -> Option<u32> {
        self.inner.end_of_document()
    }
}
