//! Where attention is forbidden: the future, other documents, and what lies outside the window.

use burn::tensor::{Bool, Device, Int, Tensor};

/// Forbids the future, and with `window` everything further back than `window − 1` tokens.
///
/// # Shapes
/// - output `[1, 1, n_query, offset + n_query]`, true where attention is forbidden; query `i` stands at position
///   `offset + i`
pub fn causal(
    n_query: usize,
    offset: usize,
    window: Option<usize>,
    device: &Device,
) -> Tensor<4, Bool> {
    let n_key = offset + n_query;
    let query = Tensor::<1, Int>::arange(offset as i64..n_key as i64, device).reshape([n_query, 1]);
    let key = Tensor::<1, Int>::arange(0..n_key as i64, device).reshape([1, n_key]);
    let ahead = key - query;
    let mut forbidden = ahead.clone().greater_elem(0);
    if let Some(window) = window {
        forbidden = forbidden.bool_or(ahead.lower_elem(1 - window as i64));
    }
    forbidden.reshape([1, 1, n_query, n_key])
}

/// Forbids attention between different documents.
///
/// # Shapes
/// - `query` `[batch, n_query]`, `key` `[batch, n_key]`: document numbers
/// - output `[batch, 1, n_query, n_key]`, true where attention is forbidden
pub fn across_documents(query: Tensor<2, Int>, key: Tensor<2, Int>) -> Tensor<4, Bool> {
    let ([batch, n_query], [_, n_key]) = (query.dims(), key.dims());
    let query = query.reshape([batch, 1, n_query, 1]);
    query.not_equal(key.reshape([batch, 1, 1, n_key]))
}

/// Forbids the first `starts[b]` keys of sequence `b`.
///
/// # Shapes
/// - output `[batch, 1, 1, n_key]`, true where attention is forbidden
pub fn before(starts: &[usize], n_key: usize, device: &Device) -> Tensor<4, Bool> {
    let starts: Vec<i64> = starts.iter().map(|start| *start as i64).collect();
    let batch = starts.len();
    let start = Tensor::<1, Int>::from_ints(&starts[..], device).reshape([batch, 1]);
    let key = Tensor::<1, Int>::arange(0..n_key as i64, device).reshape([1, n_key]);
    key.lower(start).reshape([batch, 1, 1, n_key])
}
