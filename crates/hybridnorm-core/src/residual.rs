//! A sublayer and the norms around it: the three lines behind every placement.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::error::ConfigError;
use crate::norm::{Norm, NormStyle};
use crate::pass::Pass;
use crate::placement::ResidualNorms;
use crate::trace::{Branch, Op};

/// The residual connection around one sublayer `F`, with the norms and scales a placement puts there:
///
/// ```text
/// s = stream(x)                                   residual source: x itself, or the normed x
/// y = after(α·s + β·output(F(input(s))))
/// ```
///
/// A norm that is absent is the identity. Built from a [`ResidualNorms`] record.
#[derive(Module, Debug)]
pub struct Residual {
    /// Norm of the running stream: its output is the residual source *and* the sublayer's input.
    pub stream: Option<Norm>,
    /// Norm of the sublayer's input only (Pre-Norm).
    pub input: Option<Norm>,
    /// Norm of the sublayer's output, before it is added.
    pub output: Option<Norm>,
    /// Norm of the sum (Post-Norm, eq. 3).
    pub after: Option<Norm>,
    /// α, on the residual source.
    #[module(skip)]
    alpha: f64,
    /// β, on the branch.
    #[module(skip)]
    beta: f64,
    /// Constant factor behind the input norm (LayerNorm Scaling: 1/√l).
    #[module(skip)]
    input_scale: f64,
}

impl Residual {
    /// Builds the norms of `record` for a stream of width `d_model`.
    ///
    /// # Errors
    /// When the record or the norm style holds a value that is not allowed.
    pub fn new(
        record: &ResidualNorms,
        style: &NormStyle,
        d_model: usize,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        record.validate()?;
        let norm = |wanted: bool| {
            wanted
                .then(|| style.around(d_model).init(device))
                .transpose()
        };
        Ok(Self {
            stream: norm(record.stream)?,
            input: norm(record.input)?,
            output: norm(record.output)?,
            after: norm(record.after)?,
            alpha: record.alpha,
            beta: record.beta,
            input_scale: record.input_scale,
        })
    }

    /// Runs `sublayer` inside this residual connection.
    ///
    /// # Shapes
    /// - input `[batch, seq, d_model]`; `sublayer` keeps that shape
    /// - output `[batch, seq, d_model]`
    pub fn wrap<R>(
        &self,
        x: Tensor<3>,
        branch: Branch,
        pass: &mut Pass<R>,
        sublayer: impl FnOnce(Tensor<3>, &mut Pass<R>) -> Tensor<3>,
    ) -> Tensor<3> {
        pass.enter_branch(branch);
        let s = apply(&self.stream, x, Op::StreamNorm, pass);
        let h = apply(&self.input, s.clone(), Op::InputNorm, pass);
        let f = sublayer(scale(h, self.input_scale), pass);
        let f = pass.keep(Op::Output, f);
        let f = apply(&self.output, f, Op::OutputNorm, pass);
        let y = pass.keep(Op::Sum, scale(s, self.alpha) + scale(f, self.beta));
        apply(&self.after, y, Op::AfterNorm, pass)
    }
}

fn apply<R>(norm: &Option<Norm>, x: Tensor<3>, op: Op, pass: &mut Pass<R>) -> Tensor<3> {
    match norm {
        Some(norm) => pass.keep(op, norm.forward(x)),
        None => x,
    }
}

fn scale(x: Tensor<3>, factor: f64) -> Tensor<3> {
    if factor == 1.0 { x } else { x * factor }
}
