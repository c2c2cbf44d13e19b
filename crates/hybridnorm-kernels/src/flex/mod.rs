//! The CPU.

mod adamw;
mod grouped;
mod product;

use burn::backend::flex::{Flex, FlexTensor, Layout};
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType, IntDType, Shape};

use crate::adamw::AdamWStep;
use crate::groups::Groups;
use crate::ops::KernelOps;
use crate::{compose, host};

impl KernelOps for Flex {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        match (x.dtype(), weights.dtype()) {
            (DType::F32, DType::F32) => grouped::matmul(&x, &weights, &groups),
            _ => compose::grouped_matmul::<Self>(x, weights, &groups),
        }
    }

    fn grouped_outer(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        match (x.dtype(), dy.dtype()) {
            (DType::F32, DType::F32) => grouped::outer(&x, &dy, &groups),
            _ => compose::grouped_outer::<Self>(x, dy, &groups),
        }
    }

    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let mut tensors = [weight, grad, first, second];
        let done = adamw::adamw(&mut tensors, step);
        let [weight, grad, first, second] = tensors;
        match done {
            Some(()) => (weight, first, second),
            None => compose::adamw::<Self>(weight, grad, [first, second], step),
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

/// A tensor that holds `values`.
fn new<const D: usize, E>(values: Vec<E>, shape: [usize; D], dtype: DType) -> FlexTensor
where
    E: burn::tensor::Element + Send + Sync,
{
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(Shape::from(shape)),
        dtype,
    )
}
