//! Causal grouped-query attention whose memory grows with the sequence, not with its square (arXiv 2205.14135).

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{DType, FloatDType, Int, Shape, Slice, Tensor};

use crate::compose::{cap_slope, in_products, softcap};
use crate::ops::KernelOps;
use crate::profile::Place;
use crate::qkv::slice;
use crate::reference::reference_ops;
use crate::softmax::{Composed, Seen, Softmax};

/// Which heads there are, and what a query sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key heads, and as many value heads; divides `heads`.
    pub kv_heads: usize,
    /// On the scores.
    pub scale: f64,
    /// `cap·tanh(score/cap)` stands for each score (Gemma 2).
    pub softcap: Option<f64>,
    /// Tokens a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// What the products of queries and keys, and of weights and values, are computed in; `None` for the type of the input.
    pub products: Option<FloatDType>,
}

#[cfg(feature = "fusion")]
impl AttentionSpec {
    /// The shape of the output for heads of this shape.
    pub(crate) fn out_shape(&self, qkv: &Shape) -> Shape {
        Shape::from([qkv[0], qkv[2], self.heads * qkv[3]])
    }

    /// The shape of what the gradient needs of each query's softmax, for heads of this shape.
    pub(crate) fn sums_shape(&self, qkv: &Shape) -> Shape {
        Shape::from([qkv[0], self.heads, qkv[2], 2])
    }
}

/// What is added up in: f32, or f64 where the input is.
pub(crate) fn working(dtype: DType) -> FloatDType {
    match dtype {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}

/// `softmax(scale·Q·Kᵀ)·V`, its scores capped where that is asked for, over the keys that each query may see: those up to its own place, within its window, in its own document.
///
/// # Shapes
/// - `qkv` `[batch, heads + 2·kv_heads, seq, head_dim]`: queries, keys, values, as
///   [`qkv_norm_rope`](crate::qkv_norm_rope) gives them
/// - `documents` `[batch, seq]`: the number of the document that each token belongs to
/// - output `[batch, seq, heads·head_dim]`
pub fn attention(
    qkv: Tensor<4>,
    documents: Option<Tensor<2, Int>>,
    spec: AttentionSpec,
) -> Tensor<3> {
    let [batch, heads, seq, _] = qkv.dims();
    assert_eq!(
        heads,
        spec.heads + 2 * spec.kv_heads,
        "attention: the heads of {spec:?}"
    );
    if let Some(documents) = &documents {
        assert_eq!(documents.dims(), [batch, seq], "attention: the documents");
    }
    let by_document = documents.is_some();
    let documents = documents.unwrap_or_else(|| Tensor::zeros([1, 1], &qkv.device()));
    let (out, _) = Dispatch::causal_attention(
        qkv.into_dispatch(),
        documents.into_dispatch(),
        by_document,
        spec,
    );
    Tensor::from_dispatch(out)
}

/// Queries whose scores stand in memory at once, where attention is composed: so that what it needs grows with the sequence, not with
/// its square, and keys that come after all of them are never multiplied.
pub(crate) const BLOCK: usize = 512;

/// The output, and what its gradient needs of each query's [softmax](Softmax::forward); `rows` queries at once.
pub(crate) fn forward<B: Backend, S: Softmax<B>>(
    qkv: FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    spec: AttentionSpec,
    rows: usize,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = qkv.shape();
    let (batch, seq, dim) = (shape[0], shape[2], shape[3]);
    let (mut contexts, mut sums) = (Vec::new(), Vec::new());
    for seen in Seen::<B>::blocks(&qkv, documents.as_ref(), spec, rows) {
        let [query, key, value] = parts::<B>(&qkv, &seen, spec);
        let scores = unstacked::<B>(B::float_matmul(query, transposed::<B>(key)), spec);
        let scores = capped::<B>(scores, spec.softcap);
        let (weights, own) = S::forward(scores, &seen);
        let context = B::float_matmul(stacked::<B>(weights, spec), value);
        contexts.push(unstacked::<B>(context, spec));
        sums.push(own);
    }
    let context = B::float_cast(joined::<B>(contexts), qkv.dtype().into());
    let context = B::float_swap_dims(context, 1, 2);
    let out = B::float_reshape(context, Shape::from([batch, seq, spec.heads * dim]));
    (out, joined::<B>(sums))
}

/// The gradient of `qkv`: with P the weights and dP = dO·Vᵀ, dS = P·(dP − Σ P·dP), times the slope of a cap, and from it those of
/// queries and keys.
pub(crate) fn backward<B: Backend, S: Softmax<B>>(
    qkv: FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    [sums, dout]: [FloatTensor<B>; 2],
    spec: AttentionSpec,
    rows: usize,
) -> FloatTensor<B> {
    let shape = qkv.shape();
    let (batch, seq, dim) = (shape[0], shape[2], shape[3]);
    let dout = B::float_reshape(dout, Shape::from([batch, seq, spec.heads, dim]));
    let dout = B::float_swap_dims(dout, 1, 2);
    let (mut dqueries, mut dkey, mut dvalue) = (Vec::new(), None, None);
    for seen in Seen::<B>::blocks(&qkv, documents.as_ref(), spec, rows) {
        let [query, key, value] = parts::<B>(&qkv, &seen, spec);
        let dout = slice::<B>(&dout, 2, seen.queries.clone());
        let dout = stacked::<B>(in_products::<B>(dout, spec.products), spec);
        let sums = slice::<B>(&sums, 2, seen.queries.clone());
        let scores = B::float_matmul(query.clone(), transposed::<B>(key.clone()));
        let dweights = B::float_matmul(dout.clone(), transposed::<B>(value));
        let [scores, dweights] = [scores, dweights].map(|x| unstacked::<B>(x, spec));
        let slope = spec.softcap.map(|cap| cap_slope::<B>(scores.clone(), cap));
        let scores = capped::<B>(scores, spec.softcap);
        let (weights, dscores) = S::backward(scores, sums, dweights, &seen);
        let dscores = match slope {
            Some(slope) => B::float_mul(dscores, slope),
            None => dscores,
        };
        let [weights, dscores] = [weights, dscores].map(|x| stacked::<B>(x, spec));
        let wide = |x| B::float_cast(x, seen.dtype);
        let part = wide(B::float_matmul(transposed::<B>(weights), dout));
        dvalue = Some(add_at::<B>(dvalue, part, &seen.keys, seq));
        let part = wide(B::float_matmul(transposed::<B>(dscores.clone()), query));
        dkey = Some(add_at::<B>(dkey, part, &seen.keys, seq));
        let dquery = wide(unstacked::<B>(B::float_matmul(dscores, key), spec));
        dqueries.push(B::float_mul_scalar(dquery, spec.scale.into()));
    }
    let parts = [Some(joined::<B>(dqueries)), dkey, dvalue];
    let gradient = B::float_cat(parts.into_iter().flatten().collect(), 1);
    B::float_cast(gradient, qkv.dtype().into())
}

/// `scores` under a cap, if there is one.
pub(crate) fn capped<B: Backend>(scores: FloatTensor<B>, cap: Option<f64>) -> FloatTensor<B> {
    match cap {
        Some(cap) => softcap::<B>(scores, cap),
        None => scores,
    }
}

/// Queries of a block, scaled, those that share a key below each other `[batch, kv_heads, group·queries, dim]`; keys and values
/// `[batch, kv_heads, keys, dim]`; all in the type of the products.
fn parts<B: Backend>(
    qkv: &FloatTensor<B>,
    seen: &Seen<B>,
    spec: AttentionSpec,
) -> [FloatTensor<B>; 3] {
    let (h, k) = (spec.heads, spec.kv_heads);
    let cut = |heads: Range<usize>, range: &Range<usize>| {
        slice::<B>(&slice::<B>(qkv, 1, heads), 2, range.clone())
    };
    let query = B::float_mul_scalar(cut(0..h, &seen.queries), spec.scale.into());
    let query = stacked::<B>(query, spec);
    let [key, value] = [h, h + k].map(|first| cut(first..first + k, &seen.keys));
    [query, key, value].map(|x| in_products::<B>(x, spec.products))
}

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 2, 3)
}

/// `[batch, heads, queries, n]` as `[batch, kv_heads, group·queries, n]`.
fn stacked<B: Backend>(x: FloatTensor<B>, spec: AttentionSpec) -> FloatTensor<B> {
    let shape = x.shape();
    let rows = spec.heads / spec.kv_heads * shape[2];
    B::float_reshape(x, Shape::from([shape[0], spec.kv_heads, rows, shape[3]]))
}

/// What [`stacked`] stacks.
fn unstacked<B: Backend>(x: FloatTensor<B>, spec: AttentionSpec) -> FloatTensor<B> {
    let shape = x.shape();
    let rows = shape[2] * spec.kv_heads / spec.heads;
    B::float_reshape(x, Shape::from([shape[0], spec.heads, rows, shape[3]]))
}

/// Blocks of queries, one behind the other.
fn joined<B: Backend>(mut blocks: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    match blocks.len() {
        1 => blocks.remove(0),
        _ => B::float_cat(blocks, 2),
    }
}

/// `sum`, or zeros, with `part` added at the keys that it belongs to.
fn add_at<B: Backend>(
    sum: Option<FloatTensor<B>>,
    part: FloatTensor<B>,
    keys: &Range<usize>,
    seq: usize,
) -> FloatTensor<B> {
    let mut shape = part.shape();
    if keys.len() == seq && sum.is_none() {
        return part;
    }
    shape[2] = seq;
    let (device, dtype) = (part.device(), part.dtype().into());
    let sum = sum.unwrap_or_else(|| B::float_zeros(shape, &device, dtype));
    let mut slices = [Slice::full(); 4];
    slices[2] = Slice::from(keys.clone());
    let part = B::float_add(B::float_slice(sum.clone(), &slices), part);
    B::float_slice_assign(sum, &slices, part)
}

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    qkv: Tracked<B, C>,
    documents: IntTensor<B>,
    by_document: bool,
    spec: AttentionSpec,
) -> (Tracked<B, C>, Tracked<B, C>) {
    if reference_ops() {
        // In one block: Burn's own differentiation of a slice makes a tensor as large as what it was cut from.
        let documents = by_document.then_some(documents);
        return forward::<Autodiff<B, C>, Composed>(qkv, documents, spec, usize::MAX);
    }
    let nodes = [qkv.node()];
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&qkv);
            let (out, sums) =
                B::causal_attention(qkv.into_primitive(), documents.clone(), by_document, spec);
            let documents = (documents, by_document);
            let saved = (saved, documents, sums.clone(), (spec, Place::here()));
            (prep.finish(saved, out), constant::<B, C>(sums))
        }
        OpsKind::UnTracked(prep) => {
            let (out, sums) =
                B::causal_attention(qkv.into_primitive(), documents, by_document, spec);
            (prep.finish(out), constant::<B, C>(sums))
        }
    }
}

fn constant<B: KernelOps, C: CheckpointStrategy>(x: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
    use burn::backend::AutodiffBackend;
    Autodiff::<B, C>::from_inner(x)
}

#[derive(Debug)]
struct Attention;

impl<B: KernelOps> Backward<B, 1> for Attention {
    type State = (
        NodeId,
        (IntTensor<B>, bool),
        FloatTensor<B>,
        (AttentionSpec, Place),
    );

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let dout = grads.consume::<B>(&ops.node);
        let (qkv, (documents, by_document), sums, (spec, place)) = ops.state;
        let qkv: FloatTensor<B> = checkpointer.retrieve_node_output(qkv);
        if let Some(node) = node {
            let gradient = place
                .at(|| B::causal_attention_backward(qkv, documents, by_document, sums, dout, spec));
            grads.register::<B>(node.id, gradient);
        }
    }
}
