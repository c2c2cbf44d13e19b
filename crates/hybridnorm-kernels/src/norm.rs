//! RMSNorm and LayerNorm over the last dimension (arXiv 1910.07467, 1607.06450; paper.md §1.4).

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

/// What a norm does to a row beside scaling it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// ε, added to the mean square.
    pub epsilon: f64,
    /// Whether the mean is subtracted first: LayerNorm. It is RMSNorm otherwise.
    pub centred: bool,
}

/// `(x − μ) / √(mean((x − μ)²) + ε) · weight + bias` over the last dimension, in the type of its input. μ is the mean in LayerNorm and 0 in
/// RMSNorm.
///
/// # Shapes
/// - `x` `[.., d]`, output the same
/// - `weight`, `bias` `[d]`
///
/// # Panics
/// When a shape does not fit: a programming mistake.
pub fn norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
    spec: NormSpec,
) -> Tensor<D> {
    let ([width], dims) = (weight.dims(), x.dims());
    assert_eq!(dims[D - 1], width, "norm: {dims:?} with a scale of {width}");
    let biased = bias.is_some();
    // Something to pass where there is none: not the scale itself, which would get two gradients.
    let bias = bias.unwrap_or_else(|| weight.clone().detach());
    assert_eq!(bias.dims(), [width], "norm: the shift");
    Tensor::from_dispatch(Dispatch::norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        biased,
        spec,
    ))
}

/// `x / √(mean(x²) + ε) · weight`: [`norm`] without a mean and a shift.
///
/// # Shapes
/// - `x` `[.., d]`, output the same
/// - `weight` `[d]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    norm(x, weight, None, NormSpec::rms(epsilon))
}

impl NormSpec {
    /// Of RMSNorm.
    pub(crate) const fn rms(epsilon: f64) -> Self {
        let centred = false;
        Self { epsilon, centred }
    }
}

pub(crate) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    spec: NormSpec,
) -> FloatTensor<B> {
    let dims = x.shape().num_dims();
    let x = centred::<B>(x, spec);
    let inverse = inverse_rms::<B>(x.clone(), spec.epsilon);
    let y = B::float_mul(B::float_mul(x, inverse), along_last::<B>(weight, dims));
    match bias {
        Some(bias) => B::float_add(y, along_last::<B>(bias, dims)),
        None => y,
    }
}

/// The gradients of `x`, the scale and the shift, if there is one. With x̂ the normed row and g = dy·weight, from which LayerNorm subtracts its mean:
/// dx = (g − x̂·mean(g·x̂))/rms, dweight = Σ dy·x̂ and dbias = Σ dy over the rows.
pub(crate) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    dy: FloatTensor<B>,
    biased: bool,
    spec: NormSpec,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let dims = shape.num_dims();
    let width = shape[dims - 1];
    let rows = shape.num_elements() / width;
    let over_rows = |x| {
        let sum = B::float_sum_dim(B::float_reshape(x, Shape::from([rows, width])), 0);
        B::float_reshape(sum, Shape::from([width]))
    };
    let x = centred::<B>(x, spec);
    let inverse = inverse_rms::<B>(x.clone(), spec.epsilon);
    let normed = B::float_mul(x, inverse.clone());
    let dweight = over_rows(B::float_mul(dy.clone(), normed.clone()));
    let dbias = match biased {
        true => over_rows(dy.clone()),
        false => dweight.clone(),
    };
    let g = B::float_mul(dy, along_last::<B>(weight, dims));
    let g = centred::<B>(g, spec);
    let mean = B::float_mean_dim(B::float_mul(g.clone(), normed.clone()), dims - 1);
    let dx = B::float_mul(B::float_sub(g, B::float_mul(normed, mean)), inverse);
    (dx, dweight, dbias)
}

/// `x` without its mean, where the norm subtracts it: twice, for a mean is rounded, and what is left of a row of equal numbers would be
/// divided by √ε.
fn centred<B: Backend>(x: FloatTensor<B>, spec: NormSpec) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    let without_mean = |x: FloatTensor<B>| {
        let mean = B::float_mean_dim(x.clone(), last);
        B::float_sub(x, mean)
    };
    match spec.centred {
        true => without_mean(without_mean(x)),
        false => x,
    }
}

fn inverse_rms<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x), last);
    let rms = B::float_sqrt(B::float_add_scalar(mean, epsilon.into()));
    B::float_recip(rms)
}

/// `[d]` as `[1, .., d]`.
fn along_last<B: Backend>(x: FloatTensor<B>, dims: usize) -> FloatTensor<B> {
    let mut shape = vec![1; dims];
    shape[dims - 1] = x.shape()[0];
    B::float_reshape(x, Shape::from(shape))
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    bias: FloatTensor<Autodiff<B, C>>,
    biased: bool,
    spec: NormSpec,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(x, weight, biased.then_some(bias), spec);
    }
    let nodes = [x.node(), weight.node(), bias.node()];
    let run = |x: FloatTensor<Autodiff<B, C>>, weight: FloatTensor<Autodiff<B, C>>| {
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        B::norm(x, weight, bias.into_primitive(), biased, spec)
    };
    match Norm.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&x), prep.checkpoint(&weight));
            prep.finish((saved, (biased, spec), Place::here()), run(x, weight))
        }
        OpsKind::UnTracked(prep) => prep.finish(run(x, weight)),
    }
}

#[derive(Debug)]
struct Norm;

impl<B: KernelOps> Backward<B, 3> for Norm {
    type State = ((NodeId, NodeId), (bool, NormSpec), Place);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let ((x, weight), (biased, spec), place) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let (dx, dweight, dbias) = place.at(|| B::norm_backward(x, weight, dy, biased, spec));
        for (node, gradient) in ops.parents.into_iter().zip([dx, dweight, dbias]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
