//! Norms and rotation of queries, keys and values, a head of a token at a time.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::norm::{inverse_rms, row_gradient, sum};
use super::simd::vectorized;
use crate::qkv::{Constants, QkvNorm, QkvSpec};

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
    let inverses = full_width_inverses(values, width, &spec);
    let mut out = vec![0f32; values.len()];
    out.par_chunks_mut((seq * dim).max(1))
        .enumerate()
        .for_each(|(plane, out)| {
            let (b, head) = (plane / heads, plane % heads);
            let part = part(&spec, head);
            let weight = match spec.norms[part] {
                Some(QkvNorm::FullWidth) => {
                    let within = head - spec.parts()[part].start;
                    &tables.weights[part][within * dim..][..dim]
                }
                _ => tables.weights[part],
            };
            vectorized(
                #[inline(always)]
                || {
                    for (t, out) in out.chunks_exact_mut(dim).enumerate() {
                        let token = b * seq + t;
                        let x = &values[token * width + head * dim..][..dim];
                        let inverse = match spec.norms[part] {
                            Some(QkvNorm::PerHead) => Some(inverse_rms(x, spec.epsilon as f32)),
                            Some(QkvNorm::FullWidth) => Some(inverses[part][token]),
                            None => None,
                        };
                        match inverse {
                            Some(inverse) => {
                                for (out, (x, weight)) in out.iter_mut().zip(x.iter().zip(weight)) {
                                    *out = x * inverse * weight;
                                }
                            }
                            None => out.copy_from_slice(x),
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

/// 1/rms of each token's queries, keys or values where all heads are normed together; nothing where they are not.
fn full_width_inverses(values: &[f32], width: usize, spec: &QkvSpec) -> [Vec<f32>; 3] {
    let mut parts = spec.parts().into_iter().zip(spec.norms);
    [(); 3].map(|()| {
        let Some((heads, Some(QkvNorm::FullWidth))) = parts.next() else {
            return Vec::new();
        };
        let columns = heads.start * spec.head_dim..heads.end * spec.head_dim;
        let tokens = values.par_chunks_exact(width).with_min_len(64);
        let inverse = |token: &[f32]| {
            vectorized(
                #[inline(always)]
                || inverse_rms(&token[columns.clone()], spec.epsilon as f32),
            )
        };
        tokens.map(inverse).collect()
    })
}

/// Heads that are normed together.
struct Unit {
    part: usize,
    heads: std::ops::Range<usize>,
}

/// All heads of a token, in their order.
fn units(spec: &QkvSpec) -> Vec<Unit> {
    let mut units = Vec::new();
    for (part, heads) in spec.parts().into_iter().enumerate() {
        match spec.norms[part] {
            Some(QkvNorm::FullWidth) => units.push(Unit { part, heads }),
            _ => units.extend(heads.map(|head| Unit {
                part,
                heads: head..head + 1,
            })),
        }
    }
    units
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
    let units = units(&spec);
    let lengths = tables.weights.map(<[f32]>::len);
    let starts = [0, lengths[0], lengths[0] + lengths[1]];
    let numbers = starts[2] + lengths[2];
    let widest = units.iter().map(|unit| unit.heads.len() * dim).max()?;
    let tokens = (batch * seq).div_ceil(PARTS).max(1);
    let mut dx = vec![0f32; values.len()];
    let dweights: Vec<Vec<f32>> = dx
        .par_chunks_mut(tokens * width)
        .enumerate()
        .map(|(chunk, dx)| {
            let (mut dweights, mut g) = (vec![0f32; numbers], vec![0f32; widest]);
            vectorized(
                #[inline(always)]
                || {
                    for (n, dx) in dx.chunks_exact_mut(width).enumerate() {
                        let token = chunk * tokens + n;
                        let (b, t) = (token / seq, token % seq);
                        for unit in &units {
                            let (part, first) = (unit.part, unit.heads.start * dim);
                            let n = unit.heads.len() * dim;
                            let (dx, g) = (&mut dx[first..][..n], &mut g[..n]);
                            for (head, g) in unit.heads.clone().zip(g.chunks_exact_mut(dim)) {
                                let from = ((b * heads + head) * seq + t) * dim;
                                g.copy_from_slice(&dy[from..][..dim]);
                                if spec.rotary && part < 2 {
                                    turn(g, tables.angles(t, dim), -1.0);
                                }
                            }
                            if spec.norms[part].is_none() {
                                dx.copy_from_slice(g);
                                continue;
                            }
                            let x = &values[token * width + first..][..n];
                            let inverse = inverse_rms(x, spec.epsilon as f32);
                            let dweight = &mut dweights[starts[part]..][..n];
                            let given = x.iter().zip(tables.weights[part]);
                            let sums = dweight.iter_mut().zip(g.iter_mut());
                            for ((dweight, g), (x, weight)) in sums.zip(given) {
                                *dweight += *g * (x * inverse);
                                *g *= weight;
                            }
                            row_gradient(dx, x, g, inverse);
                        }
                    }
                },
            );
            dweights
        })
        .collect();
    let dweights = sum(dweights, numbers);
    let dweights = [0, 1, 2].map(|part| {
        let own = dweights[starts[part]..][..lengths[part]].to_vec();
        super::new(own, [lengths[part]], DType::F32)
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
