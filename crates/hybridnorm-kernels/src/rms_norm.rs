//! RMSNorm over the last dimension (arXiv 1910.07467; paper.md §1.4).

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{Shape, Tensor};

use crate::ops::KernelOps;
use crate::profile::Place;
use crate::reference::reference_ops;

/// `x / √(mean(x²) + ε) · weight` over the last dimension, in the type of its input.
///
/// # Shapes
/// - `x` `[.., d]`, output the same
/// - `weight` `[d]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let ([width], dims) = (weight.dims(), x.dims());
    assert_eq!(
        dims[D - 1],
        width,
        "rms_norm: {dims:?} with a scale of {width}"
    );
    let out = Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon);
    Tensor::from_dispatch(out)
}

pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let weight = along_last::<B>(weight, x.shape().num_dims());
    let inverse = inverse_rms::<B>(x.clone(), epsilon);
    B::float_mul(B::float_mul(x, inverse), weight)
}

/// With x̂ = x/rms and g = dy·weight: dx = (g − x̂·mean(g·x̂))/rms, dweight = Σ dy·x̂ over the rows.
pub(crate) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let dims = shape.num_dims();
    let width = shape[dims - 1];
    let rows = shape.num_elements() / width;
    let inverse = inverse_rms::<B>(x.clone(), epsilon);
    let normed = B::float_mul(x, inverse.clone());
    let dweight = B::float_reshape(
        B::float_mul(dy.clone(), normed.clone()),
        Shape::from([rows, width]),
    );
    let dweight = B::float_reshape(B::float_sum_dim(dweight, 0), Shape::from([width]));
    let g = B::float_mul(dy, along_last::<B>(weight, dims));
    let mean = B::float_mean_dim(B::float_mul(g.clone(), normed.clone()), dims - 1);
    let dx = B::float_mul(B::float_sub(g, B::float_mul(normed, mean)), inverse);
    (dx, dweight)
}

fn inverse_rms<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x), last);
    let rms = B::float_sqrt(B::float_add_scalar(mean, epsilon.into()));
    B::float_recip(rms)
}

/// `[d]` as `[1, .., d]`.
pub(crate) fn along_last<B: Backend>(x: FloatTensor<B>, dims: usize) -> FloatTensor<B> {
    let mut shape = vec![1; dims];
    shape[dims - 1] = x.shape()[0];
    B::float_reshape(x, Shape::from(shape))
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    epsilon: f64,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(x, weight, epsilon);
    }
    let nodes = [x.node(), weight.node()];
    match RmsNorm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&x), prep.checkpoint(&weight));
            let saved = (saved, epsilon, Place::here());
            let out = B::rms_norm(x.into_primitive(), weight.into_primitive(), epsilon);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(
            x.into_primitive(),
            weight.into_primitive(),
            epsilon,
        )),
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: KernelOps> Backward<B, 2> for RmsNorm {
    type State = ((NodeId, NodeId), f64, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let ((x, weight), epsilon, place) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let (dx, dweight) = place.at(|| B::rms_norm_backward(x, weight, dy, epsilon));
        if let Some(node) = x_node {
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, dweight);
        }
    }
}
