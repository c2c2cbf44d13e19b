//! Norms and rotation of queries, keys and values, a head of a token at a time.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::rms_norm::{inverse_rms, row_gradient, sum};
use super::simd::vectorized;
use crate::qkv::{Constants, QkvSpec};

/// Most parts that the gradients of the scales are summed in.
const PARTS: usize = 64;

/// `None` where a tensor is not f32.
pub(super) fn forward(
    qkv: &FlexTensor,
    with: &Constants<FlexTensor>,
    spec: QkvSpec,
) -> Option<FlexTensor> {
    let qkv = qkv.to_contiguous();
    let values = qkv.as_slice::<f32>()?;
    let tables = Tables::of(with);
    let tables = tables.slices()?;
    let [batch, seq, width] = [0, 1, 2].map(|dim| qkv.layout().shape()[dim]);
    let (heads, dim) = (spec.all(), spec.head_dim);
    let mut out = vec![0f32; values.len()];
    out.par_chunks_mut((seq * dim).max(1))
        .enumerate()
        .for_each(|(plane, out)| {
            let (b, head) = (plane / heads, plane % heads);
            let part = part(&spec, head);
            vectorized(
                #[inline(always)]
                || {
                    for (t, out) in out.chunks_exact_mut(dim).enumerate() {
                        let x = &values[(b * seq + t) * width + head * dim..][..dim];
                        match spec.norms[part] {
                            true => {
                                let inverse = inverse_rms(x, spec.epsilon as f32);
                                let x = x.iter().zip(tables.weights[part]);
                                for (out, (x, weight)) in out.iter_mut().zip(x) {
                                    *out = x * inverse * weight;
                                }
                            }
                            false => out.copy_from_slice(x),
                        }
                        if spec.rotary && part < 2 {
                            turn(out, tables.angles(t, dim), 1.0);
                        }
                    }
                },
            );
        });
    let shape = [batch, heads, seq, dim];
    Some(super::new(out, shape, DType::F32))
}

/// The gradients of the projection and of the scales.
pub(super) fn backward(
    qkv: &FlexTensor,
    with: &Constants<FlexTensor>,
    dy: &FlexTensor,
    spec: QkvSpec,
) -> Option<(FlexTensor, [FlexTensor; 3])> {
    let (qkv, dy) = (qkv.to_contiguous(), dy.to_contiguous());
    let (values, dy) = (qkv.as_slice::<f32>()?, dy.as_slice::<f32>()?);
    let tables = Tables::of(with);
    let tables = tables.slices()?;
    let [batch, seq, width] = [0, 1, 2].map(|dim| qkv.layout().shape()[dim]);
    let (heads, dim) = (spec.all(), spec.head_dim);
    let tokens = (batch * seq).div_ceil(PARTS).max(1);
    let mut dx = vec![0f32; values.len()];
    let dweights: Vec<Vec<f32>> = dx
        .par_chunks_mut(tokens * width)
        .enumerate()
        .map(|(chunk, dx)| {
            let (mut dweights, mut g) = (vec![0f32; 3 * dim], vec![0f32; dim]);
            vectorized(
                #[inline(always)]
                || {
                    for (n, dx) in dx.chunks_exact_mut(width).enumerate() {
                        let token = chunk * tokens + n;
                        let (b, t) = (token / seq, token % seq);
                        for (head, dx) in dx.chunks_exact_mut(dim).enumerate() {
                            let part = part(&spec, head);
                            g.copy_from_slice(&dy[((b * heads + head) * seq + t) * dim..][..dim]);
                            if spec.rotary && part < 2 {
                                turn(&mut g, tables.angles(t, dim), -1.0);
                            }
                            if !spec.norms[part] {
                                dx.copy_from_slice(&g);
                                continue;
                            }
                            let x = &values[token * width + head * dim..][..dim];
                            let inverse = inverse_rms(x, spec.epsilon as f32);
                            let dweight = &mut dweights[part * dim..][..dim];
                            let given = x.iter().zip(tables.weights[part]);
                            let sums = dweight.iter_mut().zip(g.iter_mut());
                            for ((dweight, g), (x, weight)) in sums.zip(given) {
                                *dweight += *g * (x * inverse);
                                *g *= weight;
                            }
                            row_gradient(dx, x, &g, inverse);
                        }
                    }
                },
            );
            dweights
        })
        .collect();
    let dweights = sum(dweights, 3 * dim);
    let dweights = [0, 1, 2].map(|part| {
        let own = dweights[part * dim..][..dim].to_vec();
        super::new(own, [dim], DType::F32)
    });
    Some((super::like(dx, &qkv), dweights))
}

/// Which of queries, keys and values a head belongs to.
#[inline(always)]
fn part(spec: &QkvSpec, head: usize) -> usize {
    usize::from(head >= spec.heads) + usize::from(head >= spec.heads + spec.kv_heads)
}

/// Turns each pair by its angle, or with `direction` −1 back by it.
#[inline(always)]
fn turn(x: &mut [f32], [cos, sin]: [&[f32]; 2], direction: f32) {
    let (a, b) = x.split_at_mut(cos.len());
    let angles = cos.iter().zip(sin);
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(angles) {
        let sin = sin * direction;
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// The tensors beside `qkv`, contiguous.
struct Tables {
    weights: [FlexTensor; 3],
    angles: [FlexTensor; 2],
}

impl Tables {
    fn of(with: &Constants<FlexTensor>) -> Self {
        Self {
            weights: with.weights.each_ref().map(|weight| weight.to_contiguous()),
            angles: [&with.cos, &with.sin].map(|table| table.to_contiguous()),
        }
    }

    fn slices(&self) -> Option<Slices<'_>> {
        let [q, k, v] = self
            .weights
            .each_ref()
            .map(|weight| weight.as_slice::<f32>());
        let [cos, sin] = self.angles.each_ref().map(|table| table.as_slice::<f32>());
        Some(Slices {
            weights: [q?, k?, v?],
            cos: cos?,
            sin: sin?,
        })
    }
}

#[derive(Clone, Copy)]
struct Slices<'a> {
    weights: [&'a [f32]; 3],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl<'a> Slices<'a> {
    /// Cosines and sines of position `t`.
    #[inline(always)]
    fn angles(&self, t: usize, dim: usize) -> [&'a [f32]; 2] {
        let half = dim / 2;
        [self.cos, self.sin].map(|table| &table[t * half..][..half])
    }
}
