//! Which rows belong together, and which way tokens go.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Sizes of consecutive groups of rows. On the host: a matrix product cannot be started without knowing its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(Arc<[usize]>);

impl Groups {
    /// Groups of these many rows each, one after the other from row 0 on. A group may be empty.
    pub fn new(sizes: impl Into<Arc<[usize]>>) -> Self {
        Self(sizes.into())
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows in all groups together.
    pub fn rows(&self) -> usize {
        self.0.iter().sum()
    }

    /// Rows of each group.
    pub fn sizes(&self) -> &[usize] {
        &self.0
    }

    /// The rows of each group, as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.0.iter().scan(0, |start, size| {
            let range = *start..*start + size;
            *start = range.end;
            Some(range)
        })
    }
}

/// A permutation of token copies, on the device. Copy `c` is the one that token `c / top_k` sends to its choice
/// number `c % top_k`.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The copy at each place, `[tokens · top_k]`.
    pub(crate) order: Tensor<1, Int>,
    /// The token at each place, `[tokens · top_k]`: `order / top_k`.
    pub(crate) rows: Tensor<1, Int>,
    /// The place of each copy, `[tokens · top_k]`: the inverse of `order`.
    pub(crate) places: Tensor<1, Int>,
    /// Copies of a token.
    pub(crate) top_k: usize,
}

impl Routes {
    /// The routes that put copy `order[p]` at place `p`.
    ///
    /// # Panics
    /// When `order` is not a permutation of `0..order.len()`, or `top_k` is 0.
    pub fn new(order: &[u32], top_k: usize, device: &Device) -> Self {
        let n = order.len();
        let mut places = vec![i32::MAX; n];
        for (place, copy) in order.iter().enumerate() {
            places[*copy as usize] = place as i32;
        }
        assert!(
            places.iter().all(|place| *place != i32::MAX),
            "the order is no permutation"
        );
        let rows = order.iter().map(|copy| (*copy as usize / top_k) as i32);
        let tensor = |values: Vec<i32>| Tensor::from_data(TensorData::new(values, [n]), device);
        Self {
            rows: tensor(rows.collect()),
            order: tensor(order.iter().map(|copy| *copy as i32).collect()),
            places: tensor(places),
            top_k,
        }
    }

    /// Holds the routes against the shape of what goes them: kernels read wherever they lead.
    pub(crate) fn check(&self, what: &str, tokens: usize, copies: usize) {
        let ([routes], top_k) = (self.places.dims(), self.top_k);
        assert!(
            tokens > 0 && routes == tokens * top_k && routes == copies,
            "{what}: {routes} routes, {top_k} a token, for {tokens} tokens and {copies} copies"
        );
    }
}
