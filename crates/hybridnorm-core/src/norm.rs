//! RMSNorm and LayerNorm over the last dimension.
//!
//! The statistics are computed in `f32` whatever the input's float type, the result is cast back, and only then
//! multiplied by the learned scale (paper.md §1.4; `model.py`, `RMSLayerNorm`):
//!
//! ```text
//! RMSNorm(x)   = x / sqrt(mean(x²) + ε) · weight (+ bias)
//! LayerNorm(x) = (x − mean(x)) / sqrt(var(x) + ε) · weight (+ bias)      var is the biased one, over d
//! ```
//!
//! Gemma stores a scale as its distance from one ([`NormStyle::unit_offset`]): `1 + weight` stands for `weight` then.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use hybridnorm_kernels::{NormSpec, norm};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive, positive_real};
use crate::precision::{at_least_f32, is_at_least_f32};

/// Which statistics a [`Norm`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormKind {
    /// Root mean square only (arXiv 1910.07467). The paper's choice.
    #[default]
    Rms,
    /// Mean and variance (arXiv 1607.06450).
    Layer,
}

/// What all norms of a model share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NormStyle {
    /// RMSNorm or LayerNorm.
    pub kind: NormKind,
    /// ε, added to the mean square or variance.
    pub epsilon: f64,
    /// Learned scale on the norms around sublayers, on the embedding and before the head.
    pub affine: bool,
    /// Learned scale on the query, key, value and context norms inside attention.
    pub attention_affine: bool,
    /// Learned shift beside every learned scale.
    pub bias: bool,
    /// The learned scale is `1 + weight`, and weights start at 0 (Gemma): decay pulls the scale to 1 then, not to 0.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub unit_offset: bool,
}

impl Default for NormStyle {
    fn default() -> Self {
        Self {
            kind: NormKind::Rms,
            epsilon: 1e-5,
            affine: true,
            attention_affine: true,
            bias: false,
            unit_offset: false,
        }
    }
}

impl NormStyle {
    /// The configuration of a norm of width `d` around a sublayer.
    pub fn around(&self, d: usize) -> NormConfig {
        NormConfig {
            d,
            kind: self.kind,
            epsilon: self.epsilon,
            affine: self.affine,
            bias: self.bias,
            unit_offset: self.unit_offset,
        }
    }

    /// The configuration of a norm of width `d` inside attention.
    pub fn inside_attention(&self, d: usize) -> NormConfig {
        NormConfig {
            affine: self.attention_affine,
            ..self.around(d)
        }
    }
}

/// Configuration of one [`Norm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormConfig {
    /// Size of the dimension that is normalised.
    pub d: usize,
    /// RMSNorm or LayerNorm.
    #[serde(default)]
    pub kind: NormKind,
    /// ε, added to the mean square or variance.
    pub epsilon: f64,
    /// Whether a scale is learned.
    pub affine: bool,
    /// Whether a shift is learned; has no effect without `affine`.
    pub bias: bool,
    /// Whether the scale is `1 + weight`; has no effect without `affine`.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unit_offset: bool,
}

impl NormConfig {
    /// An affine RMSNorm of width `d` with ε = 1e-5 and no bias.
    pub fn new(d: usize) -> Self {
        NormStyle::default().around(d)
    }

    /// Number of parameters, without building it.
    pub fn num_params(&self) -> usize {
        self.d * usize::from(self.affine) * (1 + usize::from(self.bias))
    }

    /// Builds the norm: its scale is one, its shift zero.
    ///
    /// # Errors
    /// When `d` is zero or ε is not a finite number above 0.
    pub fn init(&self, device: &Device) -> Result<Norm, ConfigError> {
        positive("norm.d", self.d)?;
        positive_real("norm.epsilon", self.epsilon)?;
        let one = || match self.unit_offset {
            true => Tensor::zeros([self.d], device),
            false => Tensor::ones([self.d], device),
        };
        Ok(Norm {
            weight: self.affine.then(|| Param::from_tensor(one())),
            bias: (self.affine && self.bias)
                .then(|| Param::from_tensor(Tensor::zeros([self.d], device))),
            kind: self.kind,
            epsilon: self.epsilon,
            unit_offset: self.unit_offset,
        })
    }
}

/// RMSNorm or LayerNorm over the last dimension. Built by [`NormConfig::init`].
#[derive(Module, Debug)]
pub struct Norm {
    /// Learned scale, `[d]`, or its distance from one; absent when the norm is not affine.
    pub weight: Option<Param<Tensor<1>>>,
    /// Learned shift, `[d]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: NormKind,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    unit_offset: bool,
}

impl Norm {
    /// Normalises the last dimension.
    ///
    /// # Shapes
    /// - input `[.., d]`
    /// - output `[.., d]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let spec = NormSpec {
            epsilon: self.epsilon,
            centred: self.kind == NormKind::Layer,
        };
        let (d, device, dtype) = (x.dims()[D - 1], x.device(), x.dtype());
        let ones = |dtype: DType| Tensor::ones([d], (&device, dtype));
        let bias = self.bias.as_ref().map(Param::val);
        if is_at_least_f32(&x) {
            let scale = self.scale().unwrap_or_else(|| ones(dtype));
            return norm(x, scale, bias, spec);
        }
        let x = at_least_f32(x);
        let mut y = norm(x.clone(), ones(x.dtype()), None, spec).cast(dtype);
        if let Some(scale) = self.scale() {
            y = y * scale.unsqueeze();
        }
        if let Some(bias) = bias {
            y = y + bias.unsqueeze();
        }
        y
    }

    /// The factor on the normalised input, `[d]`: the weight, or one more than it.
    pub(crate) fn scale(&self) -> Option<Tensor<1>> {
        let weight = self.weight.as_ref()?.val();
        Some(match self.unit_offset {
            true => weight + 1.0,
            false => weight,
        })
    }

    /// The ε in use.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// RMSNorm or LayerNorm.
    pub fn kind(&self) -> NormKind {
        self.kind
    }
}
