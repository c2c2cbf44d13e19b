//! What each operation computes, in Burn's own operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{FloatDType, Shape, Slice};

use crate::adamw::AdamWStep;
use crate::groups::Groups;

type Float<B> = FloatTensor<B>;

pub(crate) fn grouped_matmul<B: Backend>(
    x: Float<B>,
    weights: Float<B>,
    groups: &Groups,
) -> Float<B> {
    let (rows, d_out) = (x.shape()[0], weights.shape()[2]);
    let mut parts = Vec::new();
    for (group, range) in groups.ranges().enumerate() {
        if range.is_empty() {
            continue;
        }
        let weight = matrix::<B>(&weights, group);
        parts.push(B::float_matmul(rows_of::<B>(&x, range), weight));
    }
    if groups.rows() < rows {
        let rest = Shape::from([rows - groups.rows(), d_out]);
        parts.push(zeros_like::<B>(&x, rest));
    }
    concat::<B>(parts)
}

pub(crate) fn grouped_outer<B: Backend>(x: Float<B>, dy: Float<B>, groups: &Groups) -> Float<B> {
    let (d_in, d_out) = (x.shape()[1], dy.shape()[1]);
    let parts = groups.ranges().map(|range| {
        let product = if range.is_empty() {
            zeros_like::<B>(&x, Shape::from([d_in, d_out]))
        } else {
            let columns = B::float_swap_dims(rows_of::<B>(&x, range.clone()), 0, 1);
            B::float_matmul(columns, rows_of::<B>(&dy, range))
        };
        B::float_reshape(product, Shape::from([1, d_in, d_out]))
    });
    concat::<B>(parts.collect())
}

/// The gradient of dispatch: each token adds up what came back from its copies.
pub(crate) fn gather_sum<B: Backend>(
    dy: Float<B>,
    places: IntTensor<B>,
    tokens: usize,
) -> Float<B> {
    let (copies, d) = (places.shape()[0], dy.shape()[1]);
    let gathered = B::float_select(dy, 0, places);
    let gathered = B::float_reshape(gathered, Shape::from([tokens, copies / tokens, d]));
    B::float_reshape(B::float_sum_dim(gathered, 1), Shape::from([tokens, d]))
}

pub(crate) fn combine<B: Backend>(
    y: Float<B>,
    weights: Float<B>,
    places: IntTensor<B>,
) -> Float<B> {
    let (tokens, top_k, d) = (weights.shape()[0], weights.shape()[1], y.shape()[1]);
    let gathered = B::float_select(y, 0, places);
    let gathered = B::float_reshape(gathered, Shape::from([tokens, top_k, d]));
    let weights = B::float_reshape(weights, Shape::from([tokens, top_k, 1]));
    let sum = B::float_sum_dim(B::float_mul(gathered, weights), 1);
    B::float_reshape(sum, Shape::from([tokens, d]))
}

/// The gradient of combine in `y`: each copy gets its token's, times its weight.
fn combine_dy<B: Backend>(
    upstream: Float<B>,
    weights: Float<B>,
    rows: IntTensor<B>,
    order: IntTensor<B>,
) -> Float<B> {
    let copies = rows.shape()[0];
    let weights = B::float_reshape(weights, Shape::from([copies]));
    let weights = B::float_reshape(B::float_select(weights, 0, order), Shape::from([copies, 1]));
    B::float_mul(B::float_select(upstream, 0, rows), weights)
}

/// The gradient of combine in its weights: each copy's row times its token's gradient.
fn combine_dweights<B: Backend>(upstream: Float<B>, y: Float<B>, places: IntTensor<B>) -> Float<B> {
    let (tokens, d, copies) = (upstream.shape()[0], upstream.shape()[1], places.shape()[0]);
    let gathered = B::float_select(y, 0, places);
    let gathered = B::float_reshape(gathered, Shape::from([tokens, copies / tokens, d]));
    let upstream = B::float_reshape(upstream, Shape::from([tokens, 1, d]));
    let dots = B::float_sum_dim(B::float_mul(gathered, upstream), 2);
    B::float_reshape(dots, Shape::from([tokens, copies / tokens]))
}

/// The gradients of combine in `y` and its weights.
pub(crate) fn combine_backward<B: Backend>(
    upstream: Float<B>,
    y: Float<B>,
    weights: Float<B>,
    [rows, order, places]: [IntTensor<B>; 3],
) -> (Float<B>, Float<B>) {
    let dy = combine_dy::<B>(upstream.clone(), weights, rows, order);
    (dy, combine_dweights::<B>(upstream, y, places))
}

pub(crate) fn square_sum<B: Backend>(x: Float<B>) -> Float<B> {
    B::float_sum(B::float_mul(x.clone(), x))
}

pub(crate) fn adamw<B: Backend>(
    weight: Float<B>,
    grad: Float<B>,
    [first, second]: [Float<B>; 2],
    step: AdamWStep,
) -> (Float<B>, Float<B>, Float<B>) {
    let times = |x: Float<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let grad = times(grad, step.scale);
    let square = times(B::float_mul(grad.clone(), grad.clone()), 1.0 - step.beta2);
    let grad = times(grad, 1.0 - step.beta1);
    let first = B::float_add(times(first, step.beta1), grad);
    let second = B::float_add(times(second, step.beta2), square);
    let root = B::float_sqrt(second.clone());
    let root = B::float_div_scalar(root, step.root_correction.into());
    let root = B::float_add_scalar(root, step.epsilon.into());
    let change = B::float_div(times(first.clone(), step.rate), root);
    let weight = B::float_sub(times(weight, step.keep), change);
    (weight, first, second)
}

/// See [`softcap`](crate::softcap()).
pub(crate) fn softcap<B: Backend>(x: Float<B>, cap: f64) -> Float<B> {
    let bool = get_device_settings::<B>(&x.device()).bool_dtype;
    let times = |x: Float<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let plus = |x: Float<B>, number: f64| B::float_add_scalar(x, number.into());
    let x = B::float_div_scalar(x, cap.into());
    let square = B::float_mul(x.clone(), x.clone());
    let above = B::float_mul(square.clone(), plus(square.clone(), 105.0));
    let below = B::float_mul(square.clone(), plus(times(square.clone(), 15.0), 420.0));
    let large = B::float_greater_elem(square, 0.25.into(), bool);
    // Where x is large the fraction is not used: it is kept finite there, for its gradient is multiplied by zero.
    let [above, below] =
        [above, below].map(|part| B::float_mask_fill(plus(part, 945.0), large.clone(), 1.0.into()));
    let small = B::float_div(B::float_mul(x.clone(), above), below);
    times(B::float_mask_where(small, large, B::float_tanh(x)), cap)
}

/// The slope of [`softcap`] at `x`: with u = e^(−2|x|/cap) it is 4u/(1 + u)², where 1 − tanh² would have lost its digits above the cap.
pub(crate) fn cap_slope<B: Backend>(x: Float<B>, cap: f64) -> Float<B> {
    let u = B::float_exp(B::float_mul_scalar(B::float_abs(x), (-2.0 / cap).into()));
    let share = B::float_recip(B::float_add_scalar(u.clone(), 1.0.into()));
    let slope = B::float_mul(u, B::float_mul(share.clone(), share));
    B::float_mul_scalar(slope, 4.0.into())
}

/// `x` in the type of its products, where they have one of their own.
pub(crate) fn in_products<B: Backend>(x: Float<B>, products: Option<FloatDType>) -> Float<B> {
    match products {
        Some(dtype) => B::float_cast(x, dtype),
        None => x,
    }
}

/// Rows `range` of `x`.
pub(crate) fn rows_of<B: Backend>(x: &Float<B>, range: std::ops::Range<usize>) -> Float<B> {
    let columns = Slice::from(0..x.shape()[1]);
    B::float_slice(x.clone(), &[Slice::from(range), columns])
}

/// Matrix `group` of `weights`.
fn matrix<B: Backend>(weights: &Float<B>, group: usize) -> Float<B> {
    let (d_in, d_out) = (weights.shape()[1], weights.shape()[2]);
    let slices = [group..group + 1, 0..d_in, 0..d_out].map(Slice::from);
    let one = B::float_slice(weights.clone(), &slices);
    B::float_reshape(one, Shape::from([d_in, d_out]))
}

fn zeros_like<B: Backend>(x: &Float<B>, shape: Shape) -> Float<B> {
    B::float_zeros(shape, &x.device(), x.dtype().into())
}

pub(crate) fn concat<B: Backend>(mut parts: Vec<Float<B>>) -> Float<B> {
    match parts.len() {
        1 => parts.remove(0),
        _ => B::float_cat(parts, 0),
    }
}
