//! RMSNorm, a row at a time.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::simd::{dot, sum_of, vectorized};

/// Elements that one thread takes at a time.
const BLOCK: usize = 1 << 14;
/// Most parts that the gradient of a scale is summed in: their number, and so the rounding, does not depend on the threads.
const PARTS: usize = 64;

/// 1/rms of a row.
#[inline(always)]
pub(super) fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// The gradient of a row, from `g` = dy·weight: (g − x̂·mean(g·x̂))/rms.
#[inline(always)]
pub(super) fn row_gradient(dx: &mut [f32], x: &[f32], g: &[f32], inverse: f32) {
    let mean = sum_of(g, x, |g, x| g * (x * inverse)) / x.len() as f32;
    for ((dx, x), g) in dx.iter_mut().zip(x).zip(g) {
        *dx = (g - x * inverse * mean) * inverse;
    }
}

/// The sum of all squares, block by block in f32, the blocks in f64 and in their order.
pub(super) fn square_sum(x: &FlexTensor) -> Option<FlexTensor> {
    let x = x.to_contiguous();
    let blocks = x.as_slice::<f32>()?.par_chunks(BLOCK);
    let sums: Vec<f32> = blocks
        .map(|x| {
            vectorized(
                #[inline(always)]
                || dot(x, x),
            )
        })
        .collect();
    let sum: f64 = sums.into_iter().map(f64::from).sum();
    Some(super::new(vec![sum as f32], [1], DType::F32))
}

/// `None` where a tensor is not f32.
pub(super) fn forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f64) -> Option<FlexTensor> {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let (values, weight) = (x.as_slice::<f32>()?, weight.as_slice::<f32>()?);
    let (width, epsilon) = (weight.len(), epsilon as f32);
    let block = (BLOCK / width).max(1) * width;
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let blocks = out.par_chunks_mut(block).zip(values.par_chunks(block));
        blocks.for_each(|(out, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
                        let inverse = inverse_rms(x, epsilon);
                        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                            out.write(x * inverse * weight);
                        }
                    }
                },
            );
        });
    };
    if width == 0 || !values.len().is_multiple_of(width) {
        return None;
    }
    // SAFETY: the blocks of whole rows cover everything, and each row is as long as the scale.
    let out = unsafe { super::filled(values.len(), fill) };
    Some(super::like(out, &x))
}

/// The gradients of `x` and `weight`.
pub(super) fn backward(
    [x, weight, dy]: [&FlexTensor; 3],
    epsilon: f64,
) -> Option<(FlexTensor, FlexTensor)> {
    let [x, weight_tensor, dy] = [x, weight, dy].map(FlexTensor::to_contiguous);
    let (values, dy) = (x.as_slice::<f32>()?, dy.as_slice::<f32>()?);
    let weight = weight_tensor.as_slice::<f32>()?;
    let (width, epsilon) = (weight.len(), epsilon as f32);
    let rows = values.len() / width.max(1);
    let block = rows.div_ceil(PARTS).max(1) * width;
    let mut dx = vec![0f32; values.len()];
    let dweights: Vec<Vec<f32>> = dx
        .par_chunks_mut(block)
        .zip(values.par_chunks(block))
        .zip(dy.par_chunks(block))
        .map(|((dx, x), dy)| {
            let (mut dweight, mut g) = (vec![0f32; width], vec![0f32; width]);
            vectorized(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
                    for (dx, (x, dy)) in dx.chunks_exact_mut(width).zip(rows) {
                        let inverse = inverse_rms(x, epsilon);
                        let given = dy.iter().zip(x).zip(weight);
                        let sums = dweight.iter_mut().zip(g.iter_mut());
                        for ((dweight, g), ((dy, x), weight)) in sums.zip(given) {
                            *g = dy * weight;
                            *dweight += dy * (x * inverse);
                        }
                        row_gradient(dx, x, &g, inverse);
                    }
                },
            );
            dweight
        })
        .collect();
    let dweight = super::new(sum(dweights, width), [width], DType::F32);
    Some((super::like(dx, &x), dweight))
}

/// The sum of lists of length `n`, in their order.
pub(super) fn sum(parts: Vec<Vec<f32>>, n: usize) -> Vec<f32> {
    let mut sum = vec![0f32; n];
    for part in parts {
        for (sum, x) in sum.iter_mut().zip(part) {
            *sum += x;
        }
    }
    sum
}
