//! RMSNorm and LayerNorm, a row at a time.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::simd::{dot, sum_of, vectorized};
use crate::norm::NormSpec;

/// Elements that one thread takes at a time.
const BLOCK: usize = 1 << 14;
/// Most parts that the gradient of a scale is summed in: their number, and so the rounding, does not depend on the threads.
const PARTS: usize = 64;

/// The mean of a row: of what the first, rounded one leaves it takes the mean once more.
#[inline(always)]
fn mean(x: &[f32]) -> f32 {
    let n = x.len() as f32;
    let mean = sum_of(x, x, |x, _| x) / n;
    mean + sum_of(x, x, |x, _| x - mean) / n
}

/// The row itself where its mean stays, elsewhere what is left without it, in `left`.
#[inline(always)]
fn centred<'a>(x: &'a [f32], left: &'a mut [f32], spec: NormSpec) -> &'a [f32] {
    if !spec.centred {
        return x;
    }
    let mean = mean(x);
    for (left, x) in left.iter_mut().zip(x) {
        *left = x - mean;
    }
    left
}

/// 1/rms of a row.
#[inline(always)]
pub(super) fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// The gradient of a row, from `g` = dy·weight: (g − x̂·mean(g·x̂))/rms.
#[inline(always)]
pub(super) fn row_gradient(dx: &mut [MaybeUninit<f32>], x: &[f32], g: &[f32], inverse: f32) {
    let mean = sum_of(g, x, |g, x| g * (x * inverse)) / x.len() as f32;
    for ((dx, x), g) in dx.iter_mut().zip(x).zip(g) {
        dx.write((g - x * inverse * mean) * inverse);
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
pub(super) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    spec: NormSpec,
) -> Option<FlexTensor> {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let bias = bias.map(FlexTensor::to_contiguous);
    let (values, weight) = (x.as_slice::<f32>()?, weight.as_slice::<f32>()?);
    let bias = match &bias {
        Some(bias) => Some(bias.as_slice::<f32>()?),
        None => None,
    };
    let (width, epsilon) = (weight.len(), spec.epsilon as f32);
    let block = (BLOCK / width.max(1)).max(1) * width;
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let blocks = out.par_chunks_mut(block).zip(values.par_chunks(block));
        blocks.for_each(|(out, x)| {
            let mut left = vec![0f32; if spec.centred { width } else { 0 }];
            vectorized(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_mut(width).zip(x.chunks(width)) {
                        let x = centred(x, &mut left, spec);
                        let inverse = inverse_rms(x, epsilon);
                        let scaled = x.iter().zip(weight).map(|(x, weight)| x * inverse * weight);
                        match bias {
                            Some(bias) => {
                                for ((out, y), bias) in out.iter_mut().zip(scaled).zip(bias) {
                                    out.write(y + bias);
                                }
                            }
                            None => {
                                for (out, y) in out.iter_mut().zip(scaled) {
                                    out.write(y);
                                }
                            }
                        }
                    }
                },
            );
        });
    };
    let fits = bias.is_none_or(|bias| bias.len() == width);
    if width == 0 || !values.len().is_multiple_of(width) || !fits {
        return None;
    }
    // SAFETY: the blocks of whole rows cover everything, and each row is as long as the scale and the shift.
    let out = unsafe { super::filled(values.len(), fill) };
    Some(super::like(out, &x))
}

/// The gradients of `x`, the scale and the shift; the last is zero where there is no shift.
pub(super) fn backward(
    [x, weight, dy]: [&FlexTensor; 3],
    biased: bool,
    spec: NormSpec,
) -> Option<(FlexTensor, FlexTensor, FlexTensor)> {
    let [x, weight_tensor, dy] = [x, weight, dy].map(FlexTensor::to_contiguous);
    let (values, dy) = (x.as_slice::<f32>()?, dy.as_slice::<f32>()?);
    let weight = weight_tensor.as_slice::<f32>()?;
    let (width, epsilon) = (weight.len(), spec.epsilon as f32);
    let rows = values.len() / width.max(1);
    if width == 0 || values.len() != rows * width || dy.len() != values.len() {
        return None;
    }
    let block = rows.div_ceil(PARTS).max(1) * width;
    let mut gradients: Vec<Vec<f32>> = Vec::new();
    let fill = |dx: &mut [MaybeUninit<f32>]| {
        let blocks = values.par_chunks(block).zip(dy.par_chunks(block));
        let blocks = dx.par_chunks_mut(block).zip(blocks);
        let shares = blocks.map(|(dx, (x, dy))| {
            let mut gradients = vec![0f32; 2 * width];
            let (dweight, dbias) = gradients.split_at_mut(width);
            let [mut g, mut left, mut left_of_g] = [(); 3].map(|()| vec![0f32; width]);
            vectorized(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
                    for (dx, (x, dy)) in dx.chunks_exact_mut(width).zip(rows) {
                        let x = centred(x, &mut left, spec);
                        let inverse = inverse_rms(x, epsilon);
                        let given = dy.iter().zip(x).zip(weight);
                        let sums = dweight.iter_mut().zip(g.iter_mut());
                        for ((dweight, g), ((dy, x), weight)) in sums.zip(given) {
                            *g = dy * weight;
                            *dweight += dy * (x * inverse);
                        }
                        if biased {
                            for (dbias, dy) in dbias.iter_mut().zip(dy) {
                                *dbias += dy;
                            }
                        }
                        let g = centred(&g, &mut left_of_g, spec);
                        row_gradient(dx, x, g, inverse);
                    }
                },
            );
            gradients
        });
        gradients = shares.collect();
    };
    // SAFETY: the blocks of whole rows cover everything.
    let dx = unsafe { super::filled(values.len(), fill) };
    let gradients = sum(gradients, 2 * width);
    let [dweight, dbias] =
        [0, width].map(|at| super::new(gradients[at..][..width].to_vec(), [width], DType::F32));
    Some((super::like(dx, &x), dweight, dbias))
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
