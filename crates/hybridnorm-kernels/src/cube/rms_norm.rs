//! RMSNorm and its gradient.

use burn::tensor::DType;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{
    across, address, dense, empty, row_sum, rows_of, spread, this_row, total, vector,
};

/// Strips of rows whose shares of the scale's gradient are added up apart from each other.
const STRIPS: usize = 512;

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    rows: usize,
    width: usize,
    epsilon: f32,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < rows;
    let first = select(inside, row, 0) * width;
    let lane = UNIT_POS_X as usize;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(lane, width, lanes) {
        let value = Vector::<f32, N>::cast_from(x[first + i]);
        squares += value * value;
    }
    let mean = row_sum(across::<N>(squares), lanes) / (f32::cast_from(width * N::value()));
    let inverse = Vector::<f32, N>::new(1.0 / (mean + epsilon).sqrt());
    if inside {
        for i in range_stepped(lane, width, lanes) {
            let value = Vector::<f32, N>::cast_from(x[first + i]);
            let scaled = value * inverse * Vector::<f32, N>::cast_from(weight[i]);
            out[first + i] = Vector::cast_from(scaled);
        }
    }
}

/// Each group of units takes a strip of rows, and keeps its share of the scale's gradient in registers.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    shares: &mut [Vector<f32, N>],
    rows: usize,
    strips: usize,
    epsilon: f32,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let strip = this_row();
    let lane = UNIT_POS_X as usize;
    let columns = comptime!(width.div_ceil(lanes));
    let mut share = Array::<Vector<f32, N>>::new(columns);
    #[unroll]
    for c in 0..columns {
        share[c] = Vector::new(0.0f32);
    }
    let numbers = f32::cast_from(comptime!(width) * N::value());
    // All units of a cube take as many turns, for they wait for each other in each.
    for turn in 0..rows.div_ceil(strips) {
        let row = turn * strips + strip;
        let inside = strip < strips && row < rows;
        let first = select(inside, row, 0) * width;
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut products = Vector::<f32, N>::new(0.0f32);
        for i in range_stepped(lane, width, lanes) {
            let value = Vector::<f32, N>::cast_from(x[first + i]);
            let g =
                Vector::<f32, N>::cast_from(dy[first + i]) * Vector::<f32, N>::cast_from(weight[i]);
            squares += value * value;
            products += g * value;
        }
        let mean = row_sum(across::<N>(squares), lanes) / numbers;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        let along = row_sum(across::<N>(products), lanes) / numbers * inverse * inverse;
        let (inverse, along) = (Vector::<f32, N>::new(inverse), Vector::<f32, N>::new(along));
        if inside {
            #[unroll]
            for c in 0..columns {
                let i = lane + c * lanes;
                if i < width {
                    let value = Vector::<f32, N>::cast_from(x[first + i]);
                    let upstream = Vector::<f32, N>::cast_from(dy[first + i]);
                    let g = upstream * Vector::<f32, N>::cast_from(weight[i]);
                    dx[first + i] = Vector::cast_from((g - value * along) * inverse);
                    share[c] += upstream * value * inverse;
                }
            }
        }
    }
    if strip < strips {
        #[unroll]
        for c in 0..columns {
            let i = lane + c * lanes;
            if i < width {
                shares[strip * width + i] = share[c];
            }
        }
    }
}

pub(super) fn forward(x: &CubeTensor, weight: &CubeTensor, epsilon: f64) -> Option<CubeTensor> {
    let (x, weight) = (dense(x)?, dense(weight)?);
    if weight.dtype != x.dtype {
        return None;
    }
    let [rows, width] = rows_of(&x);
    let size = vector(&x, width);
    let width = width / size;
    let spread = spread(rows, width);
    let out = empty(&x, x.meta.shape().clone(), x.dtype);
    let address = address(&[&x]);
    // SAFETY: the kernel checks its row, and lanes stay within its width.
    unsafe {
        forward_kernel::launch_unchecked(
            &out.client,
            spread.count,
            spread.dim,
            address,
            size,
            x.clone().into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            width,
            epsilon as f32,
            spread.lanes,
            element(x.dtype),
        );
    }
    Some(out)
}

/// The gradients of `x` and `weight`.
pub(super) fn backward(
    [x, weight, dy]: [&CubeTensor; 3],
    epsilon: f64,
) -> Option<(CubeTensor, CubeTensor)> {
    let (x, weight, dy) = (dense(x)?, dense(weight)?, dense(dy)?);
    if weight.dtype != x.dtype || dy.dtype != x.dtype {
        return None;
    }
    let [rows, numbers] = rows_of(&x);
    let size = vector(&x, numbers);
    let width = numbers / size;
    let strips = rows.clamp(1, STRIPS);
    let spread = spread(strips, width);
    let dx = empty(&x, x.meta.shape().clone(), x.dtype);
    let shares = empty(&x, [strips, numbers], DType::F32);
    let address = address(&[&x]);
    // SAFETY: the kernel checks its row, its strip and its columns.
    unsafe {
        backward_kernel::launch_unchecked(
            &dx.client,
            spread.count,
            spread.dim,
            address,
            size,
            x.clone().into_buffer_arg(),
            weight.clone().into_buffer_arg(),
            dy.into_buffer_arg(),
            dx.clone().into_buffer_arg(),
            shares.clone().into_buffer_arg(),
            rows,
            strips,
            epsilon as f32,
            width,
            spread.lanes,
            element(x.dtype),
        );
    }
    let dtype = weight.dtype;
    Some((dx, total(shares, [numbers], dtype)))
}
