//! The operations, over Burn's backends.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::IntDType;

use crate::adamw::AdamWStep;
use crate::attention::{self, AttentionSpec, BLOCK};
use crate::compose;
use crate::cross_entropy;
use crate::decode::{self, DecodeSpec};
use crate::glu::{self, Gate};
use crate::groups::Groups;
use crate::head::{self, Head, HeadSpec};
use crate::norm::{self, NormSpec};
use crate::project;
use crate::qkv::{self, Constants, QkvSpec};
use crate::softmax::Composed;
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;

/// The operations of this crate on a backend's own tensors; the crate's functions are the same on [`Tensor`](burn::tensor::Tensor)s,
/// with shapes and meaning explained.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Remote: cfg(feature = "remote"),
    Fusion: cfg(feature = "fusion")
)]
pub trait KernelOps: Backend {
    /// See [`grouped_matmul`](crate::grouped_matmul).
    #[fusion(meta = |x, weights, _groups| TensorSpec::new([x.shape[0], weights.shape[2]].into(), x.dtype))]
    fn grouped_matmul(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        compose::grouped_matmul::<Self>(x, weights, &groups)
    }

    /// The gradient of [`grouped_matmul`](Self::grouped_matmul) in its matrices: `out[g] = Σ x[r]ᵀ · dy[r]` over the rows of group
    /// `g`; `[groups, d_in, d_out]` from `[rows, d_in]` and `[rows, d_out]`.
    #[fusion(meta = |x, dy, groups| TensorSpec::new([groups.len(), x.shape[1], dy.shape[1]].into(), x.dtype))]
    fn grouped_outer(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        compose::grouped_outer::<Self>(x, dy, &groups)
    }

    /// See [`dispatch`](crate::dispatch); `places` is what its gradient needs.
    #[fusion(meta = |x, rows, _places| TensorSpec::new([rows.shape[0], x.shape[1]].into(), x.dtype))]
    fn dispatch(
        x: FloatTensor<Self>,
        rows: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = places;
        Self::float_select(x, 0, rows)
    }

    /// The gradient of `x` in [`dispatch`](Self::dispatch): each of `tokens` tokens adds up what came back from its copies.
    #[fusion(meta = |dy, _places, tokens| TensorSpec::new([*tokens, dy.shape[1]].into(), dy.dtype))]
    fn dispatch_backward(
        dy: FloatTensor<Self>,
        places: IntTensor<Self>,
        tokens: usize,
    ) -> FloatTensor<Self> {
        compose::gather_sum::<Self>(dy, places, tokens)
    }

    /// See [`combine`](crate::combine); `rows` and `order` are what its gradient needs.
    #[fusion(meta = |y, weights, _rows, _order, _places| TensorSpec::new([weights.shape[0], y.shape[1]].into(), y.dtype))]
    fn combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        rows: IntTensor<Self>,
        order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (rows, order);
        compose::combine::<Self>(y, weights, places)
    }

    /// The gradients of `y` and `weights` in [`combine`](Self::combine).
    #[fusion(meta = |_dout, y, weights, _rows, _order, _places| (y.clone(), weights.clone()))]
    fn combine_backward(
        dout: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        rows: IntTensor<Self>,
        order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        compose::combine_backward::<Self>(dout, y, weights, [rows, order, places])
    }

    /// See [`adamw`](crate::adamw()). Fused where the backend fuses; elsewhere one pass instead of a dozen.
    #[fusion(default)]
    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        compose::adamw::<Self>(weight, grad, [first, second], step)
    }

    /// See [`square_sum`](crate::square_sum).
    #[fusion(default)]
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        compose::square_sum::<Self>(x)
    }

    /// See [`project`](crate::project()).
    #[fusion(default)]
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        project::forward::<Self>(x, weight)
    }

    /// The gradients of `x` and `weight` in [`project`](Self::project).
    #[fusion(default)]
    fn project_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        project::backward::<Self>(x, weight, dy)
    }

    /// See [`norm`](crate::norm()). The shift is read where the norm is `biased`.
    #[fusion(meta = |x, _weight, _bias, _biased, _spec| x.clone())]
    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> FloatTensor<Self> {
        norm::forward::<Self>(x, weight, biased.then_some(bias), spec)
    }

    /// The gradients of `x`, `weight` and `bias` in [`norm`](Self::norm); of a bias that is not there, numbers without meaning.
    #[fusion(meta = |x, weight, _dy, _biased, _spec| (x.clone(), weight.clone(), weight.clone()))]
    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm::backward::<Self>(x, weight, dy, biased, spec)
    }

    /// See [`qkv_norm_rope`](crate::qkv_norm_rope).
    #[fusion(meta = |qkv, _query, _key, _value, _cos, _sin, spec| TensorSpec::new(spec.heads_shape(&qkv.shape), qkv.dtype))]
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
        qkv::forward::<Self>(qkv, Constants { weights, cos, sin }, spec)
    }

    /// The gradients of `qkv` and the three scales in [`qkv_norm_rope`](Self::qkv_norm_rope).
    #[fusion(meta = |qkv, query, key, value, _cos, _sin, _dy, _spec| (qkv.clone(), query.clone(), key.clone(), value.clone()))]
    #[allow(clippy::too_many_arguments)] // The macro takes single tensors only.
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
        let (dqkv, [dquery, dkey, dvalue]) =
            qkv::backward::<Self>(qkv, Constants { weights, cos, sin }, dy, spec);
        (dqkv, dquery, dkey, dvalue)
    }

    /// See [`attention`](crate::attention()); beside the output what the backward pass needs of each query's softmax, as the backend keeps it. The
    /// documents are read where attention is `by_document`.
    #[fusion(meta = |qkv, _documents, _by_document, spec| (TensorSpec::new(spec.out_shape(&qkv.shape), qkv.dtype), TensorSpec::new(spec.sums_shape(&qkv.shape), attention::working(qkv.dtype).into())))]
    fn causal_attention(
        qkv: FloatTensor<Self>,
        documents: IntTensor<Self>,
        by_document: bool,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let documents = by_document.then_some(documents);
        attention::forward::<Self, Composed>(qkv, documents, spec, BLOCK)
    }

    /// The gradient of `qkv` in [`causal_attention`](Self::causal_attention), from what it kept and
    /// the gradient of its output.
    #[fusion(meta = |qkv, _documents, _by_document, _sums, _dout, _spec| qkv.clone())]
    #[allow(clippy::too_many_arguments)] // The macro takes single tensors only.
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        documents: IntTensor<Self>,
        by_document: bool,
        sums: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self> {
        let documents = by_document.then_some(documents);
        attention::backward::<Self, Composed>(qkv, documents, [sums, dout], spec, BLOCK)
    }

    /// See [`decode_attention`](crate::decode_attention).
    #[fusion(default)]
    fn decode_attention(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        spec: DecodeSpec,
    ) -> FloatTensor<Self> {
        decode::forward::<Self>(query, [keys, values], &spec)
    }

    /// See [`glu`](crate::glu()).
    #[fusion(meta = |h, _gate| TensorSpec::new(glu::out_shape(&h.shape), h.dtype))]
    fn glu(h: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        glu::forward::<Self>(h, gate)
    }

    /// The gradient of `h` in [`glu`](Self::glu).
    #[fusion(meta = |h, _dy, _gate| h.clone())]
    fn glu_backward(h: FloatTensor<Self>, dy: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        glu::backward::<Self>(h, dy, gate)
    }

    /// See [`gated`](crate::gated).
    #[fusion(default)]
    fn gated(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        function: Gate,
    ) -> FloatTensor<Self> {
        glu::gated_forward::<Self>(value, gate, function)
    }

    /// The gradients of `value` and `gate` in [`gated`](Self::gated).
    #[fusion(default)]
    fn gated_backward(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        function: Gate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        glu::gated_backward::<Self>(value, gate, dy, function)
    }

    /// See [`cross_entropy`](crate::cross_entropy()).
    #[fusion(meta = |logits, _targets| TensorSpec::new([2, logits.shape[0]].into(), logits.dtype))]
    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        cross_entropy::forward::<Self>(logits, targets)
    }

    /// The gradient of `logits` in [`cross_entropy`](Self::cross_entropy), from what that gave, `both`, and the gradient of it.
    #[fusion(meta = |logits, _targets, _both, _upstream| logits.clone())]
    fn cross_entropy_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        both: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::backward::<Self>(logits, targets, both, upstream)
    }

    /// See [`head_loss`](crate::head_loss). Beside the loss the gradients of `x`, `weight` and `bias` in it, where `gradients` says so; what
    /// stands in their places otherwise has no meaning. The bias is read where the head is `biased`.
    #[fusion(default)]
    #[allow(clippy::too_many_arguments)] // The macro takes single tensors only.
    fn head_loss(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        targets: IntTensor<Self>,
        shares: FloatTensor<Self>,
        spec: HeadSpec,
        gradients: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let bias = biased.then_some(bias);
        head::forward::<Self>(x, Head { weight, bias }, targets, shares, spec, gradients)
    }

    /// `x` times the one number of `by`, `[1]`.
    #[fusion(default)]
    fn scaled(x: FloatTensor<Self>, by: FloatTensor<Self>) -> FloatTensor<Self> {
        head::scaled::<Self>(x, by)
    }

    /// See [`softcap`](crate::softcap()).
    #[fusion(default)]
    fn softcap(x: FloatTensor<Self>, cap: f64) -> FloatTensor<Self> {
        compose::softcap::<Self>(x, cap)
    }

    /// See [`top_k`](crate::top_k).
    #[fusion(meta = |scores, k, int| TensorSpec::new([scores.shape[0], *k].into(), (*int).into()))]
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        Self::float_argtopk(scores, 1, k, int)
    }
}

#[cfg(feature = "ndarray")]
impl KernelOps for burn::backend::NdArray {
    /// Burn's sort for this backend leaves equal values in no order.
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        use burn::backend::ops::{FloatTensorOps, IntTensorOps};
        use burn::backend::{TensorMetadata, try_read_sync};
        use burn::tensor::TensorData;

        let (device, shape) = (scores.device(), scores.shape());
        let data = try_read_sync(Self::float_into_data(scores.clone()));
        let Some(Ok(data)) = data else {
            return Self::float_argtopk(scores, 1, k, int);
        };
        let values: Vec<f64> = data.iter().collect();
        let chosen = crate::host::top_k(&values, shape[1], k);
        let chosen = TensorData::new(chosen, [shape[0], k]).convert_dtype(int.into());
        Self::int_from_data(chosen, &device)
    }
}

/// Composed here, and computed where the device is: a server knows Burn's own operations only.
#[cfg(feature = "remote")]
impl<C: burn_router::RouterChannel> KernelOps for burn_router::BackendRouter<C> {}
