//! One optimiser step: what training repeats, and what `bench step` measures.

use burn::module::ParamId;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, FloatDType, Tensor, TensorReadError};
use burn::train::TrainStep;
use hybridnorm_kernels::on_pool;
use hybridnorm_moe::RouterHealth;

use super::error::TrainError;
use super::model::{LanguageModel, MicroBatch, Output, TokenBatch};
use super::replicas::Replicas;
use super::routers::{self, RouterMeters};
use crate::recipe::{GradientNorms, Movement, Optimizer, clip_coefficient};

/// The gradient of a step, not yet applied.
pub(crate) struct StepGradients {
    /// Summed over the micro-batches.
    sum: GradientsParams,
    /// How many there were.
    micro_batches: usize,
    /// What the routers did over all of them.
    meters: RouterMeters,
    /// The micro-batches of a sparse model: to compute once more what went wrong, if anything did. Only routers can be named.
    again: Vec<TokenBatch>,
    /// The first micro-batch, to look at what the model does with it.
    pub sample: Option<TokenBatch>,
    /// What was measured.
    pub figures: StepFigures,
}

/// What was measured of a step, each a mean over its micro-batches.
#[derive(Debug, Clone)]
pub(crate) struct StepFigures {
    /// Cross-entropy in nats per token.
    pub loss: f64,
    /// Load balancing loss times its weight; `None` where there is none.
    pub balance_loss: Option<f64>,
    /// Router z-loss times its weight; `None` where there is none.
    pub router_z_loss: Option<f64>,
    /// Global norm of the average gradient.
    pub norm: f64,
    /// Norm of each parameter's average gradient.
    pub norms: Vec<(ParamId, f64)>,
    /// Health of the routers over all tokens of the step, in layer order; empty for a dense model.
    pub routers: Vec<RouterHealth>,
}

impl StepGradients {
    /// Forward and backward passes over `micro_batches`, those of step `step`, counted from 1, on the model's device and the
    /// others of a run. The weights are not touched, and the figures may be anything: see [`check`](Self::check).
    ///
    /// # Errors
    /// What a micro-batch brings with it, a device or a router that fails.
    pub fn of(
        model: &LanguageModel,
        micro_batches: impl Iterator<Item = Result<TokenBatch, TrainError>>,
        replicas: &Replicas,
        step: u64,
    ) -> Result<Self, TrainError> {
        let mut again: Vec<TokenBatch> = Vec::new();
        let sparse = model.is_sparse();
        let mut sample = None;
        let micro_batches = micro_batches.inspect(|batch| {
            if let Ok(batch) = batch {
                sample.get_or_insert_with(|| batch.clone());
                if sparse {
                    again.push(batch.clone());
                }
            }
        });
        let Share { sum, mut pending } = replicas.share(model, micro_batches, step)?;
        let micro_batches = pending.cross_entropy.len();
        let meters = std::mem::take(&mut pending.meters);
        let mut figures = pending.read(&meters, step)?;
        let norms = GradientNorms::measure(&sum, model);
        let norms = norms.map_err(unreadable("gradient norm", step))?;
        figures.norm = norms.global() / micro_batches as f64;
        figures.norms = norms.each;
        figures
            .norms
            .iter_mut()
            .for_each(|(_, norm)| *norm /= micro_batches as f64);
        Ok(Self {
            sum,
            micro_batches,
            meters,
            again,
            sample,
            figures,
        })
    }

    /// Refuses a step with a figure that is not finite. `model` is the one it was computed with.
    ///
    /// # Errors
    /// Names the figure, or the router and the token that it comes from.
    pub fn check(&self, model: &LanguageModel, step: u64) -> Result<(), TrainError> {
        self.figures
            .check(step)
            .map_err(|error| routers::cause(model, &self.again, step).unwrap_or(error))
    }

    /// Averages the gradient, clips it to `max_norm`, lets the optimiser take its step and the routers move their selection
    /// biases.
    pub fn apply(
        self,
        model: LanguageModel,
        optimizer: &mut Optimizer,
        lr: f64,
        max_norm: f64,
    ) -> LanguageModel {
        let scale = self.scale(max_norm);
        let model = optimizer.step(model, self.sum, lr, scale);
        self.meters.rebalance(model)
    }

    /// As [`apply`](Self::apply), and measures how far the weights moved in `step`.
    pub fn apply_measured(
        self,
        model: LanguageModel,
        optimizer: &mut Optimizer,
        lr: f64,
        max_norm: f64,
        step: u64,
    ) -> (LanguageModel, Result<Movement, TrainError>) {
        let scale = self.scale(max_norm);
        let (model, update) = optimizer.measured_step(model, self.sum, lr, scale);
        let movement = update.read().map_err(unreadable("update ratios", step));
        (self.meters.rebalance(model), movement)
    }

    /// What the sum of the gradients is multiplied by.
    fn scale(&self, max_norm: f64) -> f64 {
        clip_coefficient(self.figures.norm, max_norm) / self.micro_batches as f64
    }
}

/// What the micro-batches of one device, or of all of them, have summed up to.
pub(super) struct Share {
    sum: GradientsParams,
    pending: Pending,
}

impl Share {
    /// Forward and backward passes over micro-batches of step `step`, of which `before` come before these.
    pub fn of(
        model: &LanguageModel,
        micro_batches: impl Iterator<Item = Result<TokenBatch, TrainError>>,
        step: u64,
        before: usize,
    ) -> Result<Self, TrainError> {
        let mut sum = GradientsAccumulator::new();
        let mut pending = Pending::default();
        for (batch, number) in micro_batches.zip(before + 1..) {
            let batch = batch?;
            let device = batch.tokens.device();
            let output = on_pool(&device, || TrainStep::step(model, batch));
            if let Output::MicroBatch(micro_batch) = output.item {
                pending.add(*micro_batch, step, number)?;
            }
            sum.accumulate(model, output.grads);
        }
        let sum = sum.grads();
        Ok(Self { sum, pending })
    }

    /// With the gradients moved to `device`.
    pub fn gradients_to(self, device: &Device, model: &LanguageModel) -> Self {
        Self {
            sum: self.sum.to_device(device, model),
            ..self
        }
    }

    /// Adds the share of another device, whose gradients are on `model`'s.
    pub fn add(&mut self, model: &LanguageModel, other: Self) {
        let mut sum = GradientsAccumulator::new();
        for part in [std::mem::take(&mut self.sum), other.sum] {
            sum.accumulate(model, part);
        }
        self.sum = sum.grads();
        self.pending.absorb(other.pending);
    }
}

/// What the micro-batches gave, not yet read from the device.
#[derive(Default)]
struct Pending {
    cross_entropy: Vec<Tensor<1>>,
    balance: Vec<Tensor<1>>,
    router_z: Vec<Tensor<1>>,
    meters: RouterMeters,
}

impl Pending {
    /// Adds micro-batch `number` of the step, counted from 1.
    fn add(&mut self, micro_batch: MicroBatch, step: u64, number: usize) -> Result<(), TrainError> {
        self.cross_entropy.push(micro_batch.cross_entropy);
        self.balance.extend(micro_batch.balance);
        self.router_z.extend(micro_batch.router_z);
        self.meters
            .add(&micro_batch.routings)
            .map_err(|source| TrainError::Routing {
                step,
                micro_batch: number,
                source,
            })
    }

    /// Adds those of another device behind its own.
    fn absorb(&mut self, other: Self) {
        let Some(device) = self.cross_entropy.first().map(Tensor::device) else {
            *self = other;
            return;
        };
        for (own, more) in [
            (&mut self.cross_entropy, other.cross_entropy),
            (&mut self.balance, other.balance),
            (&mut self.router_z, other.router_z),
        ] {
            own.extend(more.into_iter().map(|scalar| scalar.to_device(&device)));
        }
        self.meters.absorb(other.meters);
    }

    /// Reads everything at once; the norm is not among it.
    fn read(self, meters: &RouterMeters, step: u64) -> Result<StepFigures, TrainError> {
        let counts = [&self.cross_entropy, &self.balance, &self.router_z].map(Vec::len);
        let scalars = [self.cross_entropy, self.balance, self.router_z].into_iter();
        let scalars = scalars.flatten().chain(meters.entropies());
        let scalars = scalars.map(|scalar| scalar.cast(FloatDType::F32)).collect();
        let values: Vec<f32> = Tensor::cat(scalars, 0)
            .try_into_vec_as()
            .map_err(unreadable("loss", step))?;
        let mut values = values.into_iter().map(f64::from);
        let mut mean = |count: usize| {
            let sum: f64 = values.by_ref().take(count).sum();
            (count > 0).then(|| sum / count as f64)
        };
        let [loss, balance_loss, router_z_loss] = counts.map(&mut mean);
        Ok(StepFigures {
            loss: loss.unwrap_or(f64::NAN),
            balance_loss,
            router_z_loss,
            norm: f64::NAN,
            norms: Vec::new(),
            routers: meters.health(values),
        })
    }
}

impl StepFigures {
    /// Refuses figures that say that training has gone wrong.
    fn check(&self, step: u64) -> Result<(), TrainError> {
        finite("loss", self.loss, step)?;
        for (what, value) in [
            ("balance loss", self.balance_loss),
            ("router z-loss", self.router_z_loss),
        ] {
            value.map_or(Ok(()), |value| finite(what, value, step))?;
        }
        finite("gradient norm", self.norm, step)?;
        let mut routers = self.routers.iter();
        routers.try_for_each(|router| finite("router entropy", router.entropy, step))
    }
}

pub(crate) fn unreadable(
    what: &'static str,
    step: u64,
) -> impl FnOnce(TensorReadError) -> TrainError {
    move |error| TrainError::Device {
        what,
        step,
        reason: error.to_string(),
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
