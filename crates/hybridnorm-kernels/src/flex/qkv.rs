//! Norms and rotation of queries, keys and values, a head of a token at a time.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::norm::{inverse_rms, row_gradient, sum};
use super::simd::{of_length, vectorized};
use crate::qkv::{Constants, QkvNorm, QkvSpec};

/// Most parts that the gradients of the scales are summed in.
const PARTS: usize = 64;
/// Tokens that one head is looked at for, before the next: what is read and written of them stays in the nearest cache.
const BLOCK: usize = 16;

/// `None` where a tensor is not f32, or a head has no halves to turn.
pub(super) fn forward(
    qkv: &FlexTensor,
    with: &Constants<FlexTensor>,
    spec: QkvSpec,
) -> Option<FlexTensor> {
    let qkv = qkv.to_contiguous();
    let values = qkv.as_slice::<f32>()?;
    let tables = Tables::of(with);
    let rows = Rows::new(&qkv, values, tables.slices()?, spec)?;
    let [batch, seq, width] = [0, 1, 2].map(|dim| qkv.layout().shape()[dim]);
    let (heads, dim) = (spec.all(), spec.head_dim);
    let inverses = full_width_inverses(values, width, &spec);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let planes = out.par_chunks_mut((seq * dim).max(1)).enumerate();
        planes.for_each(|(at, out)| {
            vectorized(
                #[inline(always)]
                || {
                    of_length(
                        dim,
                        #[inline(always)]
                        |dim| rows.plane([at / heads, at % heads], dim, &inverses, out),
                    );
                },
            );
        });
    };
    // SAFETY: there is a plane for each head of each sequence, and each of its rows is written whole: it has halves where it is turned.
    let out = unsafe { super::filled(values.len(), fill) };
    Some(super::new(out, [batch, heads, seq, dim], DType::F32))
}

/// Writes a row of a head, each number beside its scale, turned where there are angles.
#[inline(always)]
fn put(
    out: &mut [MaybeUninit<f32>],
    [x, scales]: [&[f32]; 2],
    angles: Option<[&[f32]; 2]>,
    scaled: impl Fn(f32, f32) -> f32,
) {
    let Some([cos, sin]) = angles else {
        for (out, (x, scale)) in out.iter_mut().zip(x.iter().zip(scales)) {
            out.write(scaled(*x, *scale));
        }
        return;
    };
    let half = cos.len();
    let (out_a, out_b) = out.split_at_mut(half);
    let ((x_a, x_b), (scales_a, scales_b)) = (x.split_at(half), scales.split_at(half));
    let pairs = x_a.iter().zip(scales_a).zip(x_b.iter().zip(scales_b));
    let turned = pairs.zip(cos.iter().zip(sin));
    let outs = out_a.iter_mut().zip(out_b);
    for ((out_a, out_b), ((a, b), (cos, sin))) in outs.zip(turned) {
        let (a, b) = (scaled(*a.0, *a.1), scaled(*b.0, *b.1));
        out_a.write(a * cos - b * sin);
        out_b.write(b * cos + a * sin);
    }
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
    let rows = Rows::new(&qkv, values, tables.slices()?, spec)?;
    let [batch, seq, width] = [0, 1, 2].map(|dim| qkv.layout().shape()[dim]);
    let dim = spec.head_dim;
    if dy.len() != values.len() {
        return None;
    }
    let units = units(&spec);
    let lengths = rows.tables.weights.map(<[f32]>::len);
    let starts = [0, lengths[0], lengths[0] + lengths[1]];
    let scales = starts[2] + lengths[2];
    let widest = units.iter().map(|unit| unit.heads.len() * dim).max()?;
    let tokens = (batch * seq).div_ceil(PARTS).max(1);
    let mut dweights: Vec<Vec<f32>> = Vec::new();
    let part = |(chunk, dx): (usize, &mut [MaybeUninit<f32>])| {
        let (mut dweights, mut g) = (vec![0f32; scales], vec![0f32; widest]);
        vectorized(
            #[inline(always)]
            || {
                for (block, dx) in dx.chunks_mut(BLOCK * width).enumerate() {
                    let first = chunk * tokens + block * BLOCK;
                    for unit in &units {
                        let sums = [&mut dweights[starts[unit.part]..], &mut g];
                        of_length(
                            dim,
                            #[inline(always)]
                            |dim| match unit.heads.len() {
                                1 => rows.unit(unit, [dim, dim], first, dy, dx, sums),
                                n => rows.unit(unit, [dim, n * dim], first, dy, dx, sums),
                            },
                        );
                    }
                }
            },
        );
        dweights
    };
    let fill = |dx: &mut [MaybeUninit<f32>]| {
        let chunks = dx.par_chunks_mut(tokens * width).enumerate();
        dweights = chunks.map(part).collect();
    };
    // SAFETY: the units of a token are all of its heads, and each writes its own.
    let dx = unsafe { super::filled(values.len(), fill) };
    let dweights = sum(dweights, scales);
    let dweights = [0, 1, 2].map(|part| {
        let own = dweights[starts[part]..][..lengths[part]].to_vec();
        super::new(own, [lengths[part]], DType::F32)
    });
    Some((super::like(dx, &qkv), dweights))
}

/// A projection, token by token.
struct Rows<'a> {
    values: &'a [f32],
    tables: Slices<'a>,
    spec: QkvSpec,
    seq: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// `None` where a token is not as wide as its heads, or a head has no halves to turn.
    fn new(qkv: &FlexTensor, values: &'a [f32], tables: Slices<'a>, spec: QkvSpec) -> Option<Self> {
        let [seq, width] = [1, 2].map(|dim| qkv.layout().shape()[dim]);
        let halves = !spec.rotary || spec.head_dim.is_multiple_of(2);
        (width == spec.all() * spec.head_dim && halves).then_some(Self {
            values,
            tables,
            spec,
            seq,
            width,
        })
    }

    /// Writes one head of a sequence, normed and turned.
    #[inline(always)]
    fn plane(
        &self,
        [b, head]: [usize; 2],
        dim: usize,
        inverses: &[Vec<f32>; 3],
        out: &mut [MaybeUninit<f32>],
    ) {
        let spec = &self.spec;
        let part = part(spec, head);
        let scales = self.tables.scales(spec, head);
        for (t, out) in out.chunks_exact_mut(dim).enumerate() {
            let token = b * self.seq + t;
            let x = &self.values[token * self.width + head * dim..][..dim];
            let angles = (spec.rotary && part < 2).then(|| self.tables.angles(t, dim));
            let inverse = match spec.norms[part] {
                Some(QkvNorm::PerHead) => inverse_rms(x, spec.epsilon as f32),
                Some(QkvNorm::FullWidth) => inverses[part][token],
                None => {
                    put(out, [x, x], angles, |x, _| x);
                    continue;
                }
            };
            let scaled = |x, scale| x * inverse * scale;
            put(out, [x, &scales[..dim]], angles, scaled);
        }
    }

    /// Writes the gradient of one unit, `numbers` of each token, into the rows `dx` of the tokens from `first` on, and adds to that of its
    /// scales; `g` is room for a row.
    #[inline(always)]
    fn unit(
        &self,
        unit: &Unit,
        [dim, numbers]: [usize; 2],
        first: usize,
        dy: &[f32],
        dx: &mut [MaybeUninit<f32>],
        [dweight, g]: [&mut [f32]; 2],
    ) {
        let (spec, seq, from) = (&self.spec, self.seq, unit.heads.start * dim);
        let g = &mut g[..numbers];
        for (n, dx) in dx.chunks_exact_mut(self.width).enumerate() {
            let (b, t) = ((first + n) / seq, (first + n) % seq);
            let dx = &mut dx[from..][..numbers];
            for (head, g) in unit.heads.clone().zip(g.chunks_exact_mut(dim)) {
                let row = ((b * spec.all() + head) * seq + t) * dim;
                g.copy_from_slice(&dy[row..][..dim]);
                if spec.rotary && unit.part < 2 {
                    turn_back(g, self.tables.angles(t, dim));
                }
            }
            if spec.norms[unit.part].is_none() {
                dx.write_copy_of_slice(g);
                continue;
            }
            let x = &self.values[(first + n) * self.width + from..][..numbers];
            let inverse = inverse_rms(x, spec.epsilon as f32);
            let given = x.iter().zip(&self.tables.weights[unit.part][..numbers]);
            let sums = dweight[..numbers].iter_mut().zip(g.iter_mut());
            for ((dweight, g), (x, weight)) in sums.zip(given) {
                *dweight += *g * (x * inverse);
                *g *= weight;
            }
            row_gradient(dx, x, g, inverse);
        }
    }
}

/// Which of queries, keys and values a head belongs to.
#[inline(always)]
fn part(spec: &QkvSpec, head: usize) -> usize {
    usize::from(head >= spec.heads) + usize::from(head >= spec.heads + spec.kv_heads)
}

/// Turns each pair back by its angle.
#[inline(always)]
fn turn_back(x: &mut [f32], [cos, sin]: [&[f32]; 2]) {
    let (a, b) = x.split_at_mut(cos.len());
    let angles = cos.iter().zip(sin);
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(angles) {
        (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
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
    /// The scales of a head's norm.
    #[inline(always)]
    fn scales(&self, spec: &QkvSpec, head: usize) -> &'a [f32] {
        let part = part(spec, head);
        let first = match spec.norms[part] {
            Some(QkvNorm::FullWidth) => (head - spec.parts()[part].start) * spec.head_dim,
            _ => 0,
        };
        &self.weights[part][first..]
    }

    /// Cosines and sines of position `t`.
    #[inline(always)]
    fn angles(&self, t: usize, dim: usize) -> [&'a [f32]; 2] {
        let half = dim / 2;
        [self.cos, self.sin].map(|table| &table[t * half..][..half])
    }
}
