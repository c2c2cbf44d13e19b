//! Matrix products on slices of f32.

use burn::backend::flex::FlexTensor;

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
    multiply(out, b.columns, Into::Replace, 1.0, a, b);
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
    // SAFETY: the caller vouches for `out`, whose rows lie one behind the other.
    unsafe { call(out, n, into, 1.0, a, b, parallelism) };
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
