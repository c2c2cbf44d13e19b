//! Cross-entropy of rows of logits, and its gradient.

use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{address, dense, empty, owned, row_max, row_sum, rows_of, spread, this_row};

/// Both numbers of a row: the largest logit and the sum beside it are kept up while the row is read once.
#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float>(
    logits: &[F],
    targets: &[i32],
    both: &mut [F],
    rows: usize,
    vocab: usize,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < rows;
    let at = select(inside, row, 0);
    let first = at * vocab;
    let lane = UNIT_POS_X as usize;
    let mut largest = f32::cast_from(logits[first + min(lane, vocab - 1)]);
    let mut sum = 0.0f32;
    for i in range_stepped(lane, vocab, lanes) {
        let logit = f32::cast_from(logits[first + i]);
        let above = max(largest, logit);
        sum = sum * (largest - above).exp() + (logit - above).exp();
        largest = above;
    }
    let row_largest = row_max(largest, lanes);
    let total = row_sum(sum * (largest - row_largest).exp(), lanes);
    if inside && lane == 0 {
        let lse = row_largest + total.ln();
        let target = f32::cast_from(logits[first + targets[at] as usize]);
        both[row] = F::cast_from(lse - target);
        both[rows + row] = F::cast_from(lse);
    }
}

/// Each unit turns one logit into its gradient, where it stands.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float>(
    logits: &mut [F],
    targets: &[i32],
    both: &[F],
    upstream: &[F],
    rows: usize,
    vocab: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < rows * vocab {
        let row = at / vocab;
        let dnll = f32::cast_from(upstream[row]);
        let dlse = f32::cast_from(upstream[rows + row]);
        let lse = f32::cast_from(both[rows + row]);
        let softmax = (f32::cast_from(logits[at]) - lse).exp();
        let own = select(at % vocab == targets[row] as usize, dnll, 0.0f32);
        logits[at] = F::cast_from(softmax * (dnll + dlse) - own);
    }
}

/// `targets` in 32 bits.
pub(super) fn forward(logits: &CubeTensor, targets: CubeTensor) -> Option<CubeTensor> {
    let logits = dense(logits)?;
    let [rows, vocab] = rows_of(&logits);
    let spread = spread(rows, vocab);
    let both = empty(&logits, [2, rows], logits.dtype);
    let address = address(&[&logits]);
    // SAFETY: the kernel checks its row, and lanes stay within the vocabulary; targets are in it, the operation says.
    unsafe {
        forward_kernel::launch_unchecked(
            &both.client,
            spread.count,
            spread.dim,
            address,
            logits.clone().into_buffer_arg(),
            targets.into_buffer_arg(),
            both.clone().into_buffer_arg(),
            rows,
            vocab,
            spread.lanes,
            element(logits.dtype),
        );
    }
    Some(both)
}

/// Writes over the logits, where nothing else holds them.
pub(super) fn backward(
    logits: CubeTensor,
    targets: CubeTensor,
    [both, upstream]: [&CubeTensor; 2],
) -> CubeTensor {
    let logits = owned(logits);
    let [rows, vocab] = rows_of(&logits);
    let numbers = rows * vocab;
    let dim = CubeDim::new(&logits.client, numbers);
    let address = address(&[&logits]);
    // SAFETY: the kernel checks its place.
    unsafe {
        backward_kernel::launch_unchecked(
            &logits.client,
            calculate_cube_count_elemwise(&logits.client, numbers, dim),
            dim,
            address,
            logits.clone().into_buffer_arg(),
            targets.into_buffer_arg(),
            both.clone().into_buffer_arg(),
            upstream.clone().into_buffer_arg(),
            rows,
            vocab,
            element(logits.dtype),
        );
    }
    logits
}
