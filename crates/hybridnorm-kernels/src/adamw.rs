//! One step of AdamW on one parameter.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::ops::KernelOps;

/// What a step of AdamW multiplies with; decay, learning rate and bias corrections are folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// On the gradient, before all else: averaging over micro-batches times clipping.
    pub scale: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// On the weight: 1 − learning rate · weight decay.
    pub keep: f64,
    /// Learning rate over the first moment's bias correction, lr/(1 − β₁ᵗ).
    pub rate: f64,
    /// Root of the second moment's bias correction, √(1 − β₂ᵗ).
    pub root_correction: f64,
}

/// The weight and both moments after one step: with g the scaled gradient, m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²;
/// p ← p·keep − rate·m / (√v/root_correction + ε).
///
/// All four tensors have one shape and are without autodiff.
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let shape = weight.dims();
    for other in [&grad, &first, &second] {
        assert_eq!(other.dims(), shape, "adamw: the shapes differ");
    }
    let (weight, first, second) = Dispatch::adamw(
        weight.into_dispatch(),
        grad.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    let moments = [first, second].map(Tensor::from_dispatch);
    (Tensor::from_dispatch(weight), moments)
}
