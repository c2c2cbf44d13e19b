//! Attention of one new token of each sequence to those that a cache holds. It has no gradient of its own.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata, get_device_settings};
use burn::tensor::{Shape, Tensor, TensorData};

use crate::attention::{AttentionSpec, capped};
use crate::ops::KernelOps;
use crate::qkv::slice;

/// Which heads there are, and what the new token of each sequence sees.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeSpec {
    /// Heads, scale, soft cap and window.
    pub attention: AttentionSpec,
    /// Tokens that the longest sequence has in the cache, the new one included.
    pub len: usize,
    /// Places before the first token of each sequence; an empty list where no sequence has any.
    pub starts: Vec<usize>,
}

impl DecodeSpec {
    /// The first key that sequence `row` sees.
    pub(crate) fn first(&self, row: usize) -> usize {
        let start = self.starts.get(row).copied().unwrap_or(0);
        let window = self.attention.window;
        start.max(window.map_or(0, |window| self.len.saturating_sub(window)))
    }
}

/// `softmax(scale·q·Kᵀ)·V` of the newest token of each sequence.
///
/// # Shapes
/// - `query` `[batch, heads, head_dim]`
/// - `keys`, `values` `[batch, kv_heads, capacity, head_dim]`, of which the first `spec.len` places are filled
/// - output `[batch, heads·head_dim]`
pub fn decode_attention(
    query: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    spec: DecodeSpec,
) -> Tensor<2> {
    let ([batch, heads, dim], held) = (query.dims(), keys.dims());
    let AttentionSpec { kv_heads, .. } = spec.attention;
    assert_eq!(
        heads, spec.attention.heads,
        "decode_attention: the heads of {spec:?}"
    );
    assert_eq!(
        [held[0], held[1], held[3]],
        [batch, kv_heads, dim],
        "decode_attention: the keys"
    );
    assert!(
        (1..=held[2]).contains(&spec.len) && values.dims() == held,
        "decode_attention: {} tokens in keys {held:?} and values {:?}",
        spec.len,
        values.dims()
    );
    assert!(
        spec.starts.is_empty() || spec.starts.len() == batch,
        "decode_attention: {} starts of {batch} sequences",
        spec.starts.len()
    );
    assert!(
        (0..batch).all(|row| spec.first(row) < spec.len),
        "decode_attention: a sequence without a token: {spec:?}"
    );
    Tensor::from_dispatch(Dispatch::decode_attention(
        query.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        spec,
    ))
}

pub(crate) fn forward<B: Backend>(
    query: FloatTensor<B>,
    [keys, values]: [FloatTensor<B>; 2],
    spec: &DecodeSpec,
) -> FloatTensor<B> {
    let (batch, dim) = (query.shape()[0], query.shape()[2]);
    let AttentionSpec {
        heads,
        kv_heads,
        scale,
        softcap,
        ..
    } = spec.attention;
    let group = heads / kv_heads;
    let [keys, values] = [keys, values].map(|held| slice::<B>(&held, 2, 0..spec.len));
    let query = B::float_reshape(query, Shape::from([batch, kv_heads, group, dim]));
    let query = B::float_mul_scalar(query, scale.into());
    let scores = B::float_matmul(query, B::float_swap_dims(keys.clone(), 2, 3));
    let scores = capped::<B>(scores, softcap);
    let scores = match hidden::<B>(&keys, spec) {
        Some(hidden) => {
            let hidden = B::bool_expand(hidden, scores.shape());
            B::float_mask_fill(scores, hidden, f32::NEG_INFINITY.into())
        }
        None => scores,
    };
    let max = B::float_max_dim(scores.clone(), 3);
    let exp = B::float_exp(B::float_sub(scores, max));
    let sum = B::float_sum_dim(exp.clone(), 3);
    let out = B::float_matmul(B::float_div(exp, sum), values);
    B::float_reshape(out, Shape::from([batch, heads * dim]))
}

/// `[batch, 1, 1, len]`, true where a key is not seen; `None` where all are.
fn hidden<B: Backend>(like: &FloatTensor<B>, spec: &DecodeSpec) -> Option<BoolTensor<B>> {
    let (batch, device) = (like.shape()[0], like.device());
    let firsts: Vec<i64> = (0..batch).map(|row| spec.first(row) as i64).collect();
    if firsts.iter().all(|first| *first == 0) {
        return None;
    }
    let settings = get_device_settings::<B>(&device);
    let (int, bool) = (settings.int_dtype, settings.bool_dtype);
    let all = Shape::from([batch, 1, 1, spec.len]);
    let key = B::int_arange(0..spec.len as i64, &device, int);
    let key = B::int_reshape(key, Shape::from([1, 1, 1, spec.len]));
    let firsts = TensorData::new(firsts, [batch, 1, 1, 1]).convert_dtype(int.into());
    let first = B::int_from_data(firsts, &device);
    let (key, first) = (B::int_expand(key, all.clone()), B::int_expand(first, all));
    Some(B::int_lower(key, first, bool))
}
