//! Devices that compile kernels: one source for CUDA, ROCm, Metal, Vulkan and WebGPU.
//!
//! Kernels read f32, f16 or bf16 and compute in f32. Nothing is added up in an order that could differ from run to run.

mod adamw;
mod cross_entropy;
mod glu;
mod norm;
mod qkv;
mod routes;
mod rows;
mod softmax;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, IntDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::kernel::into_contiguous;

use crate::adamw::AdamWStep;
use crate::attention::{self, AttentionSpec, BLOCK};
use crate::glu::Gate;
use crate::norm::NormSpec;
use crate::ops::KernelOps;
use crate::qkv::{Constants, QkvSpec};
use crate::reference::reference_ops;
use crate::{compose, cross_entropy as loss};

impl KernelOps for CubeBackend {
    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = [weight, grad, first, second];
        if tensors.iter().all(|x| x.dtype == DType::F32) {
            return adamw::step(tensors, step);
        }
        let [weight, grad, first, second] = tensors;
        compose::adamw::<Self>(weight, grad, [first, second], step)
    }

    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        fast(|| adamw::square_sum(&x)).unwrap_or_else(|| compose::square_sum::<Self>(x))
    }

    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> FloatTensor<Self> {
        fast(|| norm::forward([&x, &weight, &bias], biased, spec)).unwrap_or_else(|| {
            crate::norm::forward::<Self>(x, weight, biased.then_some(bias), spec)
        })
    }

    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        fast(|| norm::backward([&x, &weight, &dy], biased, spec))
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
        fast(|| qkv::forward(&qkv, &with, spec))
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
        let (dqkv, [dquery, dkey, dvalue]) = fast(|| qkv::backward(&qkv, &with, &dy, spec))
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
        attention::forward::<Self, softmax::Fused>(qkv, documents, spec, BLOCK)
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
        attention::backward::<Self, softmax::Fused>(qkv, documents, [sums, dout], spec, BLOCK)
    }

    fn glu(h: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        fast(|| glu::forward(&h, gate)).unwrap_or_else(|| crate::glu::forward::<Self>(h, gate))
    }

    fn glu_backward(h: FloatTensor<Self>, dy: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        fast(|| glu::backward(&h, &dy, gate))
            .unwrap_or_else(|| crate::glu::backward::<Self>(h, dy, gate))
    }

    fn gated(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        function: Gate,
    ) -> FloatTensor<Self> {
        fast(|| glu::gated(&value, &gate, function))
            .unwrap_or_else(|| crate::glu::gated_forward::<Self>(value, gate, function))
    }

    fn gated_backward(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        function: Gate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fast(|| glu::gated_backward([&value, &gate, &dy], function))
            .unwrap_or_else(|| crate::glu::gated_backward::<Self>(value, gate, dy, function))
    }

    fn dispatch_backward(
        dy: FloatTensor<Self>,
        places: IntTensor<Self>,
        tokens: usize,
    ) -> FloatTensor<Self> {
        fast(|| routes::sum(&dy, None, int32(&places), tokens))
            .unwrap_or_else(|| compose::gather_sum::<Self>(dy, places, tokens))
    }

    fn combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        _rows: IntTensor<Self>,
        _order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let tokens = weights.meta.shape()[0];
        fast(|| routes::sum(&y, Some(&weights), int32(&places), tokens))
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
        fast(|| routes::combine_backward([&dout, &y, &weights], int32(&order))).unwrap_or_else(
            || compose::combine_backward::<Self>(dout, y, weights, [rows, order, places]),
        )
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        fast(|| cross_entropy::forward(&logits, int32(&targets)))
            .unwrap_or_else(|| loss::forward::<Self>(logits, targets))
    }

    fn cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        both: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let given = [&both, &upstream].map(rows::dense);
        match given {
            [Some(both), Some(upstream)] if rows::computes(logits.dtype) => {
                cross_entropy::backward(logits, int32(&targets), [&both, &upstream])
            }
            _ => loss::backward::<Self>(logits, targets, both, upstream),
        }
    }
}

/// What `path` gives, unless the compositions are asked for.
fn fast<T>(path: impl FnOnce() -> Option<T>) -> Option<T> {
    match reference_ops() {
        true => None,
        false => path(),
    }
}

/// Whole numbers in 32 bits, without gaps.
fn int32(x: &IntTensor<CubeBackend>) -> IntTensor<CubeBackend> {
    into_contiguous(CubeBackend::int_cast(x.clone(), IntDType::I32))
}

/// How kernels call a type.
fn element(dtype: DType) -> ElemType {
    dtype_to_storage_type(dtype)
}
