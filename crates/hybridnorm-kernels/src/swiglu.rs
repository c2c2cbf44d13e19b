//! SwiGLU on a fused projection (arXiv 2002.05202; paper.md §2.1).

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata};
#[cfg(any(feature = "cube", feature = "fusion"))]
use burn::tensor::Shape;
use burn::tensor::{Slice, Tensor};

use crate::ops::KernelOps;
use crate::profile::Place;
use crate::reference::reference_ops;

/// `silu(gate) ⊙ value`, where the last dimension holds the value, then the gate.
///
/// # Shapes
/// - `h` `[.., 2·d_ff]`
/// - output `[.., d_ff]`
pub fn swiglu<const D: usize>(h: Tensor<D>) -> Tensor<D> {
    let dims = h.dims();
    assert!(
        dims[D - 1].is_multiple_of(2),
        "swiglu: {dims:?} has no halves"
    );
    Tensor::from_dispatch(Dispatch::swiglu(h.into_dispatch()))
}

/// The shape of the output for an input of this shape.
#[cfg(any(feature = "cube", feature = "fusion"))]
pub(crate) fn out_shape(h: &Shape) -> Shape {
    let mut shape = h.clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    shape
}

pub(crate) fn forward<B: Backend>(h: FloatTensor<B>) -> FloatTensor<B> {
    let [value, gate] = halves::<B>(h);
    let silu = B::float_mul(B::sigmoid(gate.clone()), gate);
    B::float_mul(silu, value)
}

/// With σ = sigmoid(gate): dvalue = dy·gate·σ, dgate = dy·value·σ·(1 + gate·(1 − σ)).
pub(crate) fn backward<B: Backend>(h: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let last = h.shape().num_dims() - 1;
    let [value, gate] = halves::<B>(h);
    let sigmoid = B::sigmoid(gate.clone());
    let scaled = B::float_mul(dy, sigmoid.clone());
    let dvalue = B::float_mul(scaled.clone(), gate.clone());
    let rest = B::float_sub(gate.clone(), B::float_mul(gate, sigmoid));
    let slope = B::float_add_scalar(rest, 1.0.into());
    let dgate = B::float_mul(B::float_mul(scaled, value), slope);
    B::float_cat(vec![dvalue, dgate], last)
}

fn halves<B: Backend>(h: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let shape = h.shape();
    let last = shape.num_dims() - 1;
    let half = shape[last] / 2;
    [0..half, half..2 * half].map(|range| {
        let mut slices = vec![Slice::full(); last];
        slices.push(Slice::from(range));
        B::float_slice(h.clone(), &slices)
    })
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    h: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(h);
    }
    match SwiGlu.prepare::<C>([h.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&h), Place::here());
            prep.finish(saved, B::swiglu(h.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::swiglu(h.into_primitive())),
    }
}

#[derive(Debug)]
struct SwiGlu;

impl<B: KernelOps> Backward<B, 1> for SwiGlu {
    type State = (NodeId, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (h, place) = ops.state;
        let h: FloatTensor<B> = checkpointer.retrieve_node_output(h);
        if let Some(node) = node {
            grads.register::<B>(node.id, place.at(|| B::swiglu_backward(h, dy)));
        }
    }
}
