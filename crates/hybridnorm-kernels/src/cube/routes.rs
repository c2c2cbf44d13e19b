//! The way of tokens back from their experts, and its gradient. The way there is Burn's own choice of rows.

use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{across, address, dense, empty, row_sum, rows_of, spread, this_row, vector};

/// Each unit has one vector of a token: what its copies give there, added up in the order of its choices.
#[cube(launch_unchecked, address_type = "dynamic")]
fn sum_kernel<F: Float, N: Size>(
    y: &[Vector<F, N>],
    weights: &[F],
    places: &[i32],
    out: &mut [Vector<F, N>],
    vectors: usize,
    width: usize,
    top_k: usize,
    #[comptime] weighted: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let first = at / width * top_k;
        let column = at % width;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for copy in first..first + top_k {
            let mut value = Vector::<f32, N>::cast_from(y[places[copy] as usize * width + column]);
            if comptime!(weighted) {
                value *= Vector::<f32, N>::new(f32::cast_from(weights[copy]));
            }
            sum += value;
        }
        out[at] = Vector::cast_from(sum);
    }
}

/// Some units share a copy.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    dout: &[Vector<F, N>],
    y: &[Vector<F, N>],
    weights: &[F],
    order: &[i32],
    dy: &mut [Vector<F, N>],
    dweights: &mut [F],
    rows: usize,
    width: usize,
    top_k: usize,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < rows;
    let row = select(inside, row, 0);
    let copy = order[row] as usize;
    let (first, from) = (row * width, copy / top_k * width);
    let weight = Vector::<f32, N>::new(f32::cast_from(weights[copy]));
    let lane = UNIT_POS_X as usize;
    let mut products = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(lane, width, lanes) {
        let upstream = Vector::<f32, N>::cast_from(dout[from + i]);
        products += upstream * Vector::<f32, N>::cast_from(y[first + i]);
        if inside {
            dy[first + i] = Vector::cast_from(upstream * weight);
        }
    }
    let product = row_sum(across::<N>(products), lanes);
    if inside && lane == 0 {
        dweights[copy] = F::cast_from(product);
    }
}

/// What each of `tokens` tokens' copies give, times `weights` `[tokens, top_k]` where there are any. `places` in 32 bits.
pub(super) fn sum(
    y: &CubeTensor,
    weights: Option<&CubeTensor>,
    places: CubeTensor,
    tokens: usize,
) -> Option<CubeTensor> {
    let y = dense(y)?;
    let weighted = weights.is_some();
    // Something to bind where there are none.
    let weights = dense(weights.unwrap_or(&y))?;
    let [rows, width] = rows_of(&y);
    if weights.dtype != y.dtype || rows * width == 0 {
        return None;
    }
    let size = vector(&y, width);
    let out = empty(&y, [tokens, width], y.dtype);
    let vectors = tokens * width / size;
    let dim = CubeDim::new(&out.client, vectors);
    let address = address(&[&y]);
    // SAFETY: the kernel checks its place, and `places` are rows of `y`: `Routes` are nothing else.
    unsafe {
        sum_kernel::launch_unchecked(
            &out.client,
            calculate_cube_count_elemwise(&out.client, vectors, dim),
            dim,
            address,
            size,
            y.clone().into_buffer_arg(),
            weights.into_buffer_arg(),
            places.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            width / size,
            rows / tokens,
            weighted,
            element(y.dtype),
        );
    }
    Some(out)
}

/// The gradients of `y` and `weights` in their sum. `order` in 32 bits.
pub(super) fn combine_backward(
    [dout, y, weights]: [&CubeTensor; 3],
    order: CubeTensor,
) -> Option<(CubeTensor, CubeTensor)> {
    let (dout, y, weights) = (dense(dout)?, dense(y)?, dense(weights)?);
    let ([rows, width], [_, top_k]) = (rows_of(&y), rows_of(&weights));
    if dout.dtype != y.dtype || weights.dtype != y.dtype || rows * width == 0 {
        return None;
    }
    let size = vector(&y, width);
    let width = width / size;
    let spread = spread(rows, width);
    let dy = empty(&y, y.meta.shape().clone(), y.dtype);
    let dweights = empty(&y, weights.meta.shape().clone(), y.dtype);
    let address = address(&[&y]);
    // SAFETY: the kernel checks its row, lanes stay within the width, and `order` are the copies that `weights` are of.
    unsafe {
        backward_kernel::launch_unchecked(
            &dy.client,
            spread.count,
            spread.dim,
            address,
            size,
            dout.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            weights.into_buffer_arg(),
            order.into_buffer_arg(),
            dy.clone().into_buffer_arg(),
            dweights.clone().into_buffer_arg(),
            rows,
            width,
            top_k,
            spread.lanes,
            element(y.dtype),
        );
    }
    Some((dy, dweights))
}
