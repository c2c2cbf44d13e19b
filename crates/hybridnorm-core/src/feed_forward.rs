//! The feed-forward sublayer: the trait a block is generic over, and the dense ones.

use core::fmt;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, activation};
use hybridnorm_kernels::{Gate, glu};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive};
use crate::init::{Initializer, Role};
use crate::pass::Pass;
use crate::trace::Op;

/// A feed-forward sublayer. `hybridnorm-moe` and a user's own layer plug into [`Block`](crate::Block) through it.
pub trait FeedForward: Module {
    /// What one layer reports of a forward pass besides its output (`()` for a dense layer, the routing for a
    /// sparse one). A layer pushes it into [`Pass::reports`].
    type Report;

    /// # Shapes
    /// - input `[batch, seq, d_model]`
    /// - output `[batch, seq, d_model]`
    fn forward(&self, x: Tensor<3>, pass: &mut Pass<Self::Report>) -> Tensor<3>;
}

/// The non-linearity of a feed-forward layer, and whether it is on a gate beside the value (arXiv 2002.05202).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `silu(x·W_gate) ⊙ (x·W_up)`. The paper's choice.
    #[default]
    SwiGlu,
    /// `gelu_tanh(x·W_gate) ⊙ (x·W_up)`, as in Gemma.
    GeGlu,
    /// `gelu(x·W_gate) ⊙ (x·W_up)`, exact (erf).
    GeGluExact,
    /// `relu(x·W_gate) ⊙ (x·W_up)`.
    ReGlu,
    /// `gelu(x·W)`, exact (erf).
    Gelu,
    /// `relu(x·W)`.
    Relu,
}

impl Activation {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::SwiGlu,
        Self::GeGlu,
        Self::GeGluExact,
        Self::ReGlu,
        Self::Gelu,
        Self::Relu,
    ];

    /// The function on the gate that the input projection carries beside the value; `None` where it carries none.
    pub fn gate(self) -> Option<Gate> {
        match self {
            Self::SwiGlu => Some(Gate::Silu),
            Self::GeGlu => Some(Gate::GeluTanh),
            Self::GeGluExact => Some(Gate::Gelu),
            Self::ReGlu => Some(Gate::Relu),
            Self::Gelu | Self::Relu => None,
        }
    }

    /// Whether the input projection carries a gate beside the value.
    pub fn is_gated(self) -> bool {
        self.gate().is_some()
    }
}

/// As configuration files spell it.
impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SwiGlu => "swi-glu",
            Self::GeGlu => "ge-glu",
            Self::GeGluExact => "ge-glu-exact",
            Self::ReGlu => "re-glu",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
        })
    }
}

/// Configuration of a [`DenseFeedForward`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseFeedForwardConfig {
    /// Width of the stream.
    pub d_model: usize,
    /// Inner width, per branch for the gated activations (paper.md §2.1: "FFN").
    pub d_ff: usize,
    /// Non-linearity.
    #[serde(default)]
    pub activation: Activation,
    /// Biases on both projections.
    #[serde(default)]
    pub bias: bool,
}

impl DenseFeedForwardConfig {
    /// Number of parameters, without building it.
    pub fn num_params(&self) -> usize {
        let branches = 1 + usize::from(self.activation.is_gated());
        let biases = usize::from(self.bias) * (branches * self.d_ff + self.d_model);
        (branches + 1) * self.d_model * self.d_ff + biases
    }

    /// Builds the layer with `init`'s rule.
    ///
    /// # Errors
    /// When a width is zero.
    pub fn init(
        &self,
        init: &Initializer,
        device: &Device,
    ) -> Result<DenseFeedForward, ConfigError> {
        positive("d_model", self.d_model)?;
        positive("d_ff", self.d_ff)?;
        let up = (Role::FeedForwardInput, "up", self.d_ff);
        let gate = (Role::FeedForwardInput, "gate", self.d_ff);
        let columns = if self.activation.is_gated() {
            vec![up, gate]
        } else {
            vec![up]
        };
        Ok(DenseFeedForward {
            input: init.linear(self.d_model, &columns, self.bias, device),
            output: init.linear(
                self.d_ff,
                &[(Role::FeedForwardOutput, "down", self.d_model)],
                self.bias,
                device,
            ),
            activation: self.activation,
            d_ff: self.d_ff,
        })
    }
}

/// A dense feed-forward layer: SwiGLU by default.
///
/// As in the reference (`model.py`, `SwiGLU`), the input projection is fused and its *second* half is the gate.
#[derive(Module, Debug)]
pub struct DenseFeedForward {
    /// `[d_model, d_ff]`, or `[d_model, 2·d_ff]` (value, then gate) for the gated activations.
    pub input: Linear,
    /// `[d_ff, d_model]`.
    pub output: Linear,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    d_ff: usize,
}

impl DenseFeedForward {
    /// The non-linearity in use.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// As [`FeedForward::forward`], in a pass of a model that has other feed-forward layers too.
    pub fn forward_in<R>(&self, x: Tensor<3>, pass: &mut Pass<R>) -> Tensor<3> {
        let h = pass.linear(&self.input, x);
        let h = pass.keep(Op::InputProjection, h);
        let h = match (self.activation.gate(), self.activation) {
            (Some(gate), _) => glu(h, gate),
            (None, Activation::Relu) => activation::relu(h),
            (None, _) => gelu(h),
        };
        let h = pass.keep(Op::Activation, h);
        pass.linear(&self.output, h)
    }
}

impl FeedForward for DenseFeedForward {
    type Report = ();

    fn forward(&self, x: Tensor<3>, pass: &mut Pass<()>) -> Tensor<3> {
        self.forward_in(x, pass)
    }
}

/// `x·Φ(x)`, composed. `burn::tensor::activation::gelu` computes the same, but on every backend except flex its gradient is that of
/// the tanh approximation, 2e-5 off (Burn 0.22.1; docs/lab-notebook.md).
fn gelu(x: Tensor<3>) -> Tensor<3> {
    let phi = ((x.clone() * core::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    x * phi
}
