//! The head and its loss: a slice of logits is computed, made its own gradient in place, and multiplied on both sides, all in memory
//! that the next slice uses again.

use burn::backend::flex::{Flex, FlexTensor};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use rayon::prelude::*;

use super::cross_entropy::columns;
use super::product::{Matrix, add_product_on_all_cores, append_product_on_all_cores, strided};
use super::simd::{exp_and_sum, max, softcap, softcap_and_slopes, sum_of_exp, vectorized};
use crate::head::{HeadSpec, LossAndGradients};
use crate::profile::{Work, timed};

/// `None` where a tensor is not f32, a target is no column, or products are in another type.
pub(super) fn loss(
    x: &FlexTensor,
    weight: &FlexTensor,
    targets: &FlexTensor,
    shares: &FlexTensor,
    spec: &HeadSpec,
    gradients: bool,
) -> Option<LossAndGradients<FlexTensor>> {
    let in_f32 = [x, weight, shares].iter().all(|x| x.dtype() == DType::F32);
    if !in_f32 || spec.products.is_some() {
        return None;
    }
    let (x, shares) = (x.to_contiguous(), shares.to_contiguous());
    let [rows, width] = [0, 1].map(|dim| x.layout().shape()[dim]);
    let vocab = weight.layout().shape()[1];
    if rows == 0 || width == 0 {
        return None;
    }
    let targets = columns(targets, vocab)?;
    let (values, shares_of) = (x.as_slice::<f32>()?, shares.as_slice::<f32>()?);
    let (weights, strides) = strided::<2>(weight)?;
    let matrix = Matrix::new(weights, [width, vocab], strides);
    let (scale, cap) = (spec.scale as f32, spec.softcap.map(|cap| cap as f32));

    let mut nll = vec![0f32; rows];
    // The memory of the logits is that of every slice.
    let (mut logits, mut dweight) = (Vec::new(), Vec::new());
    let mut dx = Vec::with_capacity(if gradients { values.len() } else { 0 });
    // The gradient of a matrix that lies column after column lies so too.
    let by_columns = strides[0] == 1 && strides[1] != 1;
    for start in (0..rows).step_by(spec.rows) {
        let range = start..rows.min(start + spec.rows);
        let count = range.len();
        let part = &values[start * width..][..count * width];
        let part = Matrix::new(part, [count, width], [width, 1]);
        timed(Work::Products, || {
            logits.clear();
            append_product_on_all_cores(&mut logits, part, matrix);
        });
        timed(Work::CrossEntropy, || {
            logits
                .par_chunks_exact_mut(vocab)
                .zip(&mut nll[range.clone()])
                .zip(&targets[range.clone()])
                .zip(&shares_of[range.clone()])
                .for_each_init(Vec::new, |slopes, (((logits, nll), target), share)| {
                    let row = Row {
                        target: *target,
                        share: *share,
                        scale,
                        cap,
                    };
                    *nll = row.loss(logits, gradients.then_some(slopes));
                });
        });
        if gradients {
            timed(Work::Products, || {
                let dlogits = Matrix::new(&logits, [count, vocab], [vocab, 1]);
                append_product_on_all_cores(&mut dx, dlogits, matrix.transposed());
                let (a, b) = match by_columns {
                    true => (dlogits.transposed(), part),
                    false => (part.transposed(), dlogits),
                };
                match dweight.is_empty() {
                    true => append_product_on_all_cores(&mut dweight, a, b),
                    false => add_product_on_all_cores(&mut dweight, a, b),
                }
            });
        }
    }
    let total: f64 = nll
        .iter()
        .zip(shares_of)
        .map(|(nll, share)| f64::from(nll * share))
        .sum();
    let number = |x: f32| super::new(vec![x], [1], DType::F32);
    if !gradients {
        return Some((number(total as f32), number(0.0), number(0.0), number(0.0)));
    }
    let dweight = match by_columns {
        true => Flex::float_swap_dims(super::new(dweight, [vocab, width], DType::F32), 0, 1),
        false => super::new(dweight, [width, vocab], DType::F32),
    };
    Some((
        number(total as f32),
        super::like(dx, &x),
        dweight,
        number(0.0),
    ))
}

/// What becomes of a row of logits.
struct Row {
    target: usize,
    share: f32,
    scale: f32,
    cap: Option<f32>,
}

impl Row {
    /// The negative log-likelihood of the target, without its share. Where there are `slopes`, memory for those of a cap, the logits become the
    /// gradient of the share of it in the product that they were.
    fn loss(self, logits: &mut [f32], slopes: Option<&mut Vec<f32>>) -> f32 {
        let Self {
            target,
            share,
            scale,
            cap,
        } = self;
        vectorized(
            #[inline(always)]
            || {
                if scale != 1.0 {
                    logits.iter_mut().for_each(|x| *x *= scale);
                }
                let mut slopes = slopes;
                match (cap, &mut slopes) {
                    (Some(cap), Some(slopes)) => {
                        slopes.resize(logits.len(), 0.0);
                        softcap_and_slopes(logits, slopes, cap);
                    }
                    (Some(cap), None) => softcap(logits, cap),
                    (None, _) => {}
                }
                let (own, most) = (logits[target], max(logits));
                let Some(slopes) = slopes else {
                    return most + sum_of_exp(logits, most).ln() - own;
                };
                let sum = exp_and_sum(logits, most);
                // What is ignored has no gradient at all.
                if share == 0.0 {
                    logits.fill(0.0);
                } else {
                    let factor = share * scale / sum;
                    logits.iter_mut().for_each(|x| *x *= factor);
                    logits[target] -= share * scale;
                }
                for (gradient, slope) in logits.iter_mut().zip(slopes) {
                    *gradient *= *slope;
                }
                most + sum.ln() - own
            },
        )
    }
}
