//! What happens between the fused projection and the scores: the norms of queries, keys and values (eq. 5), and the rotation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{Shape, Slice, Tensor};

use crate::norm::NormSpec;
use crate::ops::KernelOps;
use crate::profile::Place;
use crate::reference::reference_ops;

/// What is divided by its own RMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvNorm {
    /// Each head; one scale for all of them, `[head_dim]`.
    PerHead,
    /// All heads of the queries, keys or values together (OLMo 2); a scale for each number, `[heads·head_dim]`.
    FullWidth,
}

/// Which heads there are, and what is done to them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QkvSpec {
    /// Query heads.
    pub heads: usize,
    /// Key heads, and as many value heads.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// How queries, keys and values are normed, if they are.
    pub norms: [Option<QkvNorm>; 3],
    /// ε of those norms.
    pub epsilon: f64,
    /// Whether queries and keys are rotated.
    pub rotary: bool,
}

impl QkvSpec {
    /// Query, key and value heads, in this order.
    pub(crate) fn parts(&self) -> [std::ops::Range<usize>; 3] {
        let (h, k) = (self.heads, self.kv_heads);
        [0..h, h..h + k, h + k..h + 2 * k]
    }

    /// The widths of the scales, where there is a norm.
    fn scales(&self) -> [Option<usize>; 3] {
        let mut parts = self.parts().into_iter();
        self.norms.map(|norm| {
            let heads = parts.next().map_or(0, |heads| heads.len());
            Some(match norm? {
                QkvNorm::PerHead => self.head_dim,
                QkvNorm::FullWidth => heads * self.head_dim,
            })
        })
    }

    /// All heads.
    pub(crate) fn all(&self) -> usize {
        self.heads + 2 * self.kv_heads
    }

    /// The shape of the output for a projection of this shape.
    #[cfg(feature = "fusion")]
    pub(crate) fn heads_shape(&self, qkv: &Shape) -> Shape {
        Shape::from([qkv[0], self.all(), qkv[1], self.head_dim])
    }
}

/// Norms queries, keys and values of a fused projection by their RMS, and turns queries and keys by their positions: each pair
/// `(x[i], x[i + head_dim/2])` by an angle.
///
/// # Shapes
/// - `qkv` `[batch, seq, (heads + 2·kv_heads)·head_dim]`: queries, keys, values
/// - `weights`: scales of the three norms, in the shapes that [`QkvNorm`] names; not read where there is no norm
/// - `[cos, sin]` of each position's angles, `[seq, head_dim/2]`; not read without rotation
/// - output `[batch, heads + 2·kv_heads, seq, head_dim]`
pub fn qkv_norm_rope(
    qkv: Tensor<3>,
    weights: [Tensor<1>; 3],
    [cos, sin]: [Tensor<2>; 2],
    spec: QkvSpec,
) -> Tensor<4> {
    let [_, seq, width] = qkv.dims();
    assert_eq!(
        width,
        spec.all() * spec.head_dim,
        "qkv_norm_rope: the width of {spec:?}"
    );
    for (weight, width) in weights.iter().zip(spec.scales()) {
        let fits = width.is_none_or(|width| weight.dims() == [width]);
        assert!(fits, "qkv_norm_rope: the scales of {spec:?}");
    }
    if spec.rotary {
        assert_eq!(
            cos.dims(),
            [seq, spec.head_dim / 2],
            "qkv_norm_rope: the angles"
        );
    }
    let [query, key, value] = weights.map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::qkv_norm_rope(
        qkv.into_dispatch(),
        query,
        key,
        value,
        cos.into_dispatch(),
        sin.into_dispatch(),
        spec,
    ))
}

/// The tensors of this operation beside `qkv`.
pub(crate) struct Constants<T> {
    pub weights: [T; 3],
    pub cos: T,
    pub sin: T,
}

pub(crate) fn forward<B: KernelOps>(
    qkv: FloatTensor<B>,
    with: Constants<FloatTensor<B>>,
    spec: QkvSpec,
) -> FloatTensor<B> {
    let (batch, seq) = (qkv.shape()[0], qkv.shape()[1]);
    let shape = Shape::from([batch, seq, spec.all(), spec.head_dim]);
    let qkv = B::float_reshape(qkv, shape);
    let mut parts = Vec::new();
    for (part, (heads, weight)) in spec.parts().into_iter().zip(with.weights).enumerate() {
        let mut x = slice::<B>(&qkv, 2, heads);
        if let Some(norm) = spec.norms[part] {
            let shape = x.shape();
            let bias = weight.clone();
            let x_rows = rows::<B>(x, norm);
            let normed = B::norm(x_rows, weight, bias, false, NormSpec::rms(spec.epsilon));
            x = B::float_reshape(normed, shape);
        }
        x = B::float_swap_dims(x, 1, 2);
        if spec.rotary && part < 2 {
            x = turn::<B>(x, &with.cos, &with.sin, false);
        }
        parts.push(x);
    }
    B::float_cat(parts, 1)
}

/// The gradients of the projection and of the three scales; of a norm that is not there, zeros.
pub(crate) fn backward<B: KernelOps>(
    qkv: FloatTensor<B>,
    with: Constants<FloatTensor<B>>,
    dy: FloatTensor<B>,
    spec: QkvSpec,
) -> (FloatTensor<B>, [FloatTensor<B>; 3]) {
    let shape = qkv.shape();
    let (batch, seq) = (shape[0], shape[1]);
    let heads = Shape::from([batch, seq, spec.all(), spec.head_dim]);
    let qkv = B::float_reshape(qkv, heads);
    let mut parts = Vec::new();
    let zeros = |weight: &FloatTensor<B>| B::float_mul_scalar(weight.clone(), 0.0.into());
    let mut dweights = with.weights.each_ref().map(zeros);
    for (part, (heads, weight)) in spec.parts().into_iter().zip(with.weights).enumerate() {
        let mut g = slice::<B>(&dy, 1, heads.clone());
        if spec.rotary && part < 2 {
            g = turn::<B>(g, &with.cos, &with.sin, true);
        }
        g = B::float_swap_dims(g, 1, 2);
        if let Some(norm) = spec.norms[part] {
            let shape = g.shape();
            let [x, dy] = [slice::<B>(&qkv, 2, heads), g].map(|x| rows::<B>(x, norm));
            let (dx, dweight, _) =
                B::norm_backward(x, weight, dy, false, NormSpec::rms(spec.epsilon));
            (g, dweights[part]) = (B::float_reshape(dx, shape), dweight);
        }
        parts.push(g);
    }
    (B::float_reshape(B::float_cat(parts, 2), shape), dweights)
}

/// `[batch, seq, heads, head_dim]` as rows of what is normed.
fn rows<B: Backend>(x: FloatTensor<B>, norm: QkvNorm) -> FloatTensor<B> {
    let shape = x.shape();
    match norm {
        QkvNorm::PerHead => x,
        QkvNorm::FullWidth => {
            let width = shape[2] * shape[3];
            B::float_reshape(x, Shape::from([shape[0], shape[1], 1, width]))
        }
    }
}

/// Turns each pair by its position's angle, or `back` by it.
///
/// # Shapes
/// - `x` and output `[batch, heads, seq, head_dim]`
fn turn<B: Backend>(
    x: FloatTensor<B>,
    cos: &FloatTensor<B>,
    sin: &FloatTensor<B>,
    back: bool,
) -> FloatTensor<B> {
    let (seq, half) = (x.shape()[2], x.shape()[3] / 2);
    let table = |x: &FloatTensor<B>| B::float_reshape(x.clone(), Shape::from([1, 1, seq, half]));
    let (cos, sin) = (table(cos), table(sin));
    let sin = if back { B::float_neg(sin) } else { sin };
    let (a, b) = (
        slice::<B>(&x, 3, 0..half),
        slice::<B>(&x, 3, half..2 * half),
    );
    let turned_a = B::float_sub(
        B::float_mul(a.clone(), cos.clone()),
        B::float_mul(b.clone(), sin.clone()),
    );
    let turned_b = B::float_add(B::float_mul(b, cos), B::float_mul(a, sin));
    B::float_cat(vec![turned_a, turned_b], 3)
}

/// `range` of dimension `dim` of a tensor with four.
pub(crate) fn slice<B: Backend>(
    x: &FloatTensor<B>,
    dim: usize,
    range: std::ops::Range<usize>,
) -> FloatTensor<B> {
    let mut slices = [Slice::full(); 4];
    slices[dim] = Slice::from(range);
    B::float_slice(x.clone(), &slices)
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    qkv: FloatTensor<Autodiff<B, C>>,
    with: Constants<FloatTensor<Autodiff<B, C>>>,
    spec: QkvSpec,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(qkv, with, spec);
    }
    let [q, k, v] = with.weights;
    let (cos, sin) = (with.cos.into_primitive(), with.sin.into_primitive());
    let nodes = [qkv.node(), q.node(), k.node(), v.node()];
    let prep = QkvNormRope.prepare::<C>(nodes).compute_bound().stateful();
    match prep {
        OpsKind::Tracked(mut prep) => {
            let saved = [&qkv, &q, &k, &v].map(|x| prep.checkpoint(x));
            let saved = (saved, [cos.clone(), sin.clone()], spec, Place::here());
            let [q, k, v] = [q, k, v].map(|weight| weight.into_primitive());
            let out = B::qkv_norm_rope(qkv.into_primitive(), q, k, v, cos, sin, spec);
            prep.finish(saved, out)
        }
        OpsKind::UnTracked(prep) => {
            let [q, k, v] = [q, k, v].map(|weight| weight.into_primitive());
            let out = B::qkv_norm_rope(qkv.into_primitive(), q, k, v, cos, sin, spec);
            prep.finish(out)
        }
    }
}

#[derive(Debug)]
struct QkvNormRope;

impl<B: KernelOps> Backward<B, 4> for QkvNormRope {
    type State = ([NodeId; 4], [FloatTensor<B>; 2], QkvSpec, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (saved, [cos, sin], spec, place) = ops.state;
        let [qkv, q, k, v] =
            saved.map(|id| -> FloatTensor<B> { checkpointer.retrieve_node_output(id) });
        let (dqkv, dq, dk, dv) =
            place.at(|| B::qkv_norm_rope_backward(qkv, q, k, v, cos, sin, dy, spec));
        for (node, gradient) in ops.parents.into_iter().zip([dqkv, dq, dk, dv]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
