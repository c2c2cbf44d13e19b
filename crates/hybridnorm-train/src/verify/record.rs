//! What a model computes on one device, as plain numbers: every value of a forward pass, every gradient, an AdamW trajectory.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorReadError};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::trace::{Branch, Op, Place};
use hybridnorm_core::{Decoder, Pass};
use hybridnorm_interop::{Array, NameMap};
use hybridnorm_moe::{Auxiliary, FeedForwardLayer, LossConfig, Routing};

use super::routing::Routed;
use super::values::{array_of, gradients, parameters, values_of};
use crate::recipe::{AdamWConfig, GradientNorms, Optimizer, Schedule, clip_coefficient};

/// What is to be computed.
#[derive(Debug)]
pub struct Work {
    /// Token ids `[batch, seq]` of the forward pass and the gradients.
    pub tokens: Array,
    /// The losses of the routers, which sparse layers add to both.
    pub auxiliary: LossConfig,
    /// What the parameters are called.
    pub names: NameMap,
    /// The trajectory, if there is one.
    pub trajectory: Option<TrajectoryWork>,
}

/// A training run in small.
#[derive(Debug)]
pub struct TrajectoryWork {
    /// Token ids `[steps, batch, seq]`.
    pub batches: Array,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The learning rate of each step, counted from 1.
    pub schedule: Schedule,
    /// After which steps the parameters are kept.
    pub keep: Vec<u64>,
}

/// The numbers.
#[derive(Debug)]
pub struct Record {
    /// Every value of the forward pass, in order.
    pub forward: Vec<(Place, Array)>,
    /// What the routers did in that pass, one sparse layer after the other.
    pub routing: Vec<Routed>,
    /// The losses of that pass; absent where a single token has no next one.
    pub losses: Option<Losses>,
    /// The gradient of the mean loss and the routers' losses, by parameter under the file's name, in the order of the forward pass.
    pub gradients: Vec<(String, Option<Array>)>,
    /// The steps of the trajectory.
    pub steps: Vec<Step>,
    /// Parameters after the steps asked for, under the file's names.
    pub parameters: BTreeMap<u64, Vec<(String, Array)>>,
    /// Mean loss on the first tokens after the trajectory.
    pub last_loss: Option<f64>,
}

/// Losses in nats.
#[derive(Debug, Clone, Copy)]
pub struct Losses {
    /// Over the B·(T−1) targets.
    pub mean: f64,
    /// The official training loss: the same sum over B·T.
    pub train: f64,
    /// Load balancing times its weight; `None` without.
    pub balance: Option<f64>,
    /// Router z-loss times its weight; `None` without.
    pub z: Option<f64>,
}

impl Losses {
    /// The losses of the routers.
    pub fn auxiliary(&self) -> f64 {
        self.balance.unwrap_or(0.0) + self.z.unwrap_or(0.0)
    }
}

/// One step of a trajectory; losses are those before the update.
#[derive(Debug, Clone)]
pub struct Step {
    /// Losses of the batch.
    pub losses: Losses,
    /// What the routers did.
    pub routing: Vec<Routed>,
    /// Global L2 norm of the gradients of `losses.train` and the routers' losses.
    pub grad_norm: f64,
    /// What they were multiplied by.
    pub clip: f64,
    /// Learning rate.
    pub lr: f64,
}

/// Computes `work` with `model`, which must be on the autodiff device `device`.
///
/// # Errors
/// When the device fails.
pub fn record(
    mut model: Decoder<FeedForwardLayer>,
    work: &Work,
    device: &Device,
) -> Result<Record, TensorReadError> {
    let ids = Tensor::<2, Int>::from_data(work.tokens.to_i64(), device);
    let mut pass = Pass::causal().traced();
    let logits = model.forward_in(ids.clone(), &mut pass);
    let reports = std::mem::take(&mut pass.reports);
    let trace = pass.into_trace().unwrap_or_default();
    let forward = trace.values().iter();
    let mut record = Record {
        forward: forward.map(|(at, x)| (*at, array_of(x.clone()))).collect(),
        routing: reports.iter().map(Routed::new).collect(),
        losses: None,
        gradients: Vec::new(),
        steps: Vec::new(),
        parameters: BTreeMap::new(),
        last_loss: None,
    };
    drop(trace);
    if ids.dims()[1] == 1 {
        return Ok(record);
    }
    let losses = TensorLosses::new(logits, ids.clone(), &reports, &work.auxiliary);
    record.losses = Some(losses.read());
    let grads = GradientsParams::from_grads(losses.with_auxiliary(&losses.mean).backward(), &model);
    record.gradients = gradients(&model, &grads, &work.names);
    let Some(trajectory) = &work.trajectory else {
        return Ok(record);
    };
    let mut optimizer = Optimizer::new(trajectory.optimizer.clone(), &model);
    let batches = Tensor::<3, Int>::from_data(trajectory.batches.to_i64(), device);
    for (step, batch) in (1..).zip(batches.iter_dim(0)) {
        let batch: Tensor<2, Int> = batch.squeeze_dim(0);
        let mut pass = Pass::causal();
        let logits = model.forward_in(batch.clone(), &mut pass);
        let losses = TensorLosses::new(logits, batch, &pass.reports, &work.auxiliary);
        let loss = losses.with_auxiliary(&losses.train);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let grad_norm = GradientNorms::measure(&grads, &model)?.global();
        let clip = clip_coefficient(grad_norm, trajectory.optimizer.max_grad_norm);
        let lr = trajectory.schedule.at(step);
        model = optimizer.step(model, grads, lr, clip);
        record.steps.push(Step {
            losses: losses.read(),
            routing: pass.reports.iter().map(Routed::new).collect(),
            grad_norm,
            clip,
            lr,
        });
        if trajectory.keep.contains(&step) {
            let parameters = parameters(&model, &work.names);
            record.parameters.insert(step, parameters);
        }
    }
    let losses = TensorLosses::new(model.forward(ids.clone()), ids, &[], &work.auxiliary);
    record.last_loss = Some(losses.read().mean);
    Ok(record)
}

/// The losses of one pass, on the device; paper.md §3.4.
struct TensorLosses {
    /// Over the B·(T−1) targets.
    mean: Tensor<1>,
    /// The official training loss: the same sum over B·T.
    train: Tensor<1>,
    auxiliary: Auxiliary,
}

impl TensorLosses {
    fn new(
        logits: Tensor<3>,
        ids: Tensor<2, Int>,
        reports: &[Routing],
        auxiliary: &LossConfig,
    ) -> Self {
        let [batch, seq, vocab] = logits.dims();
        let targets = batch * (seq - 1);
        let logits = logits.narrow(1, 0, seq - 1).reshape([targets, vocab]);
        let next = ids.narrow(1, 1, seq - 1).reshape([targets]);
        let sum = token_losses(logits, next, None).nll.sum();
        Self {
            mean: sum.clone() / targets as f64,
            train: sum / (batch * seq) as f64,
            auxiliary: auxiliary.of(reports),
        }
    }

    fn with_auxiliary(&self, loss: &Tensor<1>) -> Tensor<1> {
        self.auxiliary.add_to(loss.clone())
    }

    fn read(&self) -> Losses {
        let number = |x: &Tensor<1>| values_of(x.clone()).first().copied().unwrap_or(f64::NAN);
        Losses {
            mean: number(&self.mean),
            train: number(&self.train),
            balance: self.auxiliary.balance.as_ref().map(number),
            z: self.auxiliary.z.as_ref().map(number),
        }
    }
}

impl Record {
    /// The values that the reference lists, under its names.
    pub fn named(&self) -> Vec<(String, Option<&Array>)> {
        let layers = self.forward.iter().filter_map(|(place, _)| place.layer);
        let layers = 0..layers.max().map_or(0, |last| last + 1);
        let embedding = self.last(|at| matches!(at.op, Op::Embedding | Op::EmbeddingNorm));
        let mut named = vec![("hidden.embed".to_string(), embedding)];
        for layer in layers {
            for (site, branch) in [
                ("attn_out", Branch::Attention),
                ("ffn_out", Branch::FeedForward),
            ] {
                let output = (Some(layer), Some(branch), Op::Output);
                let value = self.last(|at| (at.layer, at.branch, at.op) == output);
                named.push((format!("{site}.{layer}"), value));
            }
            let hidden = self.last(|at| at.layer == Some(layer));
            named.push((format!("hidden.{layer}"), hidden));
        }
        named.push(("hidden.ln_f".into(), self.last(|at| at.op != Op::Logits)));
        named.push(("logits".into(), self.last(|at| at.op == Op::Logits)));
        named
    }

    fn last(&self, wanted: impl Fn(&Place) -> bool) -> Option<&Array> {
        let mut values = self.forward.iter().rev();
        values.find(|(place, _)| wanted(place)).map(|(_, x)| x)
    }
}
