//! The lines of `probe.jsonl`. `docs/probe.md` documents every field.

use serde::{Deserialize, Serialize};

use super::coupling::{LayerCoupling, ModelCoupling};
use super::subject::{Measure, Subject};
use crate::engine::{ForwardFigures, PartFigures};
use crate::run::RunConfig;

/// One line: the setting, which comes first, or one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// What all measurements share.
    Setting(Box<Setting>),
    /// The layers of a model in the first and the last step of a short run.
    Layers(Box<Layers>),
    /// How gradients follow the scale of the weights.
    Coupling(Box<Coupling>),
    /// One learning rate that was tried.
    LearningRate(Trial),
    /// A short run from one initialisation.
    Init(Trial),
}

/// What all measurements share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Version of the program that began.
    pub program: String,
    /// Where the first of them were computed.
    pub device: String,
    /// Names corpus, tokenizer and order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Optimiser steps of a short run.
    pub steps: u64,
    /// Those of them in which the learning rate rises.
    pub warmup_steps: u64,
    /// The configuration; placement, depth, initialisation and learning rate are those of each measurement.
    pub config: RunConfig,
}

/// The layers of a model in the first and the last step of a short run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layers {
    /// Of which model.
    #[serde(flatten)]
    pub subject: Subject,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// What was seen; the last step is missing where the run diverged before it.
    pub looks: Vec<Look>,
    /// How the run diverged, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<Divergence>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The layers of a model in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The step, counted from 1; all figures are from before its update.
    pub step: u64,
    /// Mean cross-entropy in nats per token.
    pub loss: f64,
    /// Norm of the mean gradient, before clipping.
    pub gradient_norm: PartFigures,
    /// What the forward pass told.
    #[serde(flatten)]
    pub forward: ForwardFigures,
}

/// A run that went wrong: a result like any other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The step that showed it.
    pub step: u64,
    /// A sentence.
    pub reason: String,
}

/// A short run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Of which model.
    #[serde(flatten)]
    pub subject: Subject,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// Cross-entropy of each step before its update, in nats per token.
    pub losses: Vec<f64>,
    /// Mean of the last quarter of them; `None` where the run broke off.
    pub final_loss: Option<f64>,
    /// How it diverged, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<Divergence>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How gradients follow the scale of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coupling {
    /// Of which model.
    #[serde(flatten)]
    pub subject: Subject,
    /// The factors on the weights.
    pub scales: Vec<f64>,
    /// Attention of single layers, with their input as it is.
    pub layers: Vec<LayerCoupling>,
    /// The whole model, with the queries, keys and values of all layers scaled.
    pub model: ModelCoupling,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Line {
    /// What was measured, and of which model; `None` for the setting.
    pub fn about(&self) -> Option<(Measure, &Subject)> {
        match self {
            Self::Setting(_) => None,
            Self::Layers(line) => Some((Measure::Layers, &line.subject)),
            Self::Coupling(line) => Some((Measure::Coupling, &line.subject)),
            Self::LearningRate(line) => Some((Measure::LearningRate, &line.subject)),
            Self::Init(line) => Some((Measure::Init, &line.subject)),
        }
    }
}
