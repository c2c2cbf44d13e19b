//! SwiGLU in one pass over its input.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape};
use rayon::prelude::*;

use super::simd::{LANES, sigmoid, vectorized};

/// Rows that one thread takes at a time.
const ROWS: usize = 8;

/// `None` where a tensor is not f32.
pub(super) fn forward(h: &FlexTensor) -> Option<FlexTensor> {
    let h = h.to_contiguous();
    let values = h.as_slice::<f32>()?;
    let mut shape: Vec<usize> = h.layout().shape().iter().copied().collect();
    let width = shape.pop()? / 2;
    shape.push(width);
    if width == 0 || !values.len().is_multiple_of(2 * width) {
        return None;
    }
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let blocks = out.par_chunks_mut(ROWS * width);
        let blocks = blocks.zip(values.par_chunks(ROWS * 2 * width));
        blocks.for_each(|(out, h)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, h) in out.chunks_mut(width).zip(h.chunks(2 * width)) {
                        let (value, gate) = h.split_at(width);
                        for ((out, value), gate) in out.iter_mut().zip(value).zip(gate) {
                            out.write(gate * sigmoid(*gate) * value);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the blocks of whole rows cover everything, and each row is half as long as one of the input.
    let out = unsafe { super::filled(values.len() / 2, fill) };
    Some(super::with_shape(out, Shape::from(shape), DType::F32))
}

pub(super) fn backward(h: &FlexTensor, dy: &FlexTensor) -> Option<FlexTensor> {
    let (h, dy) = (h.to_contiguous(), dy.to_contiguous());
    let (values, dy) = (h.as_slice::<f32>()?, dy.as_slice::<f32>()?);
    let width = h.layout().shape().iter().last()? / 2;
    let mut dh = vec![0f32; values.len()];
    dh.par_chunks_mut(ROWS * 2 * width)
        .zip(values.par_chunks(ROWS * 2 * width))
        .zip(dy.par_chunks(ROWS * width))
        .for_each(|((dh, h), dy)| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = h.chunks_exact(2 * width).zip(dy.chunks_exact(width));
                    for (dh, (h, dy)) in dh.chunks_exact_mut(2 * width).zip(rows) {
                        let (value, gate) = h.split_at(width);
                        let (dvalue, dgate) = dh.split_at_mut(width);
                        row_gradient([dvalue, dgate], [dy, value, gate]);
                    }
                },
            );
        });
    Some(super::like(dh, &h))
}

/// The gradients of value and gate, [`LANES`] at a time: computed before they are written, for the compiler cannot know that what is written
/// is not read.
#[inline(always)]
fn row_gradient([dvalue, dgate]: [&mut [f32]; 2], given: [&[f32]; 3]) {
    let of = |[dy, value, gate]: [f32; 3]| {
        let sigmoid = sigmoid(gate);
        let scaled = dy * sigmoid;
        [
            scaled * gate,
            scaled * value * (1.0 + gate * (1.0 - sigmoid)),
        ]
    };
    let [dy, value, gate] = given.map(|x| x.as_chunks::<LANES>());
    let (dvalue, dvalue_rest) = dvalue.as_chunks_mut::<LANES>();
    let (dgate, dgate_rest) = dgate.as_chunks_mut::<LANES>();
    let chunks = dy.0.iter().zip(value.0).zip(gate.0);
    for ((dvalue, dgate), ((dy, value), gate)) in dvalue.iter_mut().zip(dgate).zip(chunks) {
        let mut both = [[0f32; LANES]; 2];
        for lane in 0..LANES {
            let [first, second] = of([dy[lane], value[lane], gate[lane]]);
            both[0][lane] = first;
            both[1][lane] = second;
        }
        [*dvalue, *dgate] = both;
    }
    let rest = dy.1.iter().zip(value.1).zip(gate.1);
    for ((dvalue, dgate), ((dy, value), gate)) in dvalue_rest.iter_mut().zip(dgate_rest).zip(rest) {
        [*dvalue, *dgate] = of([*dy, *value, *gate]);
    }
}
