//! Causal grouped-query attention whose memory grows with the sequence, not with its square (arXiv 2205.14135).

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata, get_device_settings};
use burn::tensor::{Int, Shape, Tensor};

use crate::ops::KernelOps;
use crate::qkv::slice;
use crate::reference::reference_ops;

/// Which heads there are, and what a query sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key heads, and as many value heads; divides `heads`.
    pub kv_heads: usize,
    /// On the scores.
    pub scale: f64,
    /// Tokens a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
}

/// `softmax(scale·Q·Kᵀ)·V` over the keys that each query may see: those up to its own place, within its window, in its own document.
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

/// The output, and the log-sum-exp of each query's scores, in whatever shape the backend keeps it.
pub(crate) fn forward<B: Backend>(
    qkv: FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    spec: AttentionSpec,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = qkv.shape();
    let (batch, seq, dim) = (shape[0], shape[2], shape[3]);
    let [query, key, value] = parts::<B>(&qkv, spec);
    let scores = scores::<B>(query, key, documents, spec);
    let max = B::float_max_dim(B::float_detach(scores.clone()), 3);
    let exp = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 3);
    let lse = B::float_add(B::float_log(sum.clone()), max);
    let weights = stacked::<B>(B::float_div(exp, sum), spec);
    let context = B::float_matmul(weights, value);
    let context = B::float_reshape(context, Shape::from([batch, spec.heads, seq, dim]));
    let context = B::float_swap_dims(context, 1, 2);
    let out = B::float_reshape(context, Shape::from([batch, seq, spec.heads * dim]));
    (out, lse)
}

/// The gradient of `qkv`: with P the weights and dP = dO·Vᵀ, dS = P·(dP − Σ P·dP), and from it those of queries and keys.
pub(crate) fn backward<B: Backend>(
    qkv: FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    [lse, dout]: [FloatTensor<B>; 2],
    spec: AttentionSpec,
) -> FloatTensor<B> {
    let shape = qkv.shape();
    let (batch, seq, dim) = (shape[0], shape[2], shape[3]);
    let dout = B::float_reshape(dout, Shape::from([batch, seq, spec.heads, dim]));
    let dout = B::float_swap_dims(dout, 1, 2);
    let [query, key, value] = parts::<B>(&qkv, spec);
    let scores = scores::<B>(query.clone(), key.clone(), documents, spec);
    let weights = B::float_exp(B::float_sub(scores, lse));
    let dout = stacked::<B>(dout, spec);
    let transposed = |x: FloatTensor<B>| B::float_swap_dims(x, 2, 3);
    let dvalue = B::float_matmul(
        transposed(stacked::<B>(weights.clone(), spec)),
        dout.clone(),
    );
    let dweights = B::float_matmul(dout, transposed(value));
    let dweights = B::float_reshape(dweights, weights.shape());
    let mean = B::float_sum_dim(B::float_mul(weights.clone(), dweights.clone()), 3);
    let dscores = B::float_mul(weights, B::float_sub(dweights, mean));
    let dscores = stacked::<B>(dscores, spec);
    let dquery = B::float_matmul(dscores.clone(), key);
    let dquery = B::float_mul_scalar(dquery, spec.scale.into());
    let dquery = B::float_reshape(dquery, Shape::from([batch, spec.heads, seq, dim]));
    let dkey = B::float_matmul(transposed(dscores), query);
    B::float_cat(vec![dquery, dkey, dvalue], 1)
}

/// Queries, scaled, those that share a key below each other `[batch, kv_heads, group·seq, dim]`; keys and values
/// `[batch, kv_heads, seq, dim]`.
fn parts<B: Backend>(qkv: &FloatTensor<B>, spec: AttentionSpec) -> [FloatTensor<B>; 3] {
    let (h, k) = (spec.heads, spec.kv_heads);
    let query = stacked::<B>(slice::<B>(qkv, 1, 0..h), spec);
    let key = slice::<B>(qkv, 1, h..h + k);
    let value = slice::<B>(qkv, 1, h + k..h + 2 * k);
    let query = B::float_mul_scalar(query, spec.scale.into());
    [query, key, value]
}

/// `[batch, heads, seq, n]` as `[batch, kv_heads, group·seq, n]`.
fn stacked<B: Backend>(x: FloatTensor<B>, spec: AttentionSpec) -> FloatTensor<B> {
    let shape = x.shape();
    let rows = spec.heads / spec.kv_heads * shape[2];
    B::float_reshape(x, Shape::from([shape[0], spec.kv_heads, rows, shape[3]]))
}

/// `[batch, heads, seq, seq]`, −∞ where attention is forbidden.
fn scores<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    spec: AttentionSpec,
) -> FloatTensor<B> {
    let (batch, seq) = (key.shape()[0], key.shape()[2]);
    let scores = B::float_matmul(query, B::float_swap_dims(key.clone(), 2, 3));
    let shape = Shape::from([batch, spec.heads, seq, seq]);
    let scores = B::float_reshape(scores, shape.clone());
    let forbidden = forbidden::<B>(&key, documents, spec.window);
    B::float_mask_fill(
        scores,
        B::bool_expand(forbidden, shape),
        f32::NEG_INFINITY.into(),
    )
}

/// `[1 or batch, 1, seq, seq]`, true where attention is forbidden.
fn forbidden<B: Backend>(
    like: &FloatTensor<B>,
    documents: Option<IntTensor<B>>,
    window: Option<usize>,
) -> BoolTensor<B> {
    let (batch, seq, device) = (like.shape()[0], like.shape()[2], like.device());
    let settings = get_device_settings::<B>(&device);
    let (int, bool) = (settings.int_dtype, settings.bool_dtype);
    let place = || B::int_arange(0..seq as i64, &device, int);
    let query = B::int_reshape(place(), Shape::from([1, 1, seq, 1]));
    let key = B::int_reshape(place(), Shape::from([1, 1, 1, seq]));
    let ahead = B::int_sub(key, query);
    let mut forbidden = B::int_greater_elem(ahead.clone(), 0.into(), bool);
    if let Some(window) = window {
        let past = B::int_lower_elem(ahead, (1 - window as i64).into(), bool);
        forbidden = B::bool_or(forbidden, past);
    }
    let Some(documents) = documents else {
        return forbidden;
    };
    let all = Shape::from([batch, 1, seq, seq]);
    let expanded = |shape: [usize; 4]| {
        let documents = B::int_reshape(documents.clone(), Shape::from(shape));
        B::int_expand(documents, all.clone())
    };
    let query = expanded([batch, 1, seq, 1]);
    let key = expanded([batch, 1, 1, seq]);
    let forbidden = B::bool_expand(forbidden, all.clone());
    B::bool_or(forbidden, B::int_not_equal(query, key, bool))
}

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    qkv: Tracked<B, C>,
    documents: IntTensor<B>,
    by_document: bool,
    spec: AttentionSpec,
) -> (Tracked<B, C>, Tracked<B, C>) {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(qkv, by_document.then_some(documents), spec);
    }
    let nodes = [qkv.node()];
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&qkv);
            let (out, lse) =
                B::causal_attention(qkv.into_primitive(), documents.clone(), by_document, spec);
            let saved = (saved, (documents, by_document), lse.clone(), spec);
            (prep.finish(saved, out), constant::<B, C>(lse))
        }
        OpsKind::UnTracked(prep) => {
            let (out, lse) =
                B::causal_attention(qkv.into_primitive(), documents, by_document, spec);
            (prep.finish(out), constant::<B, C>(lse))
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
    type State = (NodeId, (IntTensor<B>, bool), FloatTensor<B>, AttentionSpec);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let dout = grads.consume::<B>(&ops.node);
        let (qkv, (documents, by_document), lse, spec) = ops.state;
        let qkv: FloatTensor<B> = checkpointer.retrieve_node_output(qkv);
        if let Some(node) = node {
            let gradient =
                B::causal_attention_backward(qkv, documents, by_document, lse, dout, spec);
            grads.register::<B>(node.id, gradient);
        }
    }
}
