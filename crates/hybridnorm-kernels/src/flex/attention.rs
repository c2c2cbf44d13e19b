//! Attention, block by block of queries: scores exist for one block of one head at a time, a row of them as long as the sequence.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, FloatDType};
use gemm::Parallelism;
use rayon::prelude::*;

use super::product::{Into, Matrix, by_rows, multiply, turn};
use super::simd::{dot, exp, exp_and_sum, max, softcap, softcap_and_slopes, vectorized};
use crate::attention::AttentionSpec;

/// Queries of a block.
const QUERIES: usize = 64;

/// The output `[batch, seq, heads·dim]`, and of each query the largest score and the inverse sum of the exponentials of what its scores are
/// below that, `[batch, seq, heads, 2]`. `None` where a tensor or a product is not f32, or a document comes back after another.
pub(super) fn forward(
    qkv: &FlexTensor,
    documents: Option<&FlexTensor>,
    spec: AttentionSpec,
) -> Option<(FlexTensor, FlexTensor)> {
    let qkv = qkv.to_contiguous();
    let heads = Heads::of(&qkv, spec)?;
    let first = first_visible(documents, spec.window, heads.batch, heads.seq)?;
    let turned = heads.turned_keys();
    let Heads {
        batch, seq, dim, ..
    } = heads;
    let h = spec.heads;
    let mut out = vec![0f32; batch * seq * h * dim];
    let mut sums = vec![0f32; batch * seq * h * 2];
    let mut blocks = Vec::new();
    let sequences = out
        .chunks_mut((seq * h * dim).max(1))
        .zip(sums.chunks_mut((seq * h * 2).max(1)));
    for (b, (out, sums)) in sequences.enumerate() {
        let parts = out
            .chunks_mut(QUERIES * h * dim)
            .zip(sums.chunks_mut(QUERIES * h * 2));
        blocks.extend(parts.enumerate().map(|(block, part)| (b, block, part)));
    }
    blocks.into_par_iter().for_each_init(
        Vec::new,
        |scores: &mut Vec<f32>, (b, block, (out, sums))| {
            let rows = block * QUERIES..block * QUERIES + sums.len() / (2 * h);
            let view = View::new(&first[b * seq..][..seq], rows);
            for head in 0..h {
                let [query, _, value] = heads.matrices(b, head);
                let (query, keys) = (query.rows(view.rows.clone()), view.keys.clone());
                let n = keys.len();
                scores.resize(view.rows.len() * n, 0.0);
                let key = heads.turned(&turned, b, head).columns(keys.clone());
                multiply(scores, n, Into::Replace, spec.scale as f32, query, key);
                vectorized(
                    #[inline(always)]
                    || {
                        for (row, scores) in scores.chunks_exact_mut(n).enumerate() {
                            let seen = view.seen(row);
                            let (before, rest) = scores.split_at_mut(seen.start);
                            let (scores, behind) = rest.split_at_mut(seen.len());
                            before.fill(0.0);
                            behind.fill(0.0);
                            if let Some(cap) = spec.softcap {
                                softcap(scores, cap as f32);
                            }
                            let max = max(scores);
                            let share = 1.0 / exp_and_sum(scores, max);
                            scores.iter_mut().for_each(|score| *score *= share);
                            sums[2 * (row * h + head)..][..2].copy_from_slice(&[max, share]);
                        }
                    },
                );
                let weights = Matrix::new(scores, [view.rows.len(), n], [n, 1]);
                let out = &mut out[head * dim..];
                multiply(out, h * dim, Into::Replace, 1.0, weights, value.rows(keys));
            }
        },
    );
    let out = super::new(out, [batch, seq, h * dim], DType::F32);
    Some((out, super::new(sums, [batch, seq, h, 2], DType::F32)))
}

/// The gradient of `qkv`, in its shape.
pub(super) fn backward(
    qkv: &FlexTensor,
    documents: Option<&FlexTensor>,
    given: &[FlexTensor; 2],
    spec: AttentionSpec,
) -> Option<FlexTensor> {
    let qkv = qkv.to_contiguous();
    let heads = Heads::of(&qkv, spec)?;
    let first = first_visible(documents, spec.window, heads.batch, heads.seq)?;
    let [sums, dout] = given.each_ref().map(|x| x.to_contiguous());
    let (sums, dout) = (sums.as_slice()?, dout.as_slice()?);
    let Heads {
        batch, seq, dim, ..
    } = heads;
    let (h, plane) = (spec.heads, seq * dim);
    let group = h / spec.kv_heads;
    let mut gradient = vec![0f32; batch * (h + 2 * spec.kv_heads) * plane];
    // Query heads that share a key each add to gradients of their own, which are summed up afterwards: in one order, whoever is first.
    let mut shared = vec![0f32; batch * h * 2 * plane];
    let mut tasks = Vec::new();
    let sequences = gradient.chunks_mut(((h + 2 * spec.kv_heads) * plane).max(1));
    let both = sequences.zip(shared.chunks_mut((h * 2 * plane).max(1)));
    for (b, (gradient, shared)) in both.enumerate() {
        let queries = gradient[..h * plane].chunks_mut(plane.max(1));
        let parts = queries.zip(shared.chunks_mut((2 * plane).max(1)));
        tasks.extend(parts.enumerate().map(|(head, part)| (b, head, part)));
    }
    tasks.into_par_iter().for_each_init(
        || [(); 5].map(|()| Vec::new()),
        |buffers, (b, head, (dquery, shared))| {
            let (dkey, dvalue) = shared.split_at_mut(plane);
            let rows = |x| Matrix::new(x, [seq, dim], [h * dim, 1]);
            let at = b * seq * h * dim + head * dim;
            Head {
                matrices: heads.matrices(b, head),
                dout: rows(&dout[at..]),
                sums: (&sums[2 * (b * seq * h + head)..], 2 * h),
                first: &first[b * seq..][..seq],
                scale: spec.scale as f32,
                softcap: spec.softcap.map(|cap| cap as f32),
                dim,
            }
            .differentiate(buffers, dquery, dkey, dvalue);
        },
    );
    gradient
        .par_chunks_mut(((h + 2 * spec.kv_heads) * plane).max(1))
        .zip(shared.par_chunks((h * 2 * plane).max(1)))
        .for_each(|(gradient, shared)| {
            let (keys, values) = gradient[h * plane..].split_at_mut(spec.kv_heads * plane);
            let targets = keys
                .chunks_mut(plane.max(1))
                .zip(values.chunks_mut(plane.max(1)));
            for ((dkey, dvalue), shared) in targets.zip(shared.chunks(group * 2 * plane)) {
                for one in shared.chunks_exact(2 * plane) {
                    let (key, value) = one.split_at(plane);
                    for (sum, x) in dkey.iter_mut().zip(key).chain(dvalue.iter_mut().zip(value)) {
                        *sum += x;
                    }
                }
            }
        });
    Some(super::like(gradient, &qkv))
}

/// One query head in the backward pass. Numbers of a token stand a stride apart.
struct Head<'a> {
    /// Queries, keys and values.
    matrices: [Matrix<'a>; 3],
    dout: Matrix<'a>,
    /// The largest score of each query, and its share.
    sums: (&'a [f32], usize),
    first: &'a [usize],
    scale: f32,
    softcap: Option<f32>,
    dim: usize,
}

impl Head<'_> {
    /// Adds to the gradients of keys and values, and writes that of the queries.
    fn differentiate(
        &self,
        [weights, dscores, slopes, key_rows, value_rows]: &mut [Vec<f32>; 5],
        dquery: &mut [f32],
        dkey: &mut [f32],
        dvalue: &mut [f32],
    ) {
        let [query, key, value] = self.matrices;
        let dim = self.dim;
        let turned_key = by_rows(key_rows, key.transposed(), Parallelism::None);
        let turned_value = by_rows(value_rows, value.transposed(), Parallelism::None);
        for start in (0..self.first.len()).step_by(QUERIES) {
            let end = (start + QUERIES).min(self.first.len());
            let view = View::new(self.first, start..end);
            let (m, n) = (view.rows.len(), view.keys.len());
            let (query, dout) = (query.rows(start..end), self.dout.rows(start..end));
            let [turned_key, turned_value] =
                [turned_key, turned_value].map(|x| x.columns(view.keys.clone()));
            weights.resize(m * n, 0.0);
            dscores.resize(m * n, 0.0);
            slopes.resize(n, 0.0);
            multiply(weights, n, Into::Replace, self.scale, query, turned_key);
            multiply(dscores, n, Into::Replace, 1.0, dout, turned_value);
            vectorized(
                #[inline(always)]
                || self.weigh(&view, weights, dscores, slopes),
            );
            let columns = |x| Matrix::new(x, [m, n], [n, 1]);
            let (weights, dscores) = (columns(weights), columns(dscores));
            let at = view.keys.start * dim;
            multiply(
                &mut dvalue[at..],
                dim,
                Into::Add,
                1.0,
                weights.transposed(),
                dout,
            );
            multiply(
                &mut dkey[at..],
                dim,
                Into::Add,
                1.0,
                dscores.transposed(),
                query,
            );
            let dquery = &mut dquery[start * dim..];
            let key = key.rows(view.keys);
            multiply(dquery, dim, Into::Replace, 1.0, dscores, key);
        }
    }

    /// From scores the weights, and from their gradients those of the scores: P·(dP − Σ P·dP)·scale, times the slope of a cap.
    #[inline(always)]
    fn weigh(&self, view: &View, weights: &mut [f32], dscores: &mut [f32], slopes: &mut [f32]) {
        let n = view.keys.len();
        let rows = weights.chunks_exact_mut(n).zip(dscores.chunks_exact_mut(n));
        for (row, (weights, dscores)) in rows.enumerate() {
            let t = view.rows.start + row;
            let (max, share) = (
                self.sums.0[t * self.sums.1],
                self.sums.0[t * self.sums.1 + 1],
            );
            let seen = view.seen(row);
            for hidden in [0..seen.start, seen.end..n] {
                weights[hidden.clone()].fill(0.0);
                dscores[hidden].fill(0.0);
            }
            let (weights, dscores) = (&mut weights[seen.clone()], &mut dscores[seen]);
            if let Some(cap) = self.softcap {
                softcap_and_slopes(weights, slopes, cap);
            }
            for weight in weights.iter_mut() {
                *weight = exp(*weight - max) * share;
            }
            let mean = dot(weights, dscores);
            for (dscore, weight) in dscores.iter_mut().zip(weights) {
                *dscore = *weight * (*dscore - mean) * self.scale;
            }
            if self.softcap.is_some() {
                for (dscore, slope) in dscores.iter_mut().zip(slopes.iter()) {
                    *dscore *= slope;
                }
            }
        }
    }
}

/// Query, key and value heads, each a matrix `[seq, dim]`.
struct Heads<'a> {
    values: &'a [f32],
    batch: usize,
    seq: usize,
    dim: usize,
    spec: AttentionSpec,
}

impl<'a> Heads<'a> {
    fn of(qkv: &'a FlexTensor, spec: AttentionSpec) -> Option<Self> {
        let [batch, seq, dim] = [0, 2, 3].map(|dim| qkv.layout().shape()[dim]);
        let values = qkv.as_slice::<f32>()?;
        let in_f32 = matches!(spec.products, None | Some(FloatDType::F32));
        (in_f32 && !values.is_empty()).then_some(Self {
            values,
            batch,
            seq,
            dim,
            spec,
        })
    }

    /// All keys, `[batch, kv_heads, dim, seq]`: as the products with them read them.
    fn turned_keys(&self) -> Vec<f32> {
        let (plane, kv_heads) = (self.seq * self.dim, self.spec.kv_heads);
        let group = self.spec.heads / kv_heads;
        let fill = |out: &mut [MaybeUninit<f32>]| {
            let planes = out.par_chunks_mut(plane).enumerate();
            planes.for_each(|(at, out)| {
                let [_, key, _] = self.matrices(at / kv_heads, at % kv_heads * group);
                turn(out, key.transposed(), Parallelism::None);
            });
        };
        // SAFETY: each plane is written whole.
        unsafe { super::filled(self.batch * kv_heads * plane, fill) }
    }

    /// Of these, the keys that belong to the queries of `head`.
    fn turned<'k>(&self, keys: &'k [f32], b: usize, head: usize) -> Matrix<'k> {
        let (plane, kv_heads) = (self.seq * self.dim, self.spec.kv_heads);
        let at = b * kv_heads + head / (self.spec.heads / kv_heads);
        let keys = &keys[at * plane..][..plane];
        Matrix::new(keys, [self.dim, self.seq], [self.seq, 1])
    }

    /// Queries of `head`, and the keys and values that belong to them.
    fn matrices(&self, b: usize, head: usize) -> [Matrix<'a>; 3] {
        let (h, k) = (self.spec.heads, self.spec.kv_heads);
        let shared = head / (h / k);
        [head, h + shared, h + k + shared].map(|head| {
            let plane = self.seq * self.dim;
            let values = &self.values[(b * (h + 2 * k) + head) * plane..][..plane];
            Matrix::new(values, [self.seq, self.dim], [self.dim, 1])
        })
    }
}

/// A block of queries and the keys that any of them sees.
struct View<'a> {
    rows: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
    first: &'a [usize],
}

impl<'a> View<'a> {
    fn new(first: &'a [usize], rows: std::ops::Range<usize>) -> Self {
        // Places only grow.
        let keys = first[rows.start]..rows.end;
        Self { rows, keys, first }
    }

    /// What row `row` of the block sees of the keys.
    #[inline(always)]
    fn seen(&self, row: usize) -> std::ops::Range<usize> {
        let t = self.rows.start + row;
        self.first[t] - self.keys.start..t + 1 - self.keys.start
    }
}

/// The first key that each query sees, `[batch, seq]`, growing along a sequence; `None` where a document comes back after another.
fn first_visible(
    documents: Option<&FlexTensor>,
    window: Option<usize>,
    batch: usize,
    seq: usize,
) -> Option<Vec<usize>> {
    let documents = match documents {
        Some(documents) => super::integers(documents)?,
        None => vec![0; batch * seq],
    };
    let mut first = Vec::with_capacity(batch * seq);
    for documents in documents.chunks_exact(seq) {
        let (mut start, mut known) = (0, std::collections::HashSet::from([documents[0]]));
        for (t, document) in documents.iter().enumerate() {
            if t > 0 && *document != documents[t - 1] {
                start = t;
                if !known.insert(*document) {
                    return None;
                }
            }
            let window = window.map_or(0, |window| (t + 1).saturating_sub(window));
            first.push(start.max(window));
        }
    }
    Some(first)
}
