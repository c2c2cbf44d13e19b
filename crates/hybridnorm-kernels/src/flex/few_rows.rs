//! Products of a few rows: columns of the matrix are divided among the threads, so that each part of it is read once, and the sums of an
//! element are added up in one order whatever the threads.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::PARALLEL_FROM;
use super::product::strided;
use super::simd::{dot, vectorized};

/// Rows up to which this is worth its while: above, a product of blocks reads the matrix no more often.
pub(super) const FEW_ROWS: usize = 16;
/// Columns of a task.
const COLUMNS: usize = 128;
/// Rows of the matrix that are added to the sums at once.
const DEPTH: usize = 4;

/// `[rows, d_out]` from `[.., d_in]`. `None` where a tensor is not f32, the rows are many, or the matrix lies neither by rows nor by
/// columns.
pub(super) fn product(x: &FlexTensor, weight: &FlexTensor) -> Option<Vec<f32>> {
    if weight.dtype() != DType::F32 {
        return None;
    }
    let x = x.to_contiguous();
    let [d_in, d_out] = [0, 1].map(|dim| weight.layout().shape()[dim]);
    let rows = x.layout().shape().num_elements() / d_in.max(1);
    let (matrix, [row_stride, column_stride]) = strided::<2>(weight)?;
    let x = x.as_slice::<f32>()?;
    if rows == 0 || rows > FEW_ROWS || d_in == 0 || d_out == 0 {
        return None;
    }
    let columns: fn(Part<'_>, &mut [f32]) = match (row_stride, column_stride) {
        (_, 1) => by_rows,
        (1, _) => by_columns,
        _ => return None,
    };
    let part = |at: usize| Part {
        x,
        matrix,
        stride: row_stride.max(column_stride),
        d_in,
        first: at * COLUMNS,
    };
    // [d_out / COLUMNS, rows, COLUMNS], so that a task writes to one place.
    let mut parts = vec![0f32; d_out.div_ceil(COLUMNS) * rows * COLUMNS];
    let task = |(at, out): (usize, &mut [f32])| {
        let width = COLUMNS.min(d_out - at * COLUMNS);
        columns(part(at), &mut out[..rows * width]);
    };
    match rows * d_in * d_out < PARALLEL_FROM {
        true => parts.chunks_mut(rows * COLUMNS).enumerate().for_each(task),
        false => parts
            .par_chunks_mut(rows * COLUMNS)
            .enumerate()
            .for_each(task),
    }
    let mut out = parts;
    if rows == 1 {
        out.truncate(d_out);
    } else {
        let parts = out;
        out = vec![0f32; rows * d_out];
        for (at, part) in parts.chunks_exact(rows * COLUMNS).enumerate() {
            let first = at * COLUMNS;
            let width = COLUMNS.min(d_out - first);
            for (row, part) in part[..rows * width].chunks_exact(width).enumerate() {
                out[row * d_out + first..][..width].copy_from_slice(part);
            }
        }
    }
    Some(out)
}

/// Some columns of a product.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// `[rows, d_in]`
    x: &'a [f32],
    matrix: &'a [f32],
    /// From one row of the matrix to the next, or from one column to the next.
    stride: usize,
    d_in: usize,
    first: usize,
}

/// `out` `[rows, width]`, of a matrix that lies row after row.
fn by_rows(part: Part<'_>, out: &mut [f32]) {
    let rows = part.x.len() / part.d_in;
    let width = out.len() / rows;
    let line = |k: usize| &part.matrix[k * part.stride + part.first..][..width];
    vectorized(|| {
        for k in (0..part.d_in).step_by(DEPTH) {
            if k + DEPTH <= part.d_in {
                let [a, b, c, d] = [line(k), line(k + 1), line(k + 2), line(k + 3)];
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    let x = &part.x[row * part.d_in + k..][..DEPTH];
                    for i in 0..width {
                        out[i] += (x[0] * a[i] + x[1] * b[i]) + (x[2] * c[i] + x[3] * d[i]);
                    }
                }
            } else {
                for k in k..part.d_in {
                    let line = line(k);
                    for (row, out) in out.chunks_exact_mut(width).enumerate() {
                        let x = part.x[row * part.d_in + k];
                        for (out, value) in out.iter_mut().zip(line) {
                            *out += x * value;
                        }
                    }
                }
            }
        }
    });
}

/// The same of a matrix that lies column after column.
fn by_columns(part: Part<'_>, out: &mut [f32]) {
    let rows = part.x.len() / part.d_in;
    let width = out.len() / rows;
    vectorized(|| {
        for column in 0..width {
            let values = &part.matrix[(part.first + column) * part.stride..][..part.d_in];
            for (row, x) in part.x.chunks_exact(part.d_in).enumerate() {
                out[row * width + column] = dot(x, values);
            }
        }
    });
}
