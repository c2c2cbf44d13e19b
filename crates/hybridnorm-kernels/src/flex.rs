//! The CPU.

use burn::backend::flex::{Flex, FlexTensor, Layout};
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType, IntDType, Shape};

use crate::ops::SparseOps;

impl SparseOps for Flex {
    /// Burn's sorts every row; for the few best, keeping them in order while reading once is enough.
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        if scores.dtype() != DType::F32 {
            return Self::float_argtopk(scores, 1, k, int);
        }
        let scores = scores.to_contiguous();
        let shape = scores.layout().shape().clone();
        let (rows, columns) = (shape[0], shape[1]);
        let start = scores.layout().start_offset();
        let Some(values) = scores.as_slice::<f32>() else {
            return Self::float_argtopk(scores, 1, k, int);
        };
        let values = &values[start..start + rows * columns];
        let mut best: Vec<(f32, i32)> = Vec::with_capacity(k + 1);
        let mut chosen: Vec<i32> = Vec::with_capacity(rows * k);
        for row in values.chunks_exact(columns) {
            best.clear();
            for (column, value) in row.iter().enumerate() {
                // Strictly larger: an equal one with a lower column stays before.
                let at = best
                    .iter()
                    .rposition(|(other, _)| !(*value > *other))
                    .map_or(0, |at| at + 1);
                if at < k {
                    best.truncate(k - usize::from(best.len() == k));
                    best.insert(at, (*value, column as i32));
                }
            }
            chosen.extend(best.iter().map(|(_, column)| *column));
        }
        let layout = Layout::contiguous(Shape::from([rows, k]));
        let chosen = FlexTensor::new(Bytes::from_elems(chosen), layout, DType::I32);
        match int {
            IntDType::I32 => chosen,
            other => Self::int_cast(chosen, other),
        }
    }
}
