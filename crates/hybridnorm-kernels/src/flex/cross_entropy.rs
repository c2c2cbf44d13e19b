//! Cross-entropy, a row of logits at a time.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::simd::{exp, max, sum_of_exp, vectorized};

/// `None` where the logits are not f32 or a target is no column.
pub(super) fn forward(logits: &FlexTensor, targets: &FlexTensor) -> Option<FlexTensor> {
    let logits = logits.to_contiguous();
    let values = logits.as_slice::<f32>()?;
    let [rows, vocab] = [0, 1].map(|dim| logits.layout().shape()[dim]);
    let targets = columns(targets, vocab)?;
    let mut out = vec![0f32; 2 * rows];
    let (nll, lse) = out.split_at_mut(rows);
    nll.par_iter_mut()
        .zip(lse.par_iter_mut())
        .zip(values.par_chunks_exact(vocab))
        .zip(&targets)
        .for_each(|(((nll, lse), logits), target)| {
            *lse = vectorized(
                #[inline(always)]
                || {
                    let max = max(logits);
                    max + sum_of_exp(logits, max).ln()
                },
            );
            *nll = *lse - logits[*target];
        });
    Some(super::new(out, [2, rows], DType::F32))
}

pub(super) fn backward(
    logits: &FlexTensor,
    targets: &FlexTensor,
    both: &FlexTensor,
    upstream: &FlexTensor,
) -> Option<FlexTensor> {
    let [logits, both, upstream] = [logits, both, upstream].map(FlexTensor::to_contiguous);
    let values = logits.as_slice::<f32>()?;
    let (both, upstream) = (both.as_slice::<f32>()?, upstream.as_slice::<f32>()?);
    let [rows, vocab] = [0, 1].map(|dim| logits.layout().shape()[dim]);
    let targets = columns(targets, vocab)?;
    let (dnll, dlse) = upstream.split_at(rows);
    let mut out = vec![0f32; values.len()];
    out.par_chunks_exact_mut(vocab)
        .zip(values.par_chunks_exact(vocab))
        .enumerate()
        .for_each(|(row, (out, logits))| {
            let (lse, both) = (both[rows + row], dnll[row] + dlse[row]);
            // What is ignored has no gradient at all.
            if both != 0.0 || dnll[row] != 0.0 {
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, x) in out.iter_mut().zip(logits) {
                            *out = exp(x - lse) * both;
                        }
                    },
                );
                out[targets[row]] -= dnll[row];
            }
        });
    Some(super::like(out, &logits))
}

/// The targets as columns, all of them below `vocab`.
pub(super) fn columns(targets: &FlexTensor, vocab: usize) -> Option<Vec<usize>> {
    let targets = super::integers(targets)?;
    let columns = targets.into_iter().map(|target| {
        let column = usize::try_from(target).ok()?;
        (column < vocab).then_some(column)
    });
    columns.collect()
}
