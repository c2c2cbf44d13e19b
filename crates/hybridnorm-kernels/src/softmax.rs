//! What stands between the two products of attention, and which keys a query sees.

use std::ops::Range;

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{FloatDType, Shape, Slice};

use crate::attention::{AttentionSpec, working};
use crate::qkv::slice;

/// What stands between the two products of attention, on a block of queries.
pub(crate) trait Softmax<B: Backend> {
    /// The weights, and of each query the largest score and the inverse sum of the exponentials of what its scores are below that,
    /// `[batch, heads, queries, 2]`, in the type that is [added up in](Seen::dtype). The two apart are exacter than the log-sum-exp that
    /// they make: its rounding would be an error of every weight.
    ///
    /// # Shapes
    /// - `scores` and weights `[batch, heads, queries, keys]`, in the type of the products
    fn forward(scores: FloatTensor<B>, seen: &Seen<B>) -> (FloatTensor<B>, FloatTensor<B>);

    /// The weights once more, and the gradient of the scores from that of the weights: P·(dP − Σ P·dP).
    ///
    /// # Shapes
    /// - all but `sums`, what the forward pass gave, `[batch, heads, queries, keys]`, in the type of the products
    fn backward(
        scores: FloatTensor<B>,
        sums: FloatTensor<B>,
        dweights: FloatTensor<B>,
        seen: &Seen<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>);
}

/// A block of queries, and the keys that any of them may see.
pub(crate) struct Seen<B: Backend> {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    /// `[batch, seq]`
    pub documents: Option<IntTensor<B>>,
    pub window: Option<usize>,
    /// What is added up in.
    pub dtype: FloatDType,
}

impl<B: Backend> Seen<B> {
    /// Blocks of at most `rows` queries, which cover the sequence.
    pub(crate) fn blocks(
        qkv: &FloatTensor<B>,
        documents: Option<&IntTensor<B>>,
        spec: AttentionSpec,
        rows: usize,
    ) -> Vec<Self> {
        let (seq, dtype) = (qkv.shape()[2], working(qkv.dtype()));
        let block = |start: usize| {
            let first = |window: usize| (start + 1).saturating_sub(window);
            let end = seq.min(start.saturating_add(rows));
            Self {
                queries: start..end,
                keys: spec.window.map_or(0, first)..end,
                documents: documents.cloned(),
                window: spec.window,
                dtype,
            }
        };
        (0..seq).step_by(rows).map(block).collect()
    }

    /// `[1 or batch, 1, queries, keys]`, true where attention is forbidden.
    fn forbidden(&self, like: &FloatTensor<B>) -> BoolTensor<B> {
        let (batch, device) = (like.shape()[0], like.device());
        let settings = get_device_settings::<B>(&device);
        let (int, bool) = (settings.int_dtype, settings.bool_dtype);
        let (rows, columns) = (self.queries.len(), self.keys.len());
        let places = |range: &Range<usize>| {
            B::int_arange(range.start as i64..range.end as i64, &device, int)
        };
        let query = B::int_reshape(places(&self.queries), Shape::from([1, 1, rows, 1]));
        let key = B::int_reshape(places(&self.keys), Shape::from([1, 1, 1, columns]));
        let ahead = B::int_sub(key, query);
        let mut forbidden = B::int_greater_elem(ahead.clone(), 0.into(), bool);
        if let Some(window) = self.window {
            let past = B::int_lower_elem(ahead, (1 - window as i64).into(), bool);
            forbidden = B::bool_or(forbidden, past);
        }
        let Some(documents) = &self.documents else {
            return forbidden;
        };
        let all = Shape::from([batch, 1, rows, columns]);
        let part = |range: &Range<usize>, shape: [usize; 4]| {
            let slices = [Slice::from(0..batch), Slice::from(range.clone())];
            let part = B::int_slice(documents.clone(), &slices);
            B::int_expand(B::int_reshape(part, Shape::from(shape)), all.clone())
        };
        let query = part(&self.queries, [batch, 1, rows, 1]);
        let key = part(&self.keys, [batch, 1, 1, columns]);
        let forbidden = B::bool_expand(forbidden, all.clone());
        B::bool_or(forbidden, B::int_not_equal(query, key, bool))
    }

    /// Scores in the type that is added up in, −∞ where attention is forbidden.
    fn masked(&self, scores: FloatTensor<B>) -> FloatTensor<B> {
        let forbidden = B::bool_expand(self.forbidden(&scores), scores.shape());
        let scores = B::float_cast(scores, self.dtype);
        B::float_mask_fill(scores, forbidden, f32::NEG_INFINITY.into())
    }
}

/// [`Softmax`] in the backend's own operations.
pub(crate) struct Composed;

impl<B: Backend> Softmax<B> for Composed {
    fn forward(scores: FloatTensor<B>, seen: &Seen<B>) -> (FloatTensor<B>, FloatTensor<B>) {
        let products = scores.dtype().into();
        let scores = seen.masked(scores);
        let max = B::float_max_dim(B::float_detach(scores.clone()), 3);
        let exp = B::float_exp(B::float_sub(scores, max.clone()));
        let sum = B::float_sum_dim(exp.clone(), 3);
        let share = B::float_recip(sum);
        let sums = B::float_cat(vec![max, share.clone()], 3);
        (B::float_cast(B::float_mul(exp, share), products), sums)
    }

    fn backward(
        scores: FloatTensor<B>,
        sums: FloatTensor<B>,
        dweights: FloatTensor<B>,
        seen: &Seen<B>,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let products = scores.dtype().into();
        let [max, share] = [0, 1].map(|at| slice::<B>(&sums, 3, at..at + 1));
        let weights = B::float_exp(B::float_sub(seen.masked(scores), max));
        let weights = B::float_mul(weights, share);
        let dweights = B::float_cast(dweights, seen.dtype);
        let mean = B::float_sum_dim(B::float_mul(weights.clone(), dweights.clone()), 3);
        let dscores = B::float_mul(weights.clone(), B::float_sub(dweights, mean));
        let [weights, dscores] = [weights, dscores].map(|x| B::float_cast(x, products));
        (weights, dscores)
    }
}
