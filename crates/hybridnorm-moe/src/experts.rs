//! The experts: many gated layers, their weights in one tensor for each projection.
//!
//! Legend: R token copies, sorted by expert · E experts · D `d_model` · F `d_ff`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use hybridnorm_core::init::{Initializer, Role};
use hybridnorm_core::trace::Op;
use hybridnorm_core::{Activation, ConfigError, Pass};
use hybridnorm_kernels::{Gate, Groups, gated, grouped_matmul};

/// The function on the gates; refuses an activation without one.
pub(crate) fn gate_of(activation: Activation) -> Result<Gate, ConfigError> {
    if let Some(gate) = activation.gate() {
        return Ok(gate);
    }
    let gated = Activation::ALL.into_iter().filter(|known| known.is_gated());
    let gated: Vec<String> = gated.map(|known| known.to_string()).collect();
    let allowed = format!("{}: experts are gated layers", gated.join(", "));
    Err(ConfigError::new("sparse.activation", activation, allowed))
}

/// E gated feed-forward layers (arXiv 2002.05202) without biases: `(silu(x·gate) ⊙ (x·up))·down`, or another [`Activation`] on the gate.
///
/// In the authors' MoE code (megablocks, `glu.py`) `gate` is `w1`, `up` is `v1` and `down` is `w2`.
#[derive(Module, Debug)]
pub struct Experts {
    /// `[E, D, F]`
    pub gate: Param<Tensor<3>>,
    /// `[E, D, F]`
    pub up: Param<Tensor<3>>,
    /// `[E, F, D]`
    pub down: Param<Tensor<3>>,
    #[module(skip)]
    function: Gate,
}

impl Experts {
    /// `n` experts of inner width `d_ff` with `activation` on their gates, each drawn from its own stream of `init`.
    ///
    /// # Errors
    /// When a size is zero, or the activation has no gate.
    pub fn new(
        n: usize,
        d_model: usize,
        d_ff: usize,
        activation: Activation,
        init: &Initializer,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        for (field, value) in [("n_experts", n), ("d_model", d_model), ("d_ff", d_ff)] {
            if value == 0 {
                return Err(ConfigError::new(field, value, "at least 1"));
            }
        }
        let function = gate_of(activation)?;
        let input = |name| init.stacked(Role::FeedForwardInput, name, [n, d_model, d_ff], device);
        Ok(Self {
            gate: input("gate"),
            up: input("up"),
            down: init.stacked(Role::FeedForwardOutput, "down", [n, d_ff, d_model], device),
            function,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.gate.dims()[0]
    }

    /// Whether there is none, which [`new`](Self::new) refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each row through its own expert; an expert without rows costs nothing. Rows behind the last group come out as zeros.
    ///
    /// # Shapes
    /// - `x_RD` sorted by expert, as `groups` says
    /// - output `[R, D]`
    #[allow(non_snake_case)]
    pub fn forward<R>(&self, x_RD: Tensor<2>, groups: &Groups, pass: &mut Pass<R>) -> Tensor<2> {
        let product = |x_R: Tensor<2>, weights_E: Tensor<3>, pass: &Pass<R>| {
            pass.product(x_R, weights_E, |x_R, weights_E| {
                grouped_matmul(x_R, weights_E, groups)
            })
        };
        let gate_RF = product(x_RD.clone(), self.gate.val(), pass);
        let up_RF = product(x_RD, self.up.val(), pass);
        let h_RF = pass.keep(Op::Activation, gated(up_RF, gate_RF, self.function));
        product(h_RF, self.down.val(), pass)
    }
}
