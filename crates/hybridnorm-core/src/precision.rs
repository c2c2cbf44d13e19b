//! Numbers that must be as good on every device as on the best one.

use burn::tensor::{DType, FloatDType, Tensor};

/// In f32, or in f64 if `x` is: what norms, rotations and losses are computed in whatever the model's type.
pub fn at_least_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F64 => x,
        _ => x.cast(FloatDType::F32),
    }
}

/// Whether [`at_least_f32`] leaves `x` as it is.
pub(crate) fn is_at_least_f32<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.dtype(), DType::F32 | DType::F64)
}
