//! The CPU.

mod adamw;
mod attention;
mod cross_entropy;
mod decode;
mod few_rows;
mod glu;
mod grouped;
mod head;
mod norm;
mod product;
mod project;
mod qkv;
mod routes;
mod simd;

use std::mem::MaybeUninit;

use burn::backend::flex::{Flex, FlexTensor, Layout};
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType, IntDType, Shape};

use crate::adamw::AdamWStep;
use crate::attention::{AttentionSpec, BLOCK};
use crate::decode::DecodeSpec;
use crate::glu::Gate;
use crate::groups::Groups;
use crate::head::{Head, HeadSpec, LossAndGradients};
use crate::norm::NormSpec;
use crate::ops::KernelOps;
use crate::profile::{Work, timed};
use crate::qkv::{Constants, QkvSpec};
use crate::reference::reference_ops;
use crate::softmax::Composed;
use crate::{compose, host};

/// Multiplications from which a loop is divided among threads: fewer take no longer than waking one.
const PARALLEL_FROM: usize = 1 << 15;

impl KernelOps for Flex {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        match (x.dtype(), weights.dtype()) {
            (DType::F32, DType::F32) => {
                timed(Work::Experts, || grouped::matmul(&x, &weights, &groups))
            }
            _ => compose::grouped_matmul::<Self>(x, weights, &groups),
        }
    }

    fn grouped_outer(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        match (x.dtype(), dy.dtype()) {
            (DType::F32, DType::F32) => timed(Work::Experts, || grouped::outer(&x, &dy, &groups)),
            _ => compose::grouped_outer::<Self>(x, dy, &groups),
        }
    }

    fn dispatch(
        x: FloatTensor<Self>,
        rows: IntTensor<Self>,
        _places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        fast(Work::Routes, || routes::gather(&x, &rows))
            .unwrap_or_else(|| Self::float_select(x, 0, rows))
    }

    fn dispatch_backward(
        dy: FloatTensor<Self>,
        places: IntTensor<Self>,
        tokens: usize,
    ) -> FloatTensor<Self> {
        fast(Work::Routes, || routes::sum(&dy, None, &places, tokens))
            .unwrap_or_else(|| compose::gather_sum::<Self>(dy, places, tokens))
    }

    fn combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        _rows: IntTensor<Self>,
        _order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let tokens = weights.layout().shape()[0];
        fast(Work::Routes, || {
            routes::sum(&y, Some(&weights), &places, tokens)
        })
        .unwrap_or_else(|| compose::combine::<Self>(y, weights, places))
    }

    fn combine_backward(
        dout: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        rows: IntTensor<Self>,
        order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fast(Work::Routes, || {
            routes::combine_backward([&dout, &y, &weights], &order)
        })
        .unwrap_or_else(|| {
            compose::combine_backward::<Self>(dout, y, weights, [rows, order, places])
        })
    }

    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let mut tensors = [weight, grad, first, second];
        let done = timed(Work::Optimizer, || adamw::adamw(&mut tensors, step));
        let [weight, grad, first, second] = tensors;
        match done {
            Some(()) => (weight, first, second),
            None => compose::adamw::<Self>(weight, grad, [first, second], step),
        }
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        fast(Work::Optimizer, || norm::square_sum(&x))
            .unwrap_or_else(|| compose::square_sum::<Self>(x))
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        fast(Work::Products, || project::forward(&x, &weight))
            .unwrap_or_else(|| crate::project::forward::<Self>(x, weight))
    }

    fn project_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fast(Work::Products, || project::backward(&x, &weight, &dy))
            .unwrap_or_else(|| crate::project::backward::<Self>(x, weight, dy))
    }

    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> FloatTensor<Self> {
        let bias = biased.then_some(bias);
        fast(Work::Norm, || {
            norm::forward(&x, &weight, bias.as_ref(), spec)
        })
        .unwrap_or_else(|| crate::norm::forward::<Self>(x, weight, bias, spec))
    }

    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        fast(Work::Norm, || {
            norm::backward([&x, &weight, &dy], biased, spec)
        })
        .unwrap_or_else(|| crate::norm::backward::<Self>(x, weight, dy, biased, spec))
    }

    fn qkv_norm_rope(
        qkv: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        spec: QkvSpec,
    ) -> FloatTensor<Self> {
        let weights = [query, key, value];
        let with = Constants { weights, cos, sin };
        fast(Work::QkvNormRope, || qkv::forward(&qkv, &with, spec))
            .unwrap_or_else(|| crate::qkv::forward::<Self>(qkv, with, spec))
    }

    fn qkv_norm_rope_backward(
        qkv: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: QkvSpec,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let weights = [query, key, value];
        let with = Constants { weights, cos, sin };
        let (dqkv, [dquery, dkey, dvalue]) =
            fast(Work::QkvNormRope, || qkv::backward(&qkv, &with, &dy, spec))
                .unwrap_or_else(|| crate::qkv::backward::<Self>(qkv, with, dy, spec));
        (dqkv, dquery, dkey, dvalue)
    }

    fn causal_attention(
        qkv: FloatTensor<Self>,
        documents: IntTensor<Self>,
        by_document: bool,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let documents = by_document.then_some(documents);
        fast(Work::Attention, || {
            attention::forward(&qkv, documents.as_ref(), spec)
        })
        .unwrap_or_else(|| crate::attention::forward::<Self, Composed>(qkv, documents, spec, BLOCK))
    }

    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        documents: IntTensor<Self>,
        by_document: bool,
        sums: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let documents = by_document.then_some(documents);
        let given = [sums, dout];
        fast(Work::Attention, || {
            attention::backward(&qkv, documents.as_ref(), &given, spec)
        })
        .unwrap_or_else(|| {
            crate::attention::backward::<Self, Composed>(qkv, documents, given, spec, BLOCK)
        })
    }

    fn decode_attention(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        spec: DecodeSpec,
    ) -> FloatTensor<Self> {
        fast(Work::Attention, || {
            decode::attention(&query, [&keys, &values], &spec)
        })
        .unwrap_or_else(|| crate::decode::forward::<Self>(query, [keys, values], &spec))
    }

    fn glu(h: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        fast(Work::Gates, || glu::forward(&h, gate))
            .unwrap_or_else(|| crate::glu::forward::<Self>(h, gate))
    }

    fn glu_backward(h: FloatTensor<Self>, dy: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        fast(Work::Gates, || glu::backward(&h, &dy, gate))
            .unwrap_or_else(|| crate::glu::backward::<Self>(h, dy, gate))
    }

    fn gated(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        function: Gate,
    ) -> FloatTensor<Self> {
        fast(Work::Gates, || glu::gated(&value, &gate, function))
            .unwrap_or_else(|| crate::glu::gated_forward::<Self>(value, gate, function))
    }

    fn gated_backward(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        function: Gate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fast(Work::Gates, || {
            glu::gated_backward([&value, &gate, &dy], function)
        })
        .unwrap_or_else(|| crate::glu::gated_backward::<Self>(value, gate, dy, function))
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        fast(Work::CrossEntropy, || {
            cross_entropy::forward(&logits, &targets)
        })
        .unwrap_or_else(|| crate::cross_entropy::forward::<Self>(logits, targets))
    }

    fn cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        both: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        fast(Work::CrossEntropy, || {
            cross_entropy::backward(&logits, &targets, &both, &upstream)
        })
        .unwrap_or_else(|| crate::cross_entropy::backward::<Self>(logits, targets, both, upstream))
    }

    fn head_loss(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        targets: IntTensor<Self>,
        shares: FloatTensor<Self>,
        spec: HeadSpec,
        gradients: bool,
    ) -> LossAndGradients<FloatTensor<Self>> {
        let fast = match biased || reference_ops() {
            true => None,
            false => head::loss(&x, &weight, &targets, &shares, &spec, gradients),
        };
        fast.unwrap_or_else(|| {
            let bias = biased.then_some(bias);
            crate::head::forward::<Self>(x, Head { weight, bias }, targets, shares, spec, gradients)
        })
    }

    fn scaled(x: FloatTensor<Self>, by: FloatTensor<Self>) -> FloatTensor<Self> {
        // Which it nearly always is: the loss is what is differentiated.
        match by.to_contiguous().as_slice::<f32>() {
            Some([1.0]) => x,
            _ => crate::head::scaled::<Self>(x, by),
        }
    }

    /// Burn's sorts every row.
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        let scores = scores.to_contiguous();
        let [rows, columns] = [0, 1].map(|dim| scores.layout().shape()[dim]);
        let Some(values) = scores.as_slice::<f32>() else {
            return Self::float_argtopk(scores, 1, k, int);
        };
        let chosen = new(host::top_k(values, columns, k), [rows, k], DType::I32);
        match int {
            IntDType::I32 => chosen,
            other => Self::int_cast(chosen, other),
        }
    }
}

/// What `path` gives, unless the compositions are asked for.
fn fast<T>(work: Work, path: impl FnOnce() -> Option<T>) -> Option<T> {
    match reference_ops() {
        true => None,
        false => timed(work, path),
    }
}

/// The numbers of an integer tensor, whatever its width; `None` where that is not 32 or 64 bits.
fn integers(x: &FlexTensor) -> Option<Vec<i64>> {
    let x = x.to_contiguous();
    match x.dtype() {
        DType::I64 => Some(x.as_slice::<i64>()?.to_vec()),
        DType::I32 => Some(x.as_slice::<i32>()?.iter().map(|n| i64::from(*n)).collect()),
        _ => None,
    }
}

/// `n` numbers in memory that nobody has cleared first: that would be a third pass for what reads once and writes once.
///
/// # Safety
/// `fill` has to write all of them.
unsafe fn filled(n: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n);
    fill(&mut numbers.spare_capacity_mut()[..n]);
    // SAFETY: there is room for them, and the caller says that they are written.
    unsafe { numbers.set_len(n) };
    numbers
}

/// A tensor of f32 with the shape of another.
fn like(values: Vec<f32>, other: &FlexTensor) -> FlexTensor {
    with_shape(values, other.layout().shape().clone(), DType::F32)
}

/// A tensor that holds `values`.
fn new<const D: usize, E>(values: Vec<E>, shape: [usize; D], dtype: DType) -> FlexTensor
where
    E: burn::tensor::Element + Send + Sync,
{
    with_shape(values, Shape::from(shape), dtype)
}

fn with_shape<E>(values: Vec<E>, shape: Shape, dtype: DType) -> FlexTensor
where
    E: burn::tensor::Element + Send + Sync,
{
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), dtype)
}
