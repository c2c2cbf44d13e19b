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

/// `cap·tanh(x/cap)` (Gemma 2), right to rounding for small `x/cap` too.
///
/// WGSL allows its `tanh` an absolute error of 1e-5, which `cap` multiplies: of a score of 1 under a cap of 50 three digits are left. Below 0.5,
/// where that would be seen, stands the continued fraction of tanh, cut off where it is right to half a rounding of f32.
pub(crate) fn softcap<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    let x = x / cap;
    let square = x.clone().square();
    let above = square.clone() * (square.clone() + 105.0) + 945.0;
    let below = square.clone() * (square.clone() * 15.0 + 420.0) + 945.0;
    let large = square.greater_elem(0.25);
    // Where x is large the fraction is not used: it is kept finite there, for its gradient is multiplied by zero.
    let small =
        x.clone() * above.mask_fill(large.clone(), 1.0) / below.mask_fill(large.clone(), 1.0);
    small.mask_where(large, x.tanh()) * cap
}
