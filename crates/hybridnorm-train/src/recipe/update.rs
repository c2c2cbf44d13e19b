//! How far a step moves the weights, group by group.

use std::collections::BTreeMap;

use burn::module::ParamId;
use burn::tensor::{FloatDType, Tensor, TensorReadError};
use hybridnorm_kernels::square_sum;
use serde::{Deserialize, Serialize};

use super::groups::{ParamInfo, ParamKind};

/// The part of a model that a parameter belongs to, as far as watching it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamGroup {
    /// The token embedding, which is the head of a tied model too.
    Embedding,
    /// The matrices of attention.
    Attention,
    /// The matrices of dense feed-forward layers, shared experts included.
    FeedForward,
    /// The routers of sparse layers.
    Router,
    /// The experts of sparse layers.
    Experts,
    /// Weights of norms, and all biases.
    Norms,
    /// The matrix before the logits.
    Head,
    /// Matrices of modules that are not this project's.
    Other,
}

impl ParamGroup {
    /// The group of a parameter.
    pub fn of(param: &ParamInfo) -> Self {
        let inside = |name: &str| param.path.split('.').any(|part| part == name);
        match param.kind {
            ParamKind::NormOrBias => Self::Norms,
            ParamKind::Embedding => Self::Embedding,
            ParamKind::Head => Self::Head,
            ParamKind::Matrix if inside("attention") => Self::Attention,
            ParamKind::Matrix if inside("router") => Self::Router,
            ParamKind::Matrix if inside("experts") => Self::Experts,
            ParamKind::Matrix if inside("feed_forward") => Self::FeedForward,
            ParamKind::Matrix => Self::Other,
        }
    }
}

/// ‖Δw‖/‖w‖ of each group in one step, w being the weights before it. A group of zeros has none.
pub type UpdateRatios = BTreeMap<ParamGroup, f64>;

/// What a step did, not yet read from the device.
#[derive(Debug, Default)]
pub struct Update {
    params: Vec<(ParamId, ParamGroup)>,
    /// ‖Δw‖² and ‖w‖² of each parameter in turn.
    squares: Vec<Tensor<1>>,
}

/// How far a step moved the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Movement {
    /// Each parameter that had a gradient.
    pub each: Vec<Moved>,
}

/// How far a step moved one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// The parameter.
    pub id: ParamId,
    /// Its group.
    pub group: ParamGroup,
    /// ‖Δw‖².
    pub moved: f64,
    /// ‖w‖², before the step.
    pub size: f64,
}

impl Update {
    /// Adds a parameter.
    pub(super) fn add<const D: usize>(
        &mut self,
        id: ParamId,
        group: ParamGroup,
        before: Tensor<D>,
        after: Tensor<D>,
    ) {
        let square = |x: Tensor<D>| square_sum(x.cast(FloatDType::F32));
        self.params.push((id, group));
        let moved = square(after - before.clone());
        self.squares.extend([moved, square(before)]);
    }

    /// Reads one small tensor back from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self) -> Result<Movement, TensorReadError> {
        if self.squares.is_empty() {
            return Ok(Movement::default());
        }
        let squares: Vec<f32> = Tensor::cat(self.squares, 0).try_into_vec_as()?;
        let params = self.params.into_iter().zip(squares.as_chunks::<2>().0);
        let each = params.map(|((id, group), [moved, size])| Moved {
            id,
            group,
            moved: f64::from(*moved),
            size: f64::from(*size),
        });
        Ok(Movement {
            each: each.collect(),
        })
    }
}

impl Movement {
    /// How far it moved each group over its size.
    pub fn ratios(&self) -> UpdateRatios {
        let mut sums: BTreeMap<ParamGroup, [f64; 2]> = BTreeMap::new();
        for param in &self.each {
            let sum = sums.entry(param.group).or_default();
            sum[0] += param.moved;
            sum[1] += param.size;
        }
        let ratios = sums
            .into_iter()
            .filter(|(_, [_, size])| *size > 0.0)
            .map(|(group, [moved, size])| (group, (moved / size).sqrt()));
        ratios.collect()
    }
}
