//! Operations that Burn lacks: for models with sparse experts, matrix products of rows with the matrix of their own group, and the
//! way of tokens to their experts and back; for training, RMSNorm, the norms of queries, keys and values with their rotation, attention,
//! SwiGLU and cross-entropy, each with its own gradient, and a step of AdamW in one pass.
//!
//! [`KernelOps`] is one trait over Burn's backends. Its default bodies are compositions of Burn's operations and *define* what each
//! operation computes; a backend family overrides what it can do faster. Everything here takes and gives plain [`Tensor`]s.
//!
//! Why gradients of their own: the gradient of a slice is as large as what it was cut from, so that a composition which cuts the
//! matrices of E experts out of one tensor would write E times that tensor in its backward pass; and the gradient of a gather adds
//! rows up one by one, where the inverse permutation is known and another gather does.

#![warn(missing_docs)]
#![recursion_limit = "256"]

mod adamw;
mod attention;
mod autodiff;
mod compose;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod decode;
#[cfg(feature = "flex")]
mod flex;
mod glu;
mod groups;
mod head;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod norm;
#[allow(deprecated)] // Burn's word for ndarray, which stays supported here
mod ops;
mod pool;
pub mod profile;
mod project;
mod qkv;
mod reference;
mod softmax;

pub use adamw::{AdamWStep, adamw};
pub use attention::{AttentionSpec, attention};
pub use cross_entropy::cross_entropy;
pub use decode::{DecodeSpec, decode_attention};
pub use glu::{Gate, gated, glu};
pub use groups::{Groups, Routes};
pub use head::{HeadSpec, head_loss};
pub use norm::{NormSpec, norm, rms_norm};
pub use ops::KernelOps;
pub use pool::on_pool;
pub use project::project;
pub use qkv::{QkvNorm, QkvSpec, qkv_norm_rope};
pub use reference::{reference_ops, use_reference_ops};

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

/// `out[r] = x[r] · weights[g(r)]`, where `g(r)` is the group that row `r` lies in. Rows behind the last group are zero.
///
/// # Shapes
/// - `x` `[rows, d_in]`, sorted by group
/// - `weights` `[groups, d_in, d_out]`
/// - output `[rows, d_out]`
///
/// # Panics
/// When a shape does not fit: a programming mistake.
pub fn grouped_matmul(x: Tensor<2>, weights: Tensor<3>, groups: &Groups) -> Tensor<2> {
    let ([rows, d_in], [n_groups, d_weight, _]) = (x.dims(), weights.dims());
    assert_eq!(
        d_in, d_weight,
        "grouped_matmul: x has {d_in} columns, the matrices {d_weight} rows"
    );
    assert_eq!(
        n_groups,
        groups.len(),
        "grouped_matmul: {n_groups} matrices for {} groups",
        groups.len()
    );
    assert!(
        groups.rows() <= rows,
        "grouped_matmul: the groups hold {} rows, x has {rows}",
        groups.rows()
    );
    let out = Dispatch::grouped_matmul(x.into_dispatch(), weights.into_dispatch(), groups.clone());
    Tensor::from_dispatch(out)
}

/// A copy of each token for each expert that it goes to, sorted by expert: `out[p] = x[rows[p]]`.
///
/// # Shapes
/// - `x` `[tokens, d_model]`
/// - output `[tokens · top_k, d_model]`
///
/// # Panics
/// When the routes are of another number of tokens: a programming mistake.
pub fn dispatch(x: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let [tokens, _] = x.dims();
    routes.check("dispatch", tokens, tokens * routes.top_k);
    Tensor::from_dispatch(Dispatch::dispatch(
        x.into_dispatch(),
        routes.rows.clone().into_dispatch(),
        routes.places.clone().into_dispatch(),
    ))
}

/// The weighted sum of each token's copies: `out[t] = Σ_j weights[t, j] · y[places[t · top_k + j]]`.
///
/// # Shapes
/// - `y` `[tokens · top_k, d_model]`, sorted by expert
/// - `weights` `[tokens, top_k]`
/// - output `[tokens, d_model]`
///
/// # Panics
/// When the routes are of another number of tokens, or `y` has another number of copies: a programming mistake.
pub fn combine(y: Tensor<2>, weights: Tensor<2>, routes: &Routes) -> Tensor<2> {
    let ([rows, _], [tokens, top_k]) = (y.dims(), weights.dims());
    routes.check("combine", tokens, rows);
    assert_eq!(top_k, routes.top_k, "combine: weights of each token");
    Tensor::from_dispatch(Dispatch::combine(
        y.into_dispatch(),
        weights.into_dispatch(),
        routes.rows.clone().into_dispatch(),
        routes.order.clone().into_dispatch(),
        routes.places.clone().into_dispatch(),
    ))
}

/// The sum of all squares, `[1]`: of which the root is the norm of a gradient.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::square_sum(x.into_dispatch()))
}

/// `cap·tanh(x/cap)` (Gemma 2), right to rounding for small `x/cap` too.
///
/// WGSL allows its `tanh` an absolute error of 1e-5, which `cap` multiplies: of a score of 1 under a cap of 50 three digits are left. Below 0.5,
/// where that would be seen, stands the continued fraction of tanh, cut off where it is right to half a rounding of f32.
pub fn softcap<const D: usize>(x: Tensor<D>, cap: f64) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::softcap(x.into_dispatch(), cap))
}

/// The columns of the `k` largest values of each row, largest first; among equal values the lower column comes first, on every
/// device. What is chosen where a row holds NaN is not defined, and may not even be a column.
///
/// # Shapes
/// - `scores` `[rows, columns]`
/// - output `[rows, k]`
///
/// # Panics
/// When `k` is 0 or above `columns`.
pub fn top_k(scores: Tensor<2>, k: usize) -> Tensor<2, Int> {
    let [_, columns] = scores.dims();
    assert!(
        (1..=columns).contains(&k),
        "top_k: k = {k} of {columns} columns"
    );
    let int = scores.device().settings().int_dtype;
    Tensor::from_dispatch(Dispatch::top_k(scores.into_dispatch(), k, int))
}
