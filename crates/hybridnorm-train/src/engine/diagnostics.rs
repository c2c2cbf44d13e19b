//! What every layer does in a step: a `diagnostics` line of `metrics.jsonl`.
//!
//! Gradients are those the step is taken with: the mean over all micro-batches and devices, before clipping. What only a forward pass can
//! tell comes from one more of it, without autodiff and without noise, on the first sequences of the step's first micro-batch and with the
//! weights that the gradient belongs to. Nothing of it reaches the weights.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use burn::module::{Module, ParamId};
use burn::tensor::TensorReadError;
use hybridnorm_core::{LayerFigures, ProbeFigures};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::model::{LanguageModel, TokenBatch};
use super::step::{StepGradients, unreadable};
use crate::recipe::{Moved, Movement, ParamGroup, ParamInfo, params};

/// A figure of each layer, in order; `None` (`null`) where it is not a finite number.
pub type Layers = Vec<Option<f64>>;

/// What every layer did in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// The step, counted from 1.
    pub step: u64,
    /// Tokens trained on, this step's included.
    pub tokens: u64,
    /// Norm of the mean gradient, before clipping.
    pub gradient_norm: PartFigures,
    /// Norm of the weights, before the step.
    pub weight_norm: PartFigures,
    /// ‖Δw‖/‖w‖ of the step.
    pub update_ratio: PartFigures,
    /// What the forward pass told.
    #[serde(flatten)]
    pub forward: ForwardFigures,
    /// Seconds that it took beside the step, which `tokens_per_s` leaves out.
    pub seconds: f64,
}

/// What a forward pass tells of every layer. Definitions: [`hybridnorm_core::probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardFigures {
    /// RMS of the residual stream before the first block.
    pub embedding_rms: Option<f64>,
    /// RMS of the residual stream behind each block.
    pub activation_rms: Layers,
    /// Mean cosine of pairs of tokens before the first block.
    pub embedding_similarity: Option<f64>,
    /// The same behind each block.
    pub token_similarity: Layers,
    /// Mean entropy of attention in nats, over all heads.
    pub attention_entropy: Layers,
    /// Mean entropy of the head that has the least.
    pub least_head_entropy: Layers,
    /// The largest score that goes into the softmax.
    pub largest_logit: Layers,
    /// Sequences that were passed through the model for it.
    pub sequences: usize,
}

/// A figure of each part of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartFigures {
    /// The token embedding, which is the head of a tied model too.
    pub embedding: Option<f64>,
    /// The matrices of attention, by layer.
    pub attention: Layers,
    /// The matrices of the feed-forward layer, experts and router included, by layer.
    pub feed_forward: Layers,
    /// Norms and biases, by layer.
    pub norms: Layers,
    /// The head of an untied model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<f64>,
    /// All else: the norms outside the blocks.
    pub other: Option<f64>,
}

impl ForwardFigures {
    /// The record of what a pass over `sequences` told.
    pub(crate) fn new(figures: &ProbeFigures, sequences: usize) -> Self {
        let layers = |pick: fn(&LayerFigures) -> f64| {
            let layers = figures.layers.iter();
            layers.map(|layer| finite(pick(layer))).collect()
        };
        Self {
            embedding_rms: finite(figures.embedding.rms),
            activation_rms: layers(|layer| layer.stream.rms),
            embedding_similarity: finite(figures.embedding.token_similarity),
            token_similarity: layers(|layer| layer.stream.token_similarity),
            attention_entropy: layers(LayerFigures::mean_entropy),
            least_head_entropy: layers(LayerFigures::least_entropy),
            largest_logit: layers(|layer| layer.largest_logit),
            sequences,
        }
    }
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Embedding,
    Head,
    Other,
    Attention(usize),
    FeedForward(usize),
    Norms(usize),
}

impl Part {
    fn of(param: &ParamInfo) -> Self {
        let mut names = param.path.split('.').skip_while(|name| *name != "blocks");
        let layer = names.nth(1).and_then(|number| number.parse().ok());
        match (ParamGroup::of(param), layer) {
            (ParamGroup::Embedding, _) => Self::Embedding,
            (ParamGroup::Head, _) => Self::Head,
            (ParamGroup::Attention, Some(layer)) => Self::Attention(layer),
            (ParamGroup::Norms, Some(layer)) => Self::Norms(layer),
            (_, Some(layer)) => Self::FeedForward(layer),
            (_, None) => Self::Other,
        }
    }
}

/// The part of every parameter of a model.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    layers: usize,
    of: HashMap<ParamId, Part>,
}

impl Parts {
    pub(crate) fn new(model: &LanguageModel) -> Self {
        let params = params(model);
        Self {
            layers: model.decoder.blocks.len(),
            of: params
                .iter()
                .map(|param| (param.id, Part::of(param)))
                .collect(),
        }
    }

    /// The roots of the sums of `squares`, part by part.
    pub(crate) fn roots(&self, squares: impl Iterator<Item = (ParamId, f64)>) -> PartFigures {
        let squares = squares.map(|(id, square)| (id, [square, 1.0]));
        self.figures(squares, |[square, _]| square.sqrt())
    }

    /// How far each part moved over its size.
    fn ratios(&self, movement: &[Moved]) -> PartFigures {
        let squares = movement
            .iter()
            .map(|param| (param.id, [param.moved, param.size]));
        self.figures(squares, |[moved, size]| (moved / size).sqrt())
    }

    fn figures(
        &self,
        squares: impl Iterator<Item = (ParamId, [f64; 2])>,
        figure: fn([f64; 2]) -> f64,
    ) -> PartFigures {
        let zeros = || vec![[0.0; 2]; self.layers];
        let [mut attention, mut feed_forward, mut norms] = [zeros(), zeros(), zeros()];
        let [mut embedding, mut other] = [[0.0; 2]; 2];
        let mut head: Option<[f64; 2]> = None;
        for (id, [a, b]) in squares {
            let sum = match self.of.get(&id).copied().unwrap_or(Part::Other) {
                Part::Embedding => Some(&mut embedding),
                Part::Head => Some(head.get_or_insert_default()),
                Part::Other => Some(&mut other),
                Part::Attention(layer) => attention.get_mut(layer),
                Part::FeedForward(layer) => feed_forward.get_mut(layer),
                Part::Norms(layer) => norms.get_mut(layer),
            };
            if let Some(sum) = sum {
                sum[0] += a;
                sum[1] += b;
            }
        }
        let figure = |sum: [f64; 2]| finite(figure(sum));
        let layers = |sums: Vec<[f64; 2]>| sums.into_iter().map(figure).collect();
        PartFigures {
            embedding: figure(embedding),
            attention: layers(attention),
            feed_forward: layers(feed_forward),
            norms: layers(norms),
            head: head.and_then(figure),
            other: figure(other),
        }
    }
}

/// What was seen of a step before it was taken.
pub(crate) struct Observed {
    parts: Parts,
    pub gradient_norm: PartFigures,
    pub forward: ForwardFigures,
    /// What it took.
    pub time: Duration,
    movement: Movement,
}

impl Observed {
    /// Looks at `gradients`, and at what `model`, which they were computed with, does with the first `sequences` of step `step`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(
        model: &LanguageModel,
        gradients: &StepGradients,
        sequences: usize,
        step: u64,
    ) -> Result<Self, TrainError> {
        let started = Instant::now();
        let parts = Parts::new(model);
        let norms = gradients.figures.norms.iter();
        let gradient_norm = parts.roots(norms.map(|(id, norm)| (*id, norm * norm)));
        let nothing = || TrainError::Batch {
            step,
            problem: "it has no micro-batch to look at".to_string(),
        };
        let sample = gradients.sample.clone().ok_or_else(nothing)?;
        let sample = sample.first(sequences);
        let [sequences, _] = sample.tokens.dims();
        let figures = model.observe(sample);
        let figures = figures.map_err(unreadable("diagnostics", step))?;
        Ok(Self {
            parts,
            gradient_norm,
            forward: ForwardFigures::new(&figures, sequences),
            time: started.elapsed(),
            movement: Movement::default(),
        })
    }

    /// With how far the step then moved the weights.
    pub fn with_movement(self, movement: Movement) -> Self {
        Self { movement, ..self }
    }
}

impl Diagnostics {
    pub(super) fn new(step: u64, tokens: u64, seen: Observed) -> Self {
        let moved = &seen.movement.each;
        let sizes = moved.iter().map(|param| (param.id, param.size));
        Self {
            step,
            tokens,
            weight_norm: seen.parts.roots(sizes),
            update_ratio: seen.parts.ratios(moved),
            gradient_norm: seen.gradient_norm,
            forward: seen.forward,
            seconds: seen.time.as_secs_f64(),
        }
    }
}

impl LanguageModel {
    /// What a forward pass over `batch` tells of every layer, without autodiff and without noise.
    pub(crate) fn observe(&self, batch: TokenBatch) -> Result<ProbeFigures, TensorReadError> {
        let plain = self.valid();
        let batch = TokenBatch {
            noise: None,
            ..batch.without_autodiff()
        };
        let mut pass = plain.pass(&batch).probed();
        plain.decoder.hidden(batch.input(), &mut pass);
        pass.into_probe().unwrap_or_default().read()
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
