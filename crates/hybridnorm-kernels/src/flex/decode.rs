//! Attention to a cache, a key head at a time: its keys are read where they lie.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::PARALLEL_FROM;
use super::simd::{dot, exp_and_sum, max, softcap, vectorized};
use crate::decode::DecodeSpec;

/// `None` where a tensor is not f32, or a cache not as it was made.
pub(super) fn attention(
    query: &FlexTensor,
    [keys, values]: [&FlexTensor; 2],
    spec: &DecodeSpec,
) -> Option<FlexTensor> {
    if !(keys.is_contiguous() && values.is_contiguous()) {
        return None;
    }
    let query = query.to_contiguous();
    let (queries, keys_held, values_held) = (
        query.as_slice::<f32>()?,
        keys.as_slice::<f32>()?,
        values.as_slice::<f32>()?,
    );
    let [batch, kv_heads, capacity, dim] = [0, 1, 2, 3].map(|n| keys.layout().shape()[n]);
    let group = spec.attention.heads / kv_heads;
    let (plane, width) = (capacity * dim, group * dim);
    let mut out = vec![0f32; batch * kv_heads * width];
    let head = |(at, out): (usize, &mut [f32])| {
        let seen = spec.first(at / kv_heads)..spec.len;
        let queries = &queries[at * width..][..width];
        let [keys, values] = [keys_held, values_held].map(|held| {
            let held = &held[at * plane..][..plane];
            &held[seen.start * dim..seen.end * dim]
        });
        let mut weights = vec![0f32; seen.len()];
        let pairs = queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
        for (query, out) in pairs {
            vectorized(|| {
                for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(dim)) {
                    *weight = dot(query, key) * spec.attention.scale as f32;
                }
                if let Some(cap) = spec.attention.softcap {
                    softcap(&mut weights, cap as f32);
                }
                let max = max(&weights);
                let share = 1.0 / exp_and_sum(&mut weights, max);
                for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
                    let weight = weight * share;
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
            });
        }
    };
    match batch * spec.attention.heads * spec.len * dim < PARALLEL_FROM {
        true => out.chunks_exact_mut(width).enumerate().for_each(head),
        false => out.par_chunks_exact_mut(width).enumerate().for_each(head),
    }
    let shape = [batch, spec.attention.heads * dim];
    Some(super::new(out, shape, DType::F32))
}
