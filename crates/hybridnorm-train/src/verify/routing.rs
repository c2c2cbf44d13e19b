//! What a router did, as plain numbers, and how two accounts of it are compared.
//!
//! Which experts a token goes to is no continuous function: where the k-th and the next expert are closer together than rounding
//! moves them, two right implementations may choose differently, and everything behind that layer differs then. So logits are compared
//! first, like any value. A token with another choice is a [`Flip`]; it is a *tie* when the experts it exchanges are no further apart
//! than the logits themselves may be off, and an error otherwise.

use core::fmt;

use hybridnorm_interop::Array;
use hybridnorm_moe::Routing;
use serde::Serialize;

use super::values::array_of;

/// What one router did with the tokens of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// The block, from 0.
    pub layer: usize,
    /// `[N, E]`
    pub logits: Array,
    /// `[N, E]`
    pub probabilities: Array,
    /// `[N, K]`, best first.
    pub chosen: Array,
    /// `[N, K]`
    pub weights: Array,
    /// `[E]`
    pub load: Array,
}

impl Routed {
    /// Reads it from the device.
    pub fn new(routing: &Routing) -> Self {
        let chosen = routing.chosen.clone().into_data();
        let load = routing.load.iter().map(|n| *n as f64);
        Self {
            layer: routing.layer.unwrap_or(0),
            logits: array_of(routing.logits.clone()),
            probabilities: array_of(routing.probabilities.clone()),
            chosen: Array {
                shape: routing.chosen.dims().to_vec(),
                values: chosen.iter::<f64>().collect(),
            },
            weights: array_of(routing.weights.clone()),
            load: Array {
                shape: vec![routing.load.len()],
                values: load.collect(),
            },
        }
    }

    /// The first token that `found` sent elsewhere.
    pub fn flip(&self, found: &Array) -> Option<Flip> {
        first_flip(self.layer, &self.logits, &self.chosen, found)
    }
}

/// The first token of which `found`, `[N, K]`, has other experts than `expected`; `logits` are the expected ones, `[N, E]`.
pub fn first_flip(layer: usize, logits: &Array, expected: &Array, found: &Array) -> Option<Flip> {
    let k = expected.shape.last().copied().unwrap_or(1).max(1);
    let experts = logits.shape.last().copied().unwrap_or(0);
    let mut tokens = expected.values.chunks(k).zip(found.values.chunks(k));
    let token = tokens.position(|(a, b)| a != b)?;
    let pairs = expected.values.iter().zip(&found.values);
    let (mine, theirs) = pairs
        .skip(token * k)
        .map(|(a, b)| (*a as usize, *b as usize))
        .find(|(a, b)| a != b)?;
    let logit = |expert: usize| logits.values.get(token * experts + expert);
    let gap = logit(mine).zip(logit(theirs)).map(|(a, b)| (a - b).abs());
    Some(Flip {
        layer,
        token,
        experts: [mine, theirs],
        gap: gap.unwrap_or(f64::INFINITY),
    })
}

/// Whether two passes sent every token to the same experts, in the same order.
pub fn same(a: &[Routed], b: &[Routed]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.chosen == b.chosen)
}

/// A token that went to another expert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// The block, from 0.
    pub layer: usize,
    /// The token, counted through the batch.
    pub token: usize,
    /// The expert expected, and the one found.
    pub experts: [usize; 2],
    /// How far apart their expected logits are.
    pub gap: f64,
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            token,
            experts: [expected, found],
            gap,
        } = self;
        write!(
            f,
            "layer {layer}, token {token}: expert {found} instead of {expected}, whose logits are {gap:.1e} apart"
        )
    }
}
