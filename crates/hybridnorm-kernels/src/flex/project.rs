//! Matrix products on all cores, into memory that nobody has cleared first.
//!
//! Burn clears the memory of a product, copies it to where it is aligned, and does both on one thread: a sixth of a training step.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;

use super::few_rows;
use super::product::{Matrix, product_on_all_cores, strided};

/// Whether both are f32.
fn in_f32(a: &FlexTensor, b: &FlexTensor) -> Option<()> {
    (a.dtype() == DType::F32 && b.dtype() == DType::F32).then_some(())
}

/// Rows of the last dimension.
fn rows(x: &FlexTensor) -> [usize; 2] {
    let shape = x.layout().shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}

/// `x·weight`, in the shape of `x` but for its last dimension.
pub(super) fn forward(x: &FlexTensor, weight: &FlexTensor) -> Option<FlexTensor> {
    in_f32(x, weight)?;
    let x = x.to_contiguous();
    let ([rows, d_in], d_out) = (rows(&x), weight.layout().shape()[1]);
    let values = x.as_slice::<f32>().filter(|x| !x.is_empty())?;
    let (weights, strides) = strided::<2>(weight)?;
    let out = few_rows::product(&x, weight).unwrap_or_else(|| {
        product_on_all_cores(
            Matrix::new(values, [rows, d_in], [d_in, 1]),
            Matrix::new(weights, [d_in, d_out], strides),
        )
    });
    let mut shape = x.layout().shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] = d_out;
    Some(super::with_shape(out, shape, DType::F32))
}

/// The gradients of `x` and `weight`.
pub(super) fn backward(
    x: &FlexTensor,
    weight: &FlexTensor,
    dy: &FlexTensor,
) -> Option<(FlexTensor, FlexTensor)> {
    in_f32(x, weight)?;
    in_f32(x, dy)?;
    let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
    let ([rows, d_in], d_out) = (rows(&x), weight.layout().shape()[1]);
    let values = x.as_slice::<f32>().filter(|x| !x.is_empty())?;
    let upstream = dy.as_slice::<f32>()?;
    let (weights, strides) = strided::<2>(weight)?;
    let upstream = Matrix::new(upstream, [rows, d_out], [d_out, 1]);
    let weight = Matrix::new(weights, [d_in, d_out], strides);
    let dx = product_on_all_cores(upstream, weight.transposed());
    let columns = Matrix::new(values, [rows, d_in], [d_in, 1]).transposed();
    let dweight = product_on_all_cores(columns, upstream);
    let dweight = super::new(dweight, [d_in, d_out], DType::F32);
    Some((super::like(dx, &x), dweight))
}
