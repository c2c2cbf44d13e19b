//! Gated linear units in one pass over their input.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape};
use rayon::prelude::*;

use super::simd::{LANES, exp, sigmoid, vectorized};
use crate::glu::Gate;

/// Rows that one thread takes at a time.
const ROWS: usize = 8;
/// Numbers that one thread takes at a time where there are no rows to keep apart.
const BLOCK: usize = 1 << 13;

/// A function on a gate, and its slope.
trait Function {
    fn at(gate: f32) -> f32;
    fn with_slope(gate: f32) -> [f32; 2];
}

/// σ(w) and σ(−w), which 1 − σ(w) would give without its digits.
#[inline(always)]
fn open_and_shut(w: f32) -> [f32; 2] {
    let small = exp(-w.max(-87.0));
    let open = 1.0 / (1.0 + small);
    [open, small * open]
}

struct Silu;
struct GeluTanh;
struct Relu;

impl Function for Silu {
    #[inline(always)]
    fn at(gate: f32) -> f32 {
        gate * sigmoid(gate)
    }

    #[inline(always)]
    fn with_slope(gate: f32) -> [f32; 2] {
        let [open, shut] = open_and_shut(gate);
        [gate * open, open * (1.0 + gate * shut)]
    }
}

impl GeluTanh {
    /// √(2/π), twice.
    const ANGLE: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715;
}

impl Function for GeluTanh {
    #[inline(always)]
    fn at(gate: f32) -> f32 {
        gate * sigmoid(Self::ANGLE * gate * (1.0 + Self::CUBIC * gate * gate))
    }

    #[inline(always)]
    fn with_slope(gate: f32) -> [f32; 2] {
        let square = gate * gate;
        let [open, shut] = open_and_shut(Self::ANGLE * gate * (1.0 + Self::CUBIC * square));
        let angle_slope = Self::ANGLE * (1.0 + 3.0 * Self::CUBIC * square);
        [gate * open, open * (1.0 + gate * shut * angle_slope)]
    }
}

impl Function for Relu {
    #[inline(always)]
    fn at(gate: f32) -> f32 {
        gate.max(0.0)
    }

    #[inline(always)]
    fn with_slope(gate: f32) -> [f32; 2] {
        [gate.max(0.0), if gate > 0.0 { 1.0 } else { 0.0 }]
    }
}

/// Calls a function for the gate at hand; `None` for the one that has no fast path.
macro_rules! for_gate {
    ($gate:expr, $run:ident($($given:expr),*)) => {
        match $gate {
            Gate::Silu => Some($run::<Silu>($($given),*)),
            Gate::GeluTanh => Some($run::<GeluTanh>($($given),*)),
            Gate::Relu => Some($run::<Relu>($($given),*)),
            Gate::Gelu => None,
        }
    };
}

/// `None` where a tensor is not f32, or the function has no fast path.
pub(super) fn forward(h: &FlexTensor, gate: Gate) -> Option<FlexTensor> {
    let h = h.to_contiguous();
    let values = h.as_slice::<f32>()?;
    let mut shape: Vec<usize> = h.layout().shape().iter().copied().collect();
    let width = shape.pop()? / 2;
    shape.push(width);
    if width == 0 || !values.len().is_multiple_of(2 * width) {
        return None;
    }
    let out = for_gate!(gate, rows(values, width))?;
    Some(super::with_shape(out, Shape::from(shape), DType::F32))
}

fn rows<F: Function>(values: &[f32], width: usize) -> Vec<f32> {
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let blocks = out.par_chunks_mut(ROWS * width);
        let blocks = blocks.zip(values.par_chunks(ROWS * 2 * width));
        blocks.for_each(|(out, h)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, h) in out.chunks_mut(width).zip(h.chunks(2 * width)) {
                        let (value, gate) = h.split_at(width);
                        row::<F>(out, value, gate);
                    }
                },
            );
        });
    };
    // SAFETY: the blocks of whole rows cover everything, and each row is half as long as one of the input.
    unsafe { super::filled(values.len() / 2, fill) }
}

#[inline(always)]
fn row<F: Function>(out: &mut [MaybeUninit<f32>], value: &[f32], gate: &[f32]) {
    for ((out, value), gate) in out.iter_mut().zip(value).zip(gate) {
        out.write(F::at(*gate) * value);
    }
}

/// As [`forward`], of value and gate in tensors of their own.
pub(super) fn gated(value: &FlexTensor, gate: &FlexTensor, function: Gate) -> Option<FlexTensor> {
    let (value, gate) = (value.to_contiguous(), gate.to_contiguous());
    let (values, gates) = (value.as_slice::<f32>()?, gate.as_slice::<f32>()?);
    if values.len() != gates.len() {
        return None;
    }
    let out = for_gate!(function, blocks(values, gates))?;
    Some(super::like(out, &value))
}

fn blocks<F: Function>(values: &[f32], gates: &[f32]) -> Vec<f32> {
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let given = values.par_chunks(BLOCK).zip(gates.par_chunks(BLOCK));
        let blocks = out.par_chunks_mut(BLOCK).zip(given);
        blocks.for_each(|(out, (value, gate))| {
            vectorized(
                #[inline(always)]
                || row::<F>(out, value, gate),
            );
        });
    };
    // SAFETY: the blocks cover everything, and there are as many values and gates.
    unsafe { super::filled(values.len(), fill) }
}

pub(super) fn backward(h: &FlexTensor, dy: &FlexTensor, gate: Gate) -> Option<FlexTensor> {
    let (h, dy) = (h.to_contiguous(), dy.to_contiguous());
    let (values, dy) = (h.as_slice::<f32>()?, dy.as_slice::<f32>()?);
    let width = h.layout().shape().iter().last()? / 2;
    let dh = for_gate!(gate, gradient_rows(values, dy, width))?;
    Some(super::like(dh, &h))
}

fn gradient_rows<F: Function>(values: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut dh = vec![0f32; values.len()];
    dh.par_chunks_mut((ROWS * 2 * width).max(1))
        .zip(values.par_chunks((ROWS * 2 * width).max(1)))
        .zip(dy.par_chunks((ROWS * width).max(1)))
        .for_each(|((dh, h), dy)| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = h.chunks_exact(2 * width).zip(dy.chunks_exact(width));
                    for (dh, (h, dy)) in dh.chunks_exact_mut(2 * width).zip(rows) {
                        let (value, gate) = h.split_at(width);
                        let (dvalue, dgate) = dh.split_at_mut(width);
                        row_gradient::<F>([dvalue, dgate], [dy, value, gate]);
                    }
                },
            );
        });
    dh
}

/// The gradients of value and gate.
pub(super) fn gated_backward(
    [value, gate, dy]: [&FlexTensor; 3],
    function: Gate,
) -> Option<(FlexTensor, FlexTensor)> {
    let [value, gate, dy] = [value, gate, dy].map(FlexTensor::to_contiguous);
    let (values, gates) = (value.as_slice::<f32>()?, gate.as_slice::<f32>()?);
    let dys = dy.as_slice::<f32>()?;
    let [dvalue, dgate] = for_gate!(function, gradient_blocks(values, gates, dys))?;
    Some((super::like(dvalue, &value), super::like(dgate, &gate)))
}

fn gradient_blocks<F: Function>(values: &[f32], gates: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
    let [mut dvalue, mut dgate] = [values, gates].map(|x| vec![0f32; x.len()]);
    let given = values.par_chunks(BLOCK).zip(gates.par_chunks(BLOCK));
    dvalue
        .par_chunks_mut(BLOCK)
        .zip(dgate.par_chunks_mut(BLOCK))
        .zip(given.zip(dy.par_chunks(BLOCK)))
        .for_each(|((dvalue, dgate), ((value, gate), dy))| {
            vectorized(
                #[inline(always)]
                || row_gradient::<F>([dvalue, dgate], [dy, value, gate]),
            );
        });
    [dvalue, dgate]
}

/// The gradients of value and gate, [`LANES`] at a time: computed before they are written, for the compiler cannot know that what is written
/// is not read.
#[inline(always)]
fn row_gradient<F: Function>([dvalue, dgate]: [&mut [f32]; 2], given: [&[f32]; 3]) {
    let of = |[dy, value, gate]: [f32; 3]| {
        let [open, slope] = F::with_slope(gate);
        [dy * open, dy * value * slope]
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
