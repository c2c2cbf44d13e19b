//! Products with the matrix of a row's own group. Each thread works on whole blocks of rows, written where they belong; a group
//! that holds most of the rows is cut into several blocks, so that no thread waits for it.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::product::{Matrix, product, strided};
use crate::groups::Groups;

/// Rows of a block: a height that a product is fast at. It does not follow the number of threads, on which the roundings must not depend.
const BLOCK: usize = 256;

pub(super) fn matmul(x: &FlexTensor, weights: &FlexTensor, groups: &Groups) -> FlexTensor {
    let x = x.to_contiguous();
    let [rows, d_in] = [0, 1].map(|dim| x.layout().shape()[dim]);
    let d_out = weights.layout().shape()[2];
    let contiguous;
    let (weight_values, [step, row, column]) = match strided::<3>(weights) {
        Some(view) => view,
        None => {
            contiguous = weights.to_contiguous();
            (contiguous.storage(), [d_in * d_out, d_out, 1])
        }
    };
    let x = Matrix::new(x.as_slice().unwrap_or(&[]), [rows, d_in], [d_in, 1]);
    let mut out = vec![0f32; rows * d_out];
    let mut rest = out.as_mut_slice();
    let mut tasks = Vec::new();
    for (group, range) in groups.ranges().enumerate() {
        for start in range.clone().step_by(BLOCK) {
            let range = start..range.end.min(start + BLOCK);
            let (mine, others) = rest.split_at_mut(range.len() * d_out);
            rest = others;
            let weight = Matrix::new(&weight_values[group * step..], [d_in, d_out], [row, column]);
            tasks.push((mine, x.rows(range), weight));
        }
    }
    tasks
        .into_par_iter()
        .for_each(|(out, x, weight)| product(out, x, weight));
    super::new(out, [rows, d_out], DType::F32)
}

pub(super) fn outer(x: &FlexTensor, dy: &FlexTensor, groups: &Groups) -> FlexTensor {
    let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
    let [rows, d_in] = [0, 1].map(|dim| x.layout().shape()[dim]);
    let d_out = dy.layout().shape()[1];
    let x = Matrix::new(x.as_slice().unwrap_or(&[]), [rows, d_in], [d_in, 1]);
    let dy = Matrix::new(dy.as_slice().unwrap_or(&[]), [rows, d_out], [d_out, 1]);
    // Those of groups without rows stay zero.
    let mut out = vec![0f32; groups.len() * d_in * d_out];
    let mut tasks = Vec::new();
    for (out, range) in out
        .chunks_exact_mut((d_in * d_out).max(1))
        .zip(groups.ranges())
    {
        if range.is_empty() {
            continue;
        }
        let (columns, dy) = (x.rows(range.clone()).transposed(), dy.rows(range.clone()));
        let parts = range.len().div_ceil(BLOCK).min(d_in);
        let height = d_in.div_ceil(parts);
        for (part, out) in out.chunks_mut(height * d_out).enumerate() {
            let start = part * height;
            tasks.push((out, columns.rows(start..d_in.min(start + height)), dy));
        }
    }
    tasks
        .into_par_iter()
        .for_each(|(out, columns, dy)| product(out, columns, dy));
    super::new(out, [groups.len(), d_in, d_out], DType::F32)
}
