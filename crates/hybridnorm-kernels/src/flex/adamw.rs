//! AdamW in one pass over memory, in the same order of operations as the composition: the results are the same to the bit.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::simd::vectorized;
use crate::adamw::AdamWStep;

/// Elements that one thread takes at a time.
const BLOCK: usize = 1 << 14;

/// `None`, and nothing changed, where a tensor is not contiguous f32.
pub(super) fn adamw(
    [weight, grad, first, second]: &mut [FlexTensor; 4],
    step: AdamWStep,
) -> Option<()> {
    let fits = |x: &FlexTensor| x.dtype() == DType::F32 && x.as_slice::<f32>().is_some();
    if ![&*weight, &*grad, &*first, &*second].into_iter().all(fits) {
        return None;
    }
    let grad = grad.as_slice::<f32>()?;
    let n = grad.len();
    let [p, m, v] = [weight, first, second].map(|x| {
        let start = x.layout().start_offset();
        &mut x.storage_mut::<f32>()[start..start + n]
    });
    let s = Factors::new(step);
    p.par_chunks_mut(BLOCK)
        .zip(m.par_chunks_mut(BLOCK))
        .zip(v.par_chunks_mut(BLOCK))
        .zip(grad.par_chunks(BLOCK))
        .for_each(|(((p, m), v), g)| {
            vectorized(
                #[inline(always)]
                || {
                    for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                        let g = g * s.scale;
                        *m = *m * s.beta1 + g * s.rest1;
                        *v = *v * s.beta2 + g * g * s.rest2;
                        *p = *p * s.keep - *m * s.rate / (v.sqrt() / s.root_correction + s.epsilon);
                    }
                },
            );
        });
    Some(())
}

/// The step in f32, each factor rounded once.
struct Factors {
    scale: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    epsilon: f32,
    keep: f32,
    rate: f32,
    root_correction: f32,
}

impl Factors {
    fn new(step: AdamWStep) -> Self {
        Self {
            scale: step.scale as f32,
            beta1: step.beta1 as f32,
            rest1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            rest2: (1.0 - step.beta2) as f32,
            epsilon: step.epsilon as f32,
            keep: step.keep as f32,
            rate: step.rate as f32,
            root_correction: step.root_correction as f32,
        }
    }
}
