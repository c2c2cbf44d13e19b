//! Gradient norms: per parameter, and over all of them.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor, TensorReadError};
use hybridnorm_kernels::square_sum;

/// L2 norms of one step's gradients, in the order of the module's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientNorms {
    /// The norm of each parameter that has a gradient.
    pub each: Vec<(ParamId, f64)>,
}

impl GradientNorms {
    /// Measures `grads`, reading one small tensor back from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measure<M: Module>(
        grads: &GradientsParams,
        module: &M,
    ) -> Result<Self, TensorReadError> {
        let mut visitor = SquareSums {
            grads,
            ids: Vec::new(),
            sums: Vec::new(),
        };
        module.visit(&mut visitor);
        if visitor.sums.is_empty() {
            return Ok(Self { each: Vec::new() });
        }
        let sums: Vec<f32> = Tensor::cat(visitor.sums, 0).try_into_vec_as()?;
        Ok(Self {
            each: visitor
                .ids
                .into_iter()
                .zip(sums.into_iter().map(|sum| f64::from(sum).sqrt()))
                .collect(),
        })
    }

    /// The norm over all parameters, as if they were one long vector.
    pub fn global(&self) -> f64 {
        let squares = self.each.iter().map(|(_, norm)| norm * norm);
        squares.sum::<f64>().sqrt()
    }
}

struct SquareSums<'a> {
    grads: &'a GradientsParams,
    ids: Vec<ParamId>,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquareSums<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.ids.push(param.id);
            self.sums.push(square_sum(grad.cast(FloatDType::F32)));
        }
    }
}

/// The factor that brings a global norm down to `max_norm`: `min(1, max_norm / (norm + 1e-6))`, as PyTorch has it.
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}
