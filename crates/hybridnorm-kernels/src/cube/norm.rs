//! RMSNorm, LayerNorm and their gradients.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{
    across, address, dense, empty, row_sum, rows_of, spread, this_row, total, vector,
};
use crate::norm::NormSpec;

/// Strips of rows whose shares of the gradients of scale and shift are added up apart from each other.
const STRIPS: usize = 512;

/// The mean of a row of `numbers` numbers: of what the first, rounded one leaves it takes the mean once more; 0 where the norm keeps it. All
/// units of a cube must come here.
#[cube]
fn row_mean<F: Float, N: Size>(
    x: &[Vector<F, N>],
    first: usize,
    width: usize,
    #[comptime] lanes: usize,
    #[comptime] centred: bool,
) -> f32 {
    let mut mean = 0.0f32;
    if comptime!(centred) {
        let numbers = f32::cast_from(width * N::value());
        let lane = UNIT_POS_X as usize;
        #[unroll]
        for _ in 0..2 {
            let known = Vector::<f32, N>::new(mean);
            let mut sum = Vector::<f32, N>::new(0.0f32);
            for i in range_stepped(lane, width, lanes) {
                sum += Vector::<f32, N>::cast_from(x[first + i]) - known;
            }
            mean += row_sum(across::<N>(sum), lanes) / numbers;
        }
    }
    mean
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    rows: usize,
    width: usize,
    epsilon: f32,
    #[comptime] centred: bool,
    #[comptime] biased: bool,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = this_row();
    let inside = row < rows;
    let first = select(inside, row, 0) * width;
    let lane = UNIT_POS_X as usize;
    let mean = Vector::<f32, N>::new(row_mean::<F, N>(x, first, width, lanes, centred));
    let mut squares = Vector::<f32, N>::new(0.0f32);
    for i in range_stepped(lane, width, lanes) {
        let value = Vector::<f32, N>::cast_from(x[first + i]) - mean;
        squares += value * value;
    }
    let square = row_sum(across::<N>(squares), lanes) / (f32::cast_from(width * N::value()));
    let inverse = Vector::<f32, N>::new(1.0 / (square + epsilon).sqrt());
    if inside {
        for i in range_stepped(lane, width, lanes) {
            let value = Vector::<f32, N>::cast_from(x[first + i]) - mean;
            let mut y = value * inverse * Vector::<f32, N>::cast_from(weight[i]);
            if comptime!(biased) {
                y += Vector::<f32, N>::cast_from(bias[i]);
            }
            out[first + i] = Vector::cast_from(y);
        }
    }
}

/// Each group of units takes a strip of rows, and keeps its share of the gradients of scale and shift in registers.
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
    #[comptime] centred: bool,
    #[comptime] biased: bool,
    #[comptime] lanes: usize,
    #[define(F)] _dtype: ElemType,
) {
    let strip = this_row();
    let lane = UNIT_POS_X as usize;
    let columns = comptime!(width.div_ceil(lanes));
    let parameters = comptime!(if biased { 2 } else { 1 });
    let mut share = Array::<Vector<f32, N>>::new(columns * parameters);
    #[unroll]
    for c in 0..columns * parameters {
        share[c] = Vector::new(0.0f32);
    }
    let numbers = f32::cast_from(comptime!(width) * N::value());
    // All units of a cube take as many turns, for they wait for each other in each.
    for turn in 0..rows.div_ceil(strips) {
        let row = turn * strips + strip;
        let inside = strip < strips && row < rows;
        let first = select(inside, row, 0) * width;
        let mean = Vector::<f32, N>::new(row_mean::<F, N>(x, first, width, lanes, centred));
        let mut squares = Vector::<f32, N>::new(0.0f32);
        let mut products = Vector::<f32, N>::new(0.0f32);
        let mut upstreams = Vector::<f32, N>::new(0.0f32);
        for i in range_stepped(lane, width, lanes) {
            let value = Vector::<f32, N>::cast_from(x[first + i]) - mean;
            let g =
                Vector::<f32, N>::cast_from(dy[first + i]) * Vector::<f32, N>::cast_from(weight[i]);
            squares += value * value;
            products += g * value;
            upstreams += g;
        }
        let square = row_sum(across::<N>(squares), lanes) / numbers;
        let inverse = 1.0 / (square + epsilon).sqrt();
        let along = row_sum(across::<N>(products), lanes) / numbers * inverse * inverse;
        let mut upstream_mean = 0.0f32;
        if comptime!(centred) {
            upstream_mean = row_sum(across::<N>(upstreams), lanes) / numbers;
        }
        let (inverse, along) = (Vector::<f32, N>::new(inverse), Vector::<f32, N>::new(along));
        let upstream_mean = Vector::<f32, N>::new(upstream_mean);
        if inside {
            #[unroll]
            for c in 0..columns {
                let i = lane + c * lanes;
                if i < width {
                    let value = Vector::<f32, N>::cast_from(x[first + i]) - mean;
                    let upstream = Vector::<f32, N>::cast_from(dy[first + i]);
                    let g = upstream * Vector::<f32, N>::cast_from(weight[i]) - upstream_mean;
                    dx[first + i] = Vector::cast_from((g - value * along) * inverse);
                    share[c] += upstream * value * inverse;
                    if comptime!(biased) {
                        share[columns + c] += upstream;
                    }
                }
            }
        }
    }
    if strip < strips {
        #[unroll]
        for c in 0..columns {
            let i = lane + c * lanes;
            if i < width {
                let at = strip * comptime!(width * parameters) + i;
                shares[at] = share[c];
                if comptime!(biased) {
                    shares[at + comptime!(width)] = share[columns + c];
                }
            }
        }
    }
}

pub(super) fn forward(
    [x, weight, bias]: [&CubeTensor; 3],
    biased: bool,
    spec: NormSpec,
) -> Option<CubeTensor> {
    let (x, weight, bias) = (dense(x)?, dense(weight)?, dense(bias)?);
    if weight.dtype != x.dtype || bias.dtype != x.dtype {
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
            bias.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            width,
            spec.epsilon as f32,
            spec.centred,
            biased,
            spread.lanes,
            element(x.dtype),
        );
    }
    Some(out)
}

/// The gradients of `x`, the scale and the shift; of a shift that is not there, the second once more.
pub(super) fn backward(
    [x, weight, dy]: [&CubeTensor; 3],
    biased: bool,
    spec: NormSpec,
) -> Option<(CubeTensor, CubeTensor, CubeTensor)> {
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
    let parameters = if biased { 2 } else { 1 };
    let shares = empty(&x, [strips, parameters * numbers], DType::F32);
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
            spec.epsilon as f32,
            width,
            spec.centred,
            biased,
            spread.lanes,
            element(x.dtype),
        );
    }
    let sums = total(shares, [parameters * numbers], weight.dtype);
    if !biased {
        return Some((dx, sums.clone(), sums));
    }
    let part = |at: usize| CubeBackend::float_slice(sums.clone(), &[Slice::from(at..at + numbers)]);
    Some((dx, part(0), part(numbers)))
}
