//! Weight initialisation: which standard deviation each projection gets, drawn the same on every device.
//!
//! Values are drawn on the host from a ChaCha stream keyed by the seed and the parameter's path, so they depend
//! neither on the device nor on the order in which parameters are first touched.
//!
//! | scheme | embedding | input projections | output projections | untied head | source |
//! |---|---|---|---|---|---|
//! | `normal` | s | s | s | s | `init_fn: normal` |
//! | `megatron` | s | s | s/√(2L) | 1/√d | `init_fn: full_megatron` |
//! | `depth-scaled` | s | s | s/√(2l) | s | paper §5.2 (not in the release; l counts from 1) |
//! | `mitchell` | 1/√d | 1/√d | 1/√(2·fan_in·l) | 1/√d | `init_fn: mitchell` |
//! | `deepnorm` | s | Q, K: Xavier; V: β·Xavier; FFN: β·Xavier | β·Xavier | Xavier | arXiv 2203.00555, β = (8L)^(−1/4) |
//!
//! with s = 1/√(2.5·d) unless given, L layers, l the 1-based layer; everything truncated at three deviations.

use burn::module::{Param, ParamId};
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Shape, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive_real};

/// A named initialisation, see the [module's table](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitScheme {
    /// One deviation for all matrices.
    Normal,
    /// Output projections divided by √(2L).
    Megatron,
    /// Output projections divided by √(2l).
    DepthScaled,
    /// OLMo's first default.
    Mitchell,
    /// DeepNorm's gains on Xavier deviations.
    #[serde(rename = "deepnorm")]
    DeepNorm,
}

impl InitScheme {
    /// Every scheme with its name, in the order help shows them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("normal", Self::Normal),
        ("megatron", Self::Megatron),
        ("depth-scaled", Self::DepthScaled),
        ("mitchell", Self::Mitchell),
        ("deepnorm", Self::DeepNorm),
    ];

    /// Whether output projections shrink with depth.
    pub fn is_depth_scaled(self) -> bool {
        matches!(self, Self::Megatron | Self::DepthScaled | Self::Mitchell)
    }
}

impl core::fmt::Display for InitScheme {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (name, _) = Self::ALL
            .iter()
            .find(|(_, scheme)| scheme == self)
            .unwrap_or(&("normal", Self::Normal));
        f.write_str(name)
    }
}

impl core::str::FromStr for InitScheme {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        crate::names::find("init", text, &Self::ALL)
    }
}

/// How a model's parameters are initialised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InitConfig {
    /// The scheme; `None` takes the placement's own best, as the paper does
    /// (Pre-Norm: `normal`, HybridNorm: `megatron`, DeepNorm: `deepnorm`).
    pub scheme: Option<InitScheme>,
    /// Base deviation s; `None` is 1/√(2.5·d_model).
    pub std: Option<f64>,
    /// Deviation of the embedding; `None` takes the scheme's.
    pub embedding_std: Option<f64>,
    /// Values further out than this many deviations are drawn again; 0 does not truncate.
    pub cutoff: f64,
    /// Seed of every draw.
    pub seed: u64,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self {
            scheme: None,
            std: None,
            embedding_std: None,
            cutoff: 3.0,
            seed: 6198,
        }
    }
}

/// What a matrix does in the model; decides its deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Token embedding.
    Embedding,
    /// Query or key projection.
    QueryKey,
    /// Value projection.
    Value,
    /// Projection of the attention output back into the stream.
    AttentionOutput,
    /// Input (up, gate) projection of a feed-forward layer.
    FeedForwardInput,
    /// Output (down) projection of a feed-forward layer.
    FeedForwardOutput,
    /// Untied language-model head.
    Head,
    /// Router of a sparse layer.
    Router,
}

/// Draws parameters by one rule, for one place in the model.
#[derive(Debug, Clone)]
pub struct Initializer {
    scheme: InitScheme,
    std: f64,
    embedding_std: Option<f64>,
    cutoff: f64,
    seed: u64,
    d_model: usize,
    n_layers: usize,
    layer: usize,
    path: String,
    blank: bool,
}

impl Initializer {
    /// The rule of `config` for a model of `n_layers` layers of width `d_model`. `default` is taken when the
    /// configuration names no scheme.
    ///
    /// # Errors
    /// When a deviation or the cutoff is not a finite number above 0.
    pub fn new(
        config: &InitConfig,
        default: InitScheme,
        d_model: usize,
        n_layers: usize,
    ) -> Result<Self, ConfigError> {
        let std = config.std.unwrap_or(1.0 / (2.5 * d_model as f64).sqrt());
        positive_real("init.std", std)?;
        if config.cutoff != 0.0 {
            positive_real("init.cutoff", config.cutoff)?;
        }
        if let Some(std) = config.embedding_std {
            positive_real("init.embedding_std", std)?;
        }
        Ok(Self {
            scheme: config.scheme.unwrap_or(default),
            std,
            embedding_std: config.embedding_std,
            cutoff: config.cutoff,
            seed: config.seed,
            d_model,
            n_layers,
            layer: 0,
            path: String::new(),
            blank: false,
        })
    }

    /// The same rule, but nothing is drawn: matrices are zeros that take no memory until they are looked at. For a loader, which puts
    /// every parameter in.
    #[must_use]
    pub fn blank(mut self) -> Self {
        self.blank = true;
        self
    }

    /// A parameter with the values that `draw` gives, or a blank one.
    fn param<const D: usize>(
        &self,
        shape: [usize; D],
        device: &Device,
        draw: impl FnOnce() -> Vec<f32>,
    ) -> Param<Tensor<D>> {
        if !self.blank {
            return Param::from_tensor(Tensor::from_data(TensorData::new(draw(), shape), device));
        }
        Param::uninitialized(
            ParamId::new(),
            move |device, require_grad| Tensor::zeros(shape, device).set_require_grad(require_grad),
            device.clone(),
            true,
            Shape::from(shape),
        )
    }

    /// The rule for the part of the model called `name`.
    pub fn at(&self, name: &str) -> Self {
        let mut child = self.clone();
        child.path = format!("{}{name}.", self.path);
        child
    }

    /// The rule for block `layer` (0-based).
    pub fn at_layer(&self, layer: usize) -> Self {
        let mut child = self.at(&format!("blocks.{layer}"));
        child.layer = layer;
        child
    }

    /// The standard deviation of a matrix before truncation.
    pub fn std(&self, role: Role, fan_in: usize, fan_out: usize) -> f64 {
        use Role::*;
        let inverse_sqrt_d = 1.0 / (self.d_model as f64).sqrt();
        if role == Embedding
            && let Some(std) = self.embedding_std
        {
            return std;
        }
        let is_output = matches!(role, AttentionOutput | FeedForwardOutput);
        let l = (self.layer + 1) as f64;
        match self.scheme {
            InitScheme::Normal => self.std,
            InitScheme::Megatron if is_output => self.std / (2.0 * self.n_layers as f64).sqrt(),
            InitScheme::Megatron if role == Head => inverse_sqrt_d,
            InitScheme::DepthScaled if is_output => self.std / (2.0 * l).sqrt(),
            InitScheme::Megatron | InitScheme::DepthScaled => self.std,
            InitScheme::Mitchell if is_output => 1.0 / (2.0 * fan_in as f64 * l).sqrt(),
            InitScheme::Mitchell => inverse_sqrt_d,
            InitScheme::DeepNorm => {
                let xavier = (2.0 / (fan_in + fan_out) as f64).sqrt();
                let beta = (8.0 * self.n_layers as f64).powf(-0.25);
                match role {
                    Embedding => self.std,
                    QueryKey | Head | Router => xavier,
                    Value | AttentionOutput | FeedForwardInput | FeedForwardOutput => beta * xavier,
                }
            }
        }
    }

    /// A linear layer `[d_in, Σ widths]` whose columns are groups of their own `(role, name, width)`, each drawn
    /// from its own stream: a fused projection equals the separate ones. Biases start at zero.
    pub fn linear(
        &self,
        d_in: usize,
        columns: &[(Role, &str, usize)],
        bias: bool,
        device: &Device,
    ) -> Linear {
        let d_out: usize = columns.iter().map(|(_, _, width)| width).sum();
        let draw = || {
            let mut weight = vec![0f32; d_in * d_out];
            let mut start = 0;
            for &(role, name, width) in columns {
                let mut draw = self.stream(name, self.std(role, d_in, width));
                for row in weight.chunks_exact_mut(d_out) {
                    row[start..start + width].fill_with(&mut draw);
                }
                start += width;
            }
            weight
        };
        Linear {
            weight: self.param([d_in, d_out], device, draw),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([d_out], device))),
        }
    }

    /// `n` matrices in one tensor, `[n, d_in, d_out]`, each drawn from its own stream: matrix `i` does not depend on `n`.
    pub fn stacked(
        &self,
        role: Role,
        name: &str,
        [n, d_in, d_out]: [usize; 3],
        device: &Device,
    ) -> Param<Tensor<3>> {
        let std = self.std(role, d_in, d_out);
        self.param([n, d_in, d_out], device, || {
            let mut weight = vec![0f32; n * d_in * d_out];
            for (i, matrix) in weight.chunks_exact_mut(d_in * d_out).enumerate() {
                matrix.fill_with(self.stream(&format!("{name}.{i}"), std));
            }
            weight
        })
    }

    /// The token embedding `[rows, d_model]`.
    pub fn embedding(&self, rows: usize, device: &Device) -> Embedding {
        let std = self.std(Role::Embedding, rows, self.d_model);
        let draw = || {
            let mut draw = self.stream("embedding", std);
            (0..rows * self.d_model).map(|_| draw()).collect()
        };
        Embedding {
            weight: self.param([rows, self.d_model], device, draw),
        }
    }

    /// The endless stream of values for the parameter `name` of this place.
    fn stream(&self, name: &str, std: f64) -> impl FnMut() -> f32 + use<> {
        let mut rng =
            ChaCha8Rng::from_seed(stream_seed(self.seed, &format!("{}{name}", self.path)));
        let cutoff = if self.cutoff == 0.0 {
            f64::INFINITY
        } else {
            self.cutoff
        };
        move || {
            loop {
                let z: f64 = StandardNormal.sample(&mut rng);
                if z.abs() <= cutoff {
                    return (z * std) as f32;
                }
            }
        }
    }
}

/// A 256-bit generator seed from a run's seed and a parameter's path: four FNV-1a hashes with different offsets.
fn stream_seed(seed: u64, path: &str) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (lane, bytes) in out.chunks_exact_mut(8).enumerate() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ (lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in seed.to_le_bytes().iter().chain(path.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        bytes.copy_from_slice(&hash.to_le_bytes());
    }
    out
}
