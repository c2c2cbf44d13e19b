//! A linear map of the last dimension, without a bias.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use crate::ops::KernelOps;
use crate::profile::Place;
use crate::reference::reference_ops;

/// `x·weight` over the last dimension.
///
/// # Shapes
/// - `x` `[.., d_in]`
/// - `weight` `[d_in, d_out]`
/// - output `[.., d_out]`
///
/// # Panics
/// When the widths differ: a programming mistake.
pub fn project<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let (dims, [d_in, _]) = (x.dims(), weight.dims());
    assert_eq!(dims[D - 1], d_in, "project: {dims:?} by {d_in} rows");
    let out = Dispatch::project(x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(out)
}

pub(crate) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    B::linear(x, weight, None)
}

/// dx = dy·weightᵀ, dweight = xᵀ·dy over all rows.
pub(crate) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dweight = B::linear_weight_backward(x, dy.clone());
    (B::linear_x_backward(weight, dy), dweight)
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(x, weight);
    }
    let nodes = [x.node(), weight.node()];
    match Project.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&x), prep.checkpoint(&weight), Place::here());
            prep.finish(
                saved,
                B::project(x.into_primitive(), weight.into_primitive()),
            )
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::project(x.into_primitive(), weight.into_primitive()))
        }
    }
}

#[derive(Debug)]
struct Project;

impl<B: KernelOps> Backward<B, 2> for Project {
    type State = (NodeId, NodeId, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (x, weight, place) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let (dx, dweight) = place.at(|| B::project_backward(x, weight, dy));
        if let Some(node) = x_node {
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, dweight);
        }
    }
}
