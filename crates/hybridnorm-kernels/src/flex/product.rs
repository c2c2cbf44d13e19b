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
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner dimensions");
    assert_eq!(out.len(), m * n, "{m}×{n} results");
    if out.is_empty() {
        return;
    }
    // SAFETY: `out` holds m·n elements; a's and b's last elements lie in their slices, checked when they were made, and every
    // element before it has lower indices. `out` is borrowed exclusively, so nothing overlaps it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
