//! The way of tokens to their experts and back, a row at a time.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::simd::{dot, vectorized};

/// Rows that one thread takes at least.
const ROWS: usize = 16;

/// Row `rows[p]` of `x` at each place `p`. `None` where `x` is not f32, or a row is none of its own.
pub(super) fn gather(x: &FlexTensor, rows: &FlexTensor) -> Option<FlexTensor> {
    let x = x.to_contiguous();
    let values = x.as_slice::<f32>()?;
    let [held, width] = [0, 1].map(|dim| x.layout().shape()[dim]);
    let rows = places(rows, held)?;
    if width == 0 {
        return None;
    }
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let chunks = out.par_chunks_mut(width).with_min_len(ROWS).zip(&rows);
        chunks.for_each(|(out, row)| {
            for (out, x) in out.iter_mut().zip(&values[row * width..][..width]) {
                out.write(*x);
            }
        });
    };
    // SAFETY: each row is as wide as one of `x`.
    let out = unsafe { super::filled(rows.len() * width, fill) };
    Some(super::new(out, [rows.len(), width], DType::F32))
}

/// What each token's copies give, added up in the order of its choices, times `weights` `[tokens, top_k]` where there are any.
pub(super) fn sum(
    y: &FlexTensor,
    weights: Option<&FlexTensor>,
    copies: &FlexTensor,
    tokens: usize,
) -> Option<FlexTensor> {
    let y = y.to_contiguous();
    let weights = weights.map(FlexTensor::to_contiguous);
    let values = y.as_slice::<f32>()?;
    let weights = match &weights {
        Some(weights) => Some(weights.as_slice::<f32>()?),
        None => None,
    };
    let [held, width] = [0, 1].map(|dim| y.layout().shape()[dim]);
    let copies = places(copies, held)?;
    if width == 0 || tokens == 0 || !copies.len().is_multiple_of(tokens) {
        return None;
    }
    let top_k = copies.len() / tokens;
    let mut out = vec![0f32; tokens * width];
    let rows = out.par_chunks_mut(width).with_min_len(ROWS).enumerate();
    rows.for_each(|(token, out)| {
        vectorized(
            #[inline(always)]
            || {
                for choice in token * top_k..(token + 1) * top_k {
                    let weight = weights.map_or(1.0, |weights| weights[choice]);
                    let row = &values[copies[choice] * width..][..width];
                    for (out, y) in out.iter_mut().zip(row) {
                        *out += weight * y;
                    }
                }
            },
        );
    });
    Some(super::new(out, [tokens, width], DType::F32))
}

/// The gradients of `y`, each copy its token's times its weight, and of the weights, each the product of a copy's row with its token's
/// gradient.
///
/// # Shapes
/// - `dout` `[tokens, width]`, `y` `[tokens · top_k, width]`, `weights` `[tokens, top_k]`
/// - `order`: the copy at each place of `y`
pub(super) fn combine_backward(
    [dout, y, weights]: [&FlexTensor; 3],
    order: &FlexTensor,
) -> Option<(FlexTensor, FlexTensor)> {
    let [dout, y, weights] = [dout, y, weights].map(FlexTensor::to_contiguous);
    let (dout, values) = (dout.as_slice::<f32>()?, y.as_slice::<f32>()?);
    let given = weights.as_slice::<f32>()?;
    let [rows, width] = [0, 1].map(|dim| y.layout().shape()[dim]);
    let [tokens, top_k] = [0, 1].map(|dim| weights.layout().shape()[dim]);
    let order = places(order, rows)?;
    if width == 0 || order.len() != rows || rows != tokens * top_k {
        return None;
    }
    let mut dy = vec![0f32; values.len()];
    let products: Vec<f32> = dy
        .par_chunks_mut(width)
        .zip(values.par_chunks(width))
        .zip(&order)
        .with_min_len(ROWS)
        .map(|((dy, y), copy)| {
            let dout = &dout[copy / top_k * width..][..width];
            vectorized(
                #[inline(always)]
                || {
                    for (dy, dout) in dy.iter_mut().zip(dout) {
                        *dy = dout * given[*copy];
                    }
                    dot(y, dout)
                },
            )
        })
        .collect();
    let mut dweights = vec![0f32; rows];
    for (copy, product) in order.iter().zip(products) {
        dweights[*copy] = product;
    }
    Some((super::like(dy, &y), super::like(dweights, &weights)))
}

/// Whole numbers below `end`; `None` where one is not.
fn places(x: &FlexTensor, end: usize) -> Option<Vec<usize>> {
    let place = |number: i64| usize::try_from(number).ok().filter(|place| *place < end);
    super::integers(x)?.into_iter().map(place).collect()
}
