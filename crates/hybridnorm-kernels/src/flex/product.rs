//! Matrix products on slices of f32.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

/// A matrix within a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose element (i, j) is `values[i·row_stride + j·column_stride]`.
    ///
    /// # Panics
    /// When its last element is not in `values`.
    pub(super) fn new(
        values: &'a [f32],
        [rows, columns]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Self {
        let last = (rows.max(1) - 1) * row_stride + (columns.max(1) - 1) * column_stride;
        assert!(last < values.len(), "element {last} of {}", values.len());
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// Rows `range`.
    pub(super) fn rows(self, range: std::ops::Range<usize>) -> Self {
        assert!(
            range.start < range.end && range.end <= self.rows,
            "rows {range:?} of {}",
            self.rows
        );
        let values = &self.values[range.start * self.row_stride..];
        Self {
            values,
            rows: range.len(),
            ..self
        }
    }

    /// Columns `range`.
    pub(super) fn columns(self, range: std::ops::Range<usize>) -> Self {
        self.transposed().rows(range).transposed()
    }

    /// The transposed matrix.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// The values of a tensor, and its strides where they are all positive.
pub(super) fn strided<const D: usize>(tensor: &FlexTensor) -> Option<(&[f32], [usize; D])> {
    let layout = tensor.layout();
    let strides: Vec<usize> = layout
        .strides()
        .iter()
        .map(|stride| usize::try_from(*stride).ok())
        .collect::<Option<_>>()?;
    let values = tensor.storage::<f32>().get(layout.start_offset()..)?;
    Some((values, strides.try_into().ok()?))
}

/// `out = a·b`, row-major, on this thread.
pub(super) fn product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(out.len(), a.rows * b.columns, "{}×{}", a.rows, b.columns);
    if a.columns == 0 {
        out.fill(0.0);
        return;
    }
    // SAFETY: `out` has room for the product, and is borrowed exclusively.
    unsafe {
        whole(
            out.as_mut_ptr(),
            Into::Replace,
            a,
            b,
            gemm::Parallelism::None,
        )
    };
}

/// What becomes of the numbers that stand where a product goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `factor·a·b` into `out`, whose rows begin `stride` apart, on this thread.
pub(super) fn multiply(
    out: &mut [f32],
    stride: usize,
    into: Into,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let (m, n) = (a.rows, b.columns);
    assert_eq!(a.columns, b.rows, "inner dimensions");
    if m == 0 || n == 0 {
        return;
    }
    let last = (m - 1) * stride + n - 1;
    assert!(
        n <= stride && last < out.len(),
        "element {last} of {}",
        out.len()
    );
    // SAFETY: out's last element lies in its slice, and rows do not overlap; `out` is borrowed exclusively, so nothing overlaps it.
    unsafe {
        call(
            out.as_mut_ptr(),
            stride,
            into,
            factor,
            a,
            b,
            gemm::Parallelism::None,
        );
    }
}

/// Multiplications from which on the cores share a product.
const SHARED: usize = 192 * 192 * 192;

/// `a·b`, row-major, on all cores where it is worth their while.
pub(super) fn product_on_all_cores(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut out = Vec::new();
    append_product_on_all_cores(&mut out, a, b);
    out
}

/// `a·b`, row-major, behind what `out` holds; on all cores where it is worth their while.
pub(super) fn append_product_on_all_cores(out: &mut Vec<f32>, a: Matrix<'_>, b: Matrix<'_>) {
    let (held, n) = (out.len(), a.rows * b.columns);
    if a.columns == 0 {
        out.resize(held + n, 0.0);
        return;
    }
    out.reserve(n);
    let room = &mut out.spare_capacity_mut()[..n];
    // SAFETY: there is room for m·n, which is not read.
    unsafe { shared(room.as_mut_ptr().cast(), Into::Replace, a, b) };
    // SAFETY: the product of matrices with an inner dimension above zero writes all of its elements.
    unsafe { out.set_len(held + n) };
}

/// Adds `a·b` to `out`, row-major, on all cores where it is worth their while.
pub(super) fn add_product_on_all_cores(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(out.len(), a.rows * b.columns, "{}×{}", a.rows, b.columns);
    // SAFETY: it has room for m·n, and holds numbers.
    unsafe { shared(out.as_mut_ptr(), Into::Add, a, b) }
}

/// # Safety
/// `out` points to room for the product, which nobody else reads or writes; where the product is added, to numbers.
unsafe fn shared(out: *mut f32, into: Into, a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    let parallelism = match m.saturating_mul(n).saturating_mul(k) >= SHARED {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    // SAFETY: as the caller says.
    unsafe { whole(out, into, a, b, parallelism) };
}

/// Rows of `a` from which on it is worth while to turn a `b` that lies by columns.
const TURNED: usize = 64;
/// Numbers of `b` that are turned at a time: 2 MiB.
const SLAB: usize = 1 << 19;

/// `a·b`, whose rows lie one behind the other. A `b` that lies by columns, as a weight does in the gradient of its input, is copied by rows first, a
/// slab at a time: `gemm` would gather it number by number, once for each block of `a`, and takes 1.1 to 1.3 times as long.
///
/// # Safety
/// As [`shared`].
unsafe fn whole(
    out: *mut f32,
    into: Into,
    a: Matrix<'_>,
    b: Matrix<'_>,
    parallelism: gemm::Parallelism,
) {
    let (n, k) = (b.columns, b.rows);
    if a.rows < TURNED || n < TILE || b.row_stride != 1 || b.column_stride == 1 {
        // SAFETY: the caller vouches for `out`.
        return unsafe { call(out, n, into, 1.0, a, b, parallelism) };
    }
    let height = (SLAB / n.max(1)).max(4 * TILE).next_multiple_of(TILE);
    let mut rows = Vec::new();
    for first in (0..k).step_by(height) {
        let range = first..k.min(first + height);
        let slab = by_rows(&mut rows, b.rows(range.clone()), parallelism);
        let into = if first == 0 { into } else { Into::Add };
        // SAFETY: the caller vouches for `out`, and the first slab has written all of it.
        unsafe { call(out, n, into, 1.0, a.columns(range), slab, parallelism) };
    }
}

/// Rows and columns that are turned in registers.
const TILE: usize = 16;

/// `b`, which lies by columns, by rows in `buffer`.
pub(super) fn by_rows<'a>(
    buffer: &'a mut Vec<f32>,
    b: Matrix<'_>,
    parallelism: gemm::Parallelism,
) -> Matrix<'a> {
    let numbers = b.rows * b.columns;
    buffer.clear();
    buffer.reserve(numbers);
    turn(&mut buffer.spare_capacity_mut()[..numbers], b, parallelism);
    // SAFETY: there is room for them, and they were written.
    unsafe { buffer.set_len(numbers) };
    Matrix::new(buffer, [b.rows, b.columns], [b.columns, 1])
}

/// Writes `b`, which lies by columns, by rows to all of `out`.
pub(super) fn turn(out: &mut [MaybeUninit<f32>], b: Matrix<'_>, parallelism: gemm::Parallelism) {
    let n = b.columns;
    assert!(
        b.row_stride == 1 && out.len() == b.rows * n,
        "{}×{n}",
        b.rows
    );
    let strip = |(strip, out): (usize, &mut [MaybeUninit<f32>])| {
        let (first, height) = (strip * TILE, out.len() / n);
        for column in (0..n).step_by(TILE) {
            let width = TILE.min(n - column);
            let mut tile = [[0f32; TILE]; TILE];
            for (j, tile) in tile[..width].iter_mut().enumerate() {
                let from = (column + j) * b.column_stride + first;
                tile[..height].copy_from_slice(&b.values[from..][..height]);
            }
            for (i, out) in out.chunks_exact_mut(n).enumerate() {
                for (j, out) in out[column..][..width].iter_mut().enumerate() {
                    out.write(tile[j][i]);
                }
            }
        }
    };
    match parallelism {
        gemm::Parallelism::None => out.chunks_mut(TILE * n).enumerate().for_each(strip),
        gemm::Parallelism::Rayon(_) => out.par_chunks_mut(TILE * n).enumerate().for_each(strip),
    }
}

/// `factor·a·b`, to where rows begin `stride` apart.
///
/// # Safety
/// As [`shared`], for rows that are at least as far apart as they are long.
unsafe fn call(
    out: *mut f32,
    stride: usize,
    into: Into,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    parallelism: gemm::Parallelism,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    // SAFETY: a's and b's last elements lie in their slices, checked when they were made, and every element before it has lower indices;
    // the caller vouches for `out`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out,
            1,
            stride as isize,
            into == Into::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows and columns that fill no tile, and more than one slab.
    #[test]
    fn a_matrix_by_columns_is_multiplied_as_one_by_rows() {
        for (m, n, k) in [(64, 17, 33), (70, 16, 1), (65, 9_001, 131)] {
            let number = |i: usize| ((i * 7919) % 31) as f32 - 15.0;
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let by_columns: Vec<f32> = (0..k * n).map(|i| number(i + 5)).collect();
            let mut by_rows = vec![0f32; k * n];
            for (i, row) in by_rows.chunks_exact_mut(n).enumerate() {
                for (j, x) in row.iter_mut().enumerate() {
                    *x = by_columns[j * k + i];
                }
            }
            let a = Matrix::new(&a, [m, k], [k, 1]);
            let turned = Matrix::new(&by_columns, [n, k], [k, 1]).transposed();
            let exact = product_on_all_cores(a, Matrix::new(&by_rows, [k, n], [n, 1]));
            // Whole numbers, whose sums are exact in any order.
            assert_eq!(product_on_all_cores(a, turned), exact);
            let mut alone = vec![f32::NAN; m * n];
            product(&mut alone, a, turned);
            assert_eq!(alone, exact);
            add_product_on_all_cores(&mut alone, a, turned);
            assert!(alone.iter().zip(&exact).all(|(sum, x)| *sum == 2.0 * x));
        }
    }
}
