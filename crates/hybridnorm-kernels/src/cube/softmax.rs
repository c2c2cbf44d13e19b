//! What stands between the two products of attention.

use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, FloatDType, IntDType};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::element;
use super::rows::{address, computes, empty, owned, row_max, row_sum, rows_of, spread, this_row};
use crate::softmax::{Composed, Seen, Softmax};

/// [`Softmax`] in one kernel for each direction, which write where they read.
pub(crate) struct Fused;

/// Where the scores of a block stand.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Block {
    rows: usize,
    /// Rows of one sequence, all heads.
    per_sequence: usize,
    queries: usize,
    keys: usize,
    seq: usize,
    first_query: usize,
    first_key: usize,
    /// Tokens that a query sees.
    window: usize,
}

/// Whether the query of `row` sees key `j` of its block.
#[cube]
fn sees(
    row: usize,
    j: usize,
    documents: &[i32],
    block: &Block,
    #[comptime] by_document: bool,
) -> bool {
    let query = block.first_query + row % block.queries;
    let key = block.first_key + j;
    let mut seen = key <= query && query < key + block.window;
    if comptime!(by_document) {
        let first = row / block.per_sequence * block.seq;
        // No key of a block lies behind its last query.
        seen = seen && documents[first + query] == documents[first + key];
    }
    seen
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float>(
    scores: &mut [F],
    documents: &[i32],
    sums: &mut [f32],
    block: &Block,
    #[comptime] by_document: bool,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < block.rows;
    let at = select(inside, row, 0);
    let first = at * block.keys;
    let lane = UNIT_POS_X as usize;
    // Below every score; minus infinity is no number that every device has.
    let mut largest = f32::new(-3.0e38_f32);
    let mut sum = 0.0f32;
    for j in range_stepped(lane, block.keys, lanes) {
        if sees(at, j, documents, block, by_document) {
            let score = f32::cast_from(scores[first + j]);
            let above = max(largest, score);
            sum = sum * (largest - above).exp() + (score - above).exp();
            largest = above;
        }
    }
    let row_largest = row_max(largest, lanes);
    let total = row_sum(sum * (largest - row_largest).exp(), lanes);
    let share = 1.0f32 / total;
    if inside {
        for j in range_stepped(lane, block.keys, lanes) {
            let mut weight = 0.0f32;
            if sees(at, j, documents, block, by_document) {
                weight = (f32::cast_from(scores[first + j]) - row_largest).exp() * share;
            }
            scores[first + j] = F::cast_from(weight);
        }
        if lane == 0 {
            sums[2 * row] = row_largest;
            sums[2 * row + 1] = share;
        }
    }
}

/// Turns scores into weights, and the weights' gradient into that of the scores.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float>(
    scores: &mut [F],
    gradients: &mut [F],
    documents: &[i32],
    sums: &[f32],
    block: &Block,
    #[comptime] by_document: bool,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < block.rows;
    let at = select(inside, row, 0);
    let first = at * block.keys;
    let lane = UNIT_POS_X as usize;
    let row_largest = sums[2 * at];
    let share = sums[2 * at + 1];
    let mut sum = 0.0f32;
    for j in range_stepped(lane, block.keys, lanes) {
        if sees(at, j, documents, block, by_document) {
            let weight = (f32::cast_from(scores[first + j]) - row_largest).exp() * share;
            sum += weight * f32::cast_from(gradients[first + j]);
        }
    }
    let mean = row_sum(sum, lanes);
    if inside {
        for j in range_stepped(lane, block.keys, lanes) {
            let mut weight = 0.0f32;
            let mut gradient = 0.0f32;
            if sees(at, j, documents, block, by_document) {
                weight = (f32::cast_from(scores[first + j]) - row_largest).exp() * share;
                gradient = weight * (f32::cast_from(gradients[first + j]) - mean);
            }
            scores[first + j] = F::cast_from(weight);
            gradients[first + j] = F::cast_from(gradient);
        }
    }
}

/// The numbers of the documents, in 32 bits; where there are none, something to bind.
fn documents_of(seen: &Seen<CubeBackend>, like: &CubeTensor) -> CubeTensor {
    match &seen.documents {
        Some(documents) => {
            let documents = CubeBackend::int_cast(documents.clone(), IntDType::I32);
            burn_cubecl::kernel::into_contiguous(documents)
        }
        None => empty(like, [1], DType::I32),
    }
}

fn block(scores: &CubeTensor, seen: &Seen<CubeBackend>) -> BlockLaunch {
    let [rows, keys] = rows_of(scores);
    let (heads, queries) = (scores.meta.shape()[1], scores.meta.shape()[2]);
    let seq = seen.documents.as_ref().map_or(0, |x| x.meta.shape()[1]);
    // Any number behind the sequence will do where there is no window.
    let window = seen
        .window
        .unwrap_or(seen.queries.end)
        .min(seen.queries.end);
    BlockLaunch::new(
        rows,
        heads * queries,
        queries,
        keys,
        seq,
        seen.queries.start,
        seen.keys.start,
        window,
    )
}

impl Softmax<CubeBackend> for Fused {
    fn forward(
        scores: FloatTensor<CubeBackend>,
        seen: &Seen<CubeBackend>,
    ) -> (FloatTensor<CubeBackend>, FloatTensor<CubeBackend>) {
        if !computes(scores.dtype) || seen.dtype != FloatDType::F32 {
            return Composed::forward(scores, seen);
        }
        let scores = owned(scores);
        let shape = scores.meta.shape().clone();
        let sums = empty(&scores, [shape[0], shape[1], shape[2], 2], DType::F32);
        let [rows, keys] = rows_of(&scores);
        let spread = spread(rows, keys);
        let address = address(&[&scores]);
        // SAFETY: the kernel checks its row, and lanes stay within the keys.
        unsafe {
            forward_kernel::launch_unchecked(
                &scores.client,
                spread.count,
                spread.dim,
                address,
                scores.clone().into_buffer_arg(),
                documents_of(seen, &scores).into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                block(&scores, seen),
                seen.documents.is_some(),
                spread.lanes,
                element(scores.dtype),
            );
        }
        (scores, sums)
    }

    fn backward(
        scores: FloatTensor<CubeBackend>,
        sums: FloatTensor<CubeBackend>,
        dweights: FloatTensor<CubeBackend>,
        seen: &Seen<CubeBackend>,
    ) -> (FloatTensor<CubeBackend>, FloatTensor<CubeBackend>) {
        if !computes(scores.dtype) || sums.dtype != DType::F32 || dweights.dtype != scores.dtype {
            return Composed::backward(scores, sums, dweights, seen);
        }
        let [scores, gradients] = [scores, dweights].map(owned);
        let sums = burn_cubecl::kernel::into_contiguous(sums);
        let [rows, keys] = rows_of(&scores);
        let spread = spread(rows, keys);
        let address = address(&[&scores]);
        // SAFETY: the kernel checks its row, and lanes stay within the keys.
        unsafe {
            backward_kernel::launch_unchecked(
                &scores.client,
                spread.count,
                spread.dim,
                address,
                scores.clone().into_buffer_arg(),
                gradients.clone().into_buffer_arg(),
                documents_of(seen, &scores).into_buffer_arg(),
                sums.into_buffer_arg(),
                block(&scores, seen),
                seen.documents.is_some(),
                spread.lanes,
                element(scores.dtype),
            );
        }
        (scores, gradients)
    }
}
