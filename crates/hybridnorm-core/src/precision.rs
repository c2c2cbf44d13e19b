//! The float type of statistics and sums.

use burn::tensor::{DType, FloatDType, Tensor};

/// In f32, or in f64 if `x` is: what norms, rotations and losses are computed in whatever the model's type.
pub(crate) fn at_least_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F64 => x,
        _ => x.cast(FloatDType::F32),
    }
}
